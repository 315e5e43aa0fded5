# The lock: everything downloaded, by version and checksum. Each value was found pinned the same
# in at least two independent public places (K3s: also in the release's own sha256sum files).
versions:
  salt:
    version: '3008.3'
  k3s:
    version: v1.36.4+k3s1
    amd64:
      url: https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s
      sha256: 835873f37245fc615f547a2fe2af9402a347875f13fa64a1f136de644955ea3f
    arm64:
      url: https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s-arm64
      sha256: c920706346d5ad4e5cd3c7bf1bb09ce71ebe07fec829e513e40f1caf98aed8bb
    airgap:
      amd64:
        url: https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s-airgap-images-amd64.tar.zst
        sha256: 9024613e2d468c51ba0e5ba21898604c41339354449fb3338cc6a7931189eb6a
      arm64:
        url: https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s-airgap-images-arm64.tar.zst
        sha256: 9d3c4c2197bcf857ca17633aa393bad683cc982ddd408620f93036a3cca953b5
  # Digests of the multi-architecture index.
  images:
    traefik:
      name: docker.io/library/traefik
      tag: v3.7.13
      digest: sha256:24841fe2de7304c149343d877d2923b4c8800a38ba015dea9174c23b20e344a0
    redis:
      name: docker.io/library/redis
      tag: 8.10.2
      digest: sha256:d5ac52db24d4e70566fe9944f22cf5bdc2bc739b05c0f426335161ea6c23f3b3
    # The base of the app's image: the machines' Python, so that one set of wheels serves.
    python:
      name: docker.io/library/python
      tag: 3.11-slim-bookworm
      digest: sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b
