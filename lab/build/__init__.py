"""
Builds all that the lab runs: programs from Go modules, images from them and from Debian.

    from lab import build
    manifest = build.build()                       # builds what is missing
    manifest.binary("kubernetes", "kubelet")       # a path in the cache
    manifest.image("traefik").digest
    manifest.airgap().sha256
    manifest.k3s_bin_dir()
    build.kubernetes("v1.36.2")                    # the same for an older Kubernetes
    build.tool("vegeta")                           # what only a measurement needs
"""

from lab.build.artifacts import Archive, Image, Manifest, Program
from lab.build.errors import BuildError
from lab.build.everything import build, kubernetes, manifest, preflight, tool

__all__ = [
    "Archive",
    "BuildError",
    "Image",
    "Manifest",
    "Program",
    "build",
    "kubernetes",
    "manifest",
    "preflight",
    "tool",
]
