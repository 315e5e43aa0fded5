"""The deploy controller, with a kubectl that only notes what it is asked."""

from pathlib import Path

import pytest
import yaml

from lab.k3s import config, deploy, settings
from lab.k3s.supervisor import CommandFailed


class Kubectl:
    def __init__(self):
        self.calls = []
        self.broken = set()

    def __call__(self, arguments):
        name = Path(arguments[-1].partition("=")[2]).name
        self.calls.append((arguments[0], name))
        if name in self.broken:
            raise CommandFailed(f"kubectl failed (1): {name}")
        return ""


@pytest.fixture
def kubectl():
    return Kubectl()


@pytest.fixture
def make(tmp_path, kubectl):
    (tmp_path / "manifests").mkdir()
    return lambda: deploy.Deployer(tmp_path, kubectl, "deploy@s1")


def test_packaged_manifests_are_filled_in_and_valid():
    argv = ["--disable=traefik,servicelb,metrics-server", "--service-cidr=10.9.0.0/16"]
    given, problems = config.read("server", [*argv, "--cluster-domain=f1.test"], {})
    texts = deploy.packaged(settings.resolve("server", given, problems, "s1", "10.0.0.5"))
    assert set(texts) == {"coredns", "local-storage"}
    things = [thing for text in texts.values() for thing in yaml.safe_load_all(text)]
    assert "%{" not in str(things)
    (dns,) = [t for t in things if t["kind"] == "Service"]
    assert dns["spec"]["clusterIP"] == "10.9.0.10"
    assert "kubernetes f1.test in-addr.arpa" in texts["coredns"]
    images = {
        line.split()[-1]
        for text in texts.values()
        for line in text.splitlines()
        if "image:" in line
    }
    assert images == {
        "docker.io/rancher/mirrored-coredns-coredns:1.15.0",
        "docker.io/rancher/local-path-provisioner:v0.0.30",
        "docker.io/rancher/mirrored-library-busybox:1.37.0",
    }


def test_applied_when_new_or_changed_and_remembered(make, kubectl):
    deployer = make()
    deployer.place({"coredns": "a"}, frozenset())
    (deployer.manifests / "mine.yml").write_text("b")
    (deployer.manifests / "notes.txt").write_text("c")
    assert deployer.look() == ["coredns.yaml", "mine.yml"]
    assert deployer.look() == []
    assert make().look() == []
    (deployer.manifests / "mine.yml").write_text("b2")
    assert make().look() == ["mine.yml"]


def test_disabled_component_is_not_written_or_taken_back(make, kubectl):
    deployer = make()
    deployer.place({"coredns": "a"}, frozenset({"coredns"}))
    assert deployer.look() == []
    deployer.place({"coredns": "a"}, frozenset())
    deployer.look()
    again = make()
    again.place({"coredns": "a"}, frozenset({"coredns"}))
    assert kubectl.calls == [("apply", "coredns.yaml"), ("delete", "coredns.yaml")]
    assert not (again.manifests / "coredns.yaml").exists()
    assert again.look() == []


def test_skip_file(make):
    deployer = make()
    (deployer.manifests / "a.yaml").write_text("a")
    (deployer.manifests / "a.yaml.skip").touch()
    assert deployer.look() == []


def test_failure_is_told_once_and_tried_again(make, kubectl, capsys):
    deployer = make()
    (deployer.manifests / "a.yaml").write_text("a")
    (deployer.manifests / "b.yaml").write_text("b")
    kubectl.broken = {"a.yaml"}
    assert deployer.look() == ["b.yaml"]
    assert deployer.look() == []
    assert capsys.readouterr().err.count("a.yaml was not applied") == 1
    kubectl.broken = set()
    assert deployer.look() == ["a.yaml"]
