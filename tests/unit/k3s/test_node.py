"""What the node's programs are told, and whose node it is."""

import os
from pathlib import Path

import pytest

from lab.k3s import config, host, node, objects, server, settings, tokens
from lab.k3s.api import Api, ApiError, path_of
from lab.k3s.pki import Pki

NETWORK = {
    "cluster_cidr": "10.42.0.0/16",
    "service_cidr": "10.43.0.0/16",
    "cluster_dns": "10.43.0.10",
    "cluster_domain": "cluster.local",
    "backend": "host-gw",
    "network_policy": False,
}


def options(role, *argv):
    basic = {
        "server": ["--disable=traefik,servicelb,metrics-server", "--token=top-secret"],
        "agent": ["--server=https://h:6443", "--token=top-secret"],
    }[role]
    given, problems = config.read(role, [*basic, *argv], {})
    return settings.resolve(role, given, problems, "n1", "10.0.0.5")


def test_argument_replaces_the_default_of_its_name():
    argv = node.arguments({"a": "1", "b": "2"}, ["b=3", "--c=4", "b=5", "d"])
    assert argv == ["--a=1", "--b=3", "--c=4", "--b=5", "--d"]


@pytest.mark.parametrize(("systemd", "driver"), [(True, "systemd"), (False, "cgroupfs")])
def test_kubelet_configuration(systemd, driver):
    s = options("agent", "--protect-kernel-defaults")
    made = node.kubelet_config(s, NETWORK, Path("/ca"), Path("/r"), systemd)
    assert made["cgroupDriver"] == driver
    assert made["failCgroupV1"] is False
    assert made["protectKernelDefaults"] is True
    assert made["clusterDNS"] == ["10.43.0.10"]
    assert made["authentication"]["anonymous"] == {"enabled": False}
    assert made["resolvConf"] == "/r"


def test_kubelet_gets_labels_and_taints():
    s = options(
        "agent",
        "--node-label=f1.vote/role=worker",
        "--node-taint=a=b:NoSchedule",
        "--node-external-ip=203.0.113.9",
        "--kubelet-arg=max-pods=20",
    )
    argv = node.kubelet_argv(s, Path("/k"), Path("/b"))
    assert "--node-labels=f1.vote/role=worker,k3s.io/external-ip=203.0.113.9" in argv
    assert "--register-with-taints=a=b:NoSchedule" in argv
    assert "--bootstrap-kubeconfig=/b" in argv
    assert argv[-1] == "--max-pods=20"


def test_proxy_leaves_the_hosts_conntrack_alone():
    argv = node.proxy_argv(
        options("agent", "--kube-proxy-arg=proxy-mode=nftables"), NETWORK, Path("/k")
    )
    assert {"--conntrack-max-per-core=0", "--conntrack-min=0"} <= set(argv)
    assert [a for a in argv if a.startswith("--proxy-mode")] == ["--proxy-mode=nftables"]


def test_netagent_follows_the_cluster_not_the_agent():
    argv = node.netagent_argv(options("agent"), NETWORK, Path("/k"))
    assert {"--backend=host-gw", "--netpol=false", "--node-ip=10.0.0.5"} <= set(argv)


def test_no_secret_in_any_command_line(tmp_path):
    s = options("server", "--secrets-encryption", f"--data-dir={tmp_path}")
    pki = Pki(s, tmp_path, "v1.36.3")
    lines = [
        *server.apiserver_argv(s, pki, tmp_path / "a"),
        *server.manager_argv(s, pki),
        *server.scheduler_argv(s, pki),
        *server.kine_argv(tmp_path),
        *node.kubelet_argv(s, tmp_path, None),
    ]
    assert not [line for line in lines if "top-secret" in line]
    assert any(line.startswith("--encryption-provider-config=") for line in lines)


def test_extra_arguments_reach_their_component(tmp_path):
    s = options(
        "server",
        f"--data-dir={tmp_path}",
        "--kube-apiserver-arg=audit-log-path=/x",
        "--kube-apiserver-arg=profiling=true",
        "--kube-scheduler-arg=v=2",
    )
    pki = Pki(s, tmp_path, "v1.36.3")
    argv = server.apiserver_argv(s, pki, tmp_path / "a")
    assert argv[-2:] == ["--audit-log-path=/x", "--profiling=true"]
    assert "--profiling=false" not in argv
    assert "--v=2" in server.scheduler_argv(s, pki)


def test_strangers_see_health_and_cluster_info_only():
    anonymous = server.authentication_config()["anonymous"]
    assert [c["path"] for c in anonymous["conditions"]] == [
        "/livez",
        "/readyz",
        "/healthz",
        objects.CLUSTER_INFO,
    ]


def test_cluster_info_comes_after_every_token():
    s = options("server")
    things = objects.joinable(s, b"ca", ("one", "two", "one"))
    names = [path_of(thing) for thing in things]
    secrets = [name for name in names if "/secrets/" in name]
    assert secrets == [
        f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{tokens.bootstrap(text)[0]}"
        for text in ("one", "two")
    ]
    assert names[-1] == objects.CLUSTER_INFO


def test_nodes_may_read_no_secret():
    rules = [rule for thing in objects.roles() for rule in thing.get("rules", [])]
    assert all("secrets" not in rule["resources"] for rule in rules)
    assert all("*" not in rule["verbs"] for rule in rules)


class Nodes(Api):
    """An API that knows one node, or none."""

    def __init__(self, mark=None, absent=False):
        self.answer = {"metadata": {"annotations": {node.PASSWORD_MARK: mark} if mark else {}}}
        self.absent = absent

    def get(self, path):
        if self.absent:
            raise ApiError(path, 404, "not found")
        return self.answer


def test_node_of_another_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(node, "password_hash", lambda: "mine")
    s = options("agent")
    node.refuse_stranger(s, Nodes(absent=True))
    node.refuse_stranger(s, Nodes())
    node.refuse_stranger(s, Nodes("mine"))
    with pytest.raises(node.NodeRefused, match=r"Node password rejected.*kubectl delete node n1"):
        node.refuse_stranger(s, Nodes("other"))


def test_node_password_is_made_once(tmp_path):
    path = tmp_path / "node/password"
    first = node.password_hash(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert node.password_hash(path) == first


def test_one_k3s_a_machine(tmp_path):
    path = tmp_path / "run/k3s.lock"
    with host.lock(path, "k3s agent"), pytest.raises(host.Locked) as caught:
        host.lock(path, "k3s server")
    assert f"k3s agent (pid {os.getpid()}) already runs" in str(caught.value)
    host.lock(path, "k3s server").close()


def test_missing_programs_are_named_together(tmp_path, monkeypatch):
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    with pytest.raises(config.ConfigError) as caught:
        host.check(tmp_path / "components", ["kubelet"])
    text = str(caught.value)
    assert "components does not exist" in text
    assert "runc is not installed: apt-get install runc" in text
    (tmp_path / "components").mkdir()
    with pytest.raises(config.ConfigError, match="kubelet is missing or not executable"):
        host.check(tmp_path / "components", ["kubelet"])


def test_resolv_conf_without_loopback(tmp_path):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("search x\nnameserver 10.0.0.2\n")
    assert host.resolv_conf(tmp_path, [tmp_path / "none", stub, real]) == real
    made = host.resolv_conf(tmp_path, [stub])
    assert made.read_text() == "nameserver 8.8.8.8\n"


def test_a_file_is_never_wider_than_asked(tmp_path):
    path = tmp_path / "x/secret"
    host.write(path, "s")
    assert path.stat().st_mode & 0o777 == 0o600
    host.write(path, "s2", 0o644)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("s2", 0o644)
    assert list(path.parent.iterdir()) == [path]
