# On K3s's server, a part of cluster.rotate_token: another secret, a restart, the mine.
/etc/rancher/k3s/agent-token:
  k3s.secret_rotated: []

k3s:
  k3s.current:
    - files: [/etc/rancher/k3s/agent-token]
    - require:
      - k3s: /etc/rancher/k3s/agent-token

k3s_agent_token:
  k3s.token_offered:
    - require:
      - k3s: k3s
