"""What is built from Go modules. One more family: a folder in `lab/modules`, an entry here."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

MODULES = Path(__file__).resolve().parents[1] / "modules"


def k3s_version(kubernetes: str) -> str:
    """Return the version of the k3s that carries this Kubernetes: ``v1.36.3+k3s1``."""
    return f"{kubernetes}+k3s1"


@dataclass(frozen=True)
class Family:
    """
    The programs of one ``go.mod``.

    ``module`` is the one whose version the family carries; ``stamps`` are the Go variables that
    programs tell their version from, as values of the linker's ``-X``; ``seconds`` is about what a
    cold build takes on two idle cores after the families above it: for the ETA. ``modfile`` is
    ``go.mod``, or another file beside it that requires other versions for the same sources.
    """

    name: str
    programs: tuple[str, ...]
    seconds: int
    module: str = ""
    stamps: tuple[str, ...] = ()
    folder: Path | None = None
    modfile: str = "go.mod"

    @property
    def path(self) -> Path:
        """The folder of its ``go.mod``."""
        return self.folder or MODULES / self.name

    @property
    def mod(self) -> Path:
        """The file that pins its modules; their checksums lie beside it in a ``.sum``."""
        return self.path / self.modfile

    @property
    def version(self) -> str:
        """The version of what it builds; empty where all of it is ours."""
        if not self.module:
            return ""
        found = re.search(rf"\s{re.escape(self.module)} (v\S+)", self.mod.read_text())
        if not found:
            raise ValueError(f"{self.mod} does not require {self.module}")
        return found[1]

    @property
    def target(self) -> str:
        """What ``go build`` is given: the tools that go.mod names, or our own program."""
        return "tool" if re.search(r"^tool\b", self.mod.read_text(), re.MULTILINE) else "."

    @property
    def ldflags(self) -> str:
        """What the linker is told: no debug symbols, and the version."""
        version = self.version
        major, minor, *_ = [*version.lstrip("v").split("."), "", ""]
        stamps = (s.format(version=version, major=major, minor=minor) for s in self.stamps)
        return " ".join(["-s -w", *(f"-X {stamp}" for stamp in stamps)])


# The largest first: what comes later finds its Kubernetes libraries compiled.
FAMILIES = (
    Family(
        "kubernetes",
        (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubeadm",
            "kubectl",
            "kubelet",
        ),
        seconds=400,
        module="k8s.io/kubernetes",
        stamps=(
            # The kubelet's version is K3s's.
            f"k8s.io/component-base/version.gitVersion={k3s_version('{version}')}",
            "k8s.io/component-base/version.gitMajor={major}",
            "k8s.io/component-base/version.gitMinor={minor}",
            "k8s.io/component-base/version.gitTreeState=clean",
        ),
    ),
    Family(
        "traefik",
        ("traefik",),
        seconds=300,
        module="github.com/traefik/traefik/v3",
        stamps=("github.com/traefik/traefik/v3/pkg/version.Version={version}",),
    ),
    Family(
        "kine",
        ("kine",),
        seconds=75,
        module="github.com/k3s-io/kine",
        stamps=("github.com/k3s-io/kine/pkg/version.Version={version}",),
    ),
    Family("coredns", ("coredns",), seconds=50, module="github.com/coredns/coredns"),
    Family("netagent", ("netagent",), seconds=25),
    Family(
        "localpath",
        ("local-path-provisioner",),
        seconds=5,
        module="github.com/rancher/local-path-provisioner",
        stamps=("main.VERSION={version}",),
    ),
    Family(
        "registry",
        ("registry",),
        seconds=20,
        module="github.com/distribution/distribution/v3",
        stamps=("github.com/distribution/distribution/v3/version.version={version}",),
    ),
    Family("pause", ("pause",), seconds=1),
)

# What the measurements need: built when they run, never for the platform.
TOOLS = (Family("vegeta", ("vegeta",), seconds=15, module="github.com/tsenart/vegeta/v12"),)

# Kubernetes before the one above, to upgrade from: built when asked for, never by the way.
OLDER = {
    version: replace(
        next(family for family in FAMILIES if family.name == "kubernetes"),
        name=f"kubernetes-{version}",
        folder=MODULES / "kubernetes",
        modfile=f"{version}.mod",
    )
    for version in ("v1.36.2",)
}
