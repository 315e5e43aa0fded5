"""What the node's programs are told, and whose node it is."""

import os
import subprocess
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


@pytest.mark.parametrize(
    ("extra", "merged"),
    [
        ((), ["--a=1", "--b=2"]),
        (("b=3", "--c=4", "b=5", "d"), ["--a=1", "--b=3", "--b=5", "--c=4", "--d=true"]),
        (("b+=3",), ["--a=1", "--b=2", "--b=3"]),
        (("b-=3",), ["--a=1", "--b=3", "--b=2"]),
        (("b+=3", "b=4"), ["--a=1", "--b=2", "--b=3", "--b=4"]),
        (("b=x=y",), ["--a=1", "--b=x=y"]),
    ],
)
def test_arguments_are_merged_as_k3s_does(extra, merged):
    assert node.arguments({"b": "2", "a": "1"}, extra) == merged


@pytest.mark.parametrize(("systemd", "driver"), [(True, "systemd"), (False, "cgroupfs")])
def test_kubelet_configuration(systemd, driver):
    s = options("agent", "--protect-kernel-defaults")
    made = node.kubelet_config(s, NETWORK, Path("/r"), systemd)
    assert made["cgroupDriver"] == driver
    assert made["failCgroupV1"] is False
    assert made["protectKernelDefaults"] is True
    assert made["clusterDNS"] == ["10.43.0.10"]
    assert made["authentication"]["anonymous"] == {"enabled": False}
    assert made["resolvConf"] == "/r"
    agent = "/var/lib/rancher/k3s/agent"
    assert made["authentication"]["x509"]["clientCAFile"] == f"{agent}/client-ca.crt"
    assert made["tlsCertFile"] == f"{agent}/serving-kubelet.crt"


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
    assert {"--max-pods=20", "--read-only-port=0"} <= set(argv)


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
        *server.apiserver_argv(s, pki),
        *server.manager_argv(s, pki),
        *server.scheduler_argv(s, pki),
        *server.kine_argv(tmp_path),
        *node.kubelet_argv(s, tmp_path, None),
    ]
    assert not [line for line in lines if "top-secret" in line]
    assert any(line.startswith("--encryption-provider-config=") for line in lines)


HARDENED = """
protect-kernel-defaults: true
secrets-encryption: true
kube-apiserver-arg:
  - enable-admission-plugins=NodeRestriction,EventRateLimit
  - admission-control-config-file=/var/lib/rancher/k3s/server/psa.yaml
  - audit-log-path=/var/lib/rancher/k3s/server/logs/audit.log
  - audit-policy-file=/var/lib/rancher/k3s/server/audit.yaml
  - audit-log-maxage=30
  - audit-log-maxbackup=10
  - audit-log-maxsize=100
  - request-timeout=300s
  - service-account-lookup=true
  - service-account-extend-token-expiration=false
kube-controller-manager-arg:
  - terminated-pod-gc-threshold=100
kube-scheduler-arg: [v=2]
kubelet-arg:
  - streaming-connection-idle-timeout=5m
  - make-iptables-util-chains=true
  - event-qps=0
  - tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
"""


def test_the_hardening_guides_configuration_reaches_the_components(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(HARDENED)
    s = options("server", f"--config={path}", f"--data-dir={tmp_path}")
    pki = Pki(s, tmp_path, "v1.36.3")
    argv = server.apiserver_argv(s, pki)
    wanted = HARDENED.split("kube-apiserver-arg:")[1].split("kube-controller")[0].split("- ")[1:]
    assert {f"--{argument.strip()}" for argument in wanted} <= set(argv)
    assert f"--encryption-provider-config={tmp_path}/server/cred/encryption-config.json" in argv
    assert [a for a in argv if a.startswith("--enable-admission-plugins=")] == [
        "--enable-admission-plugins=NodeRestriction,EventRateLimit"
    ]
    assert "--terminated-pod-gc-threshold=100" in server.manager_argv(s, pki)
    assert "--v=2" in server.scheduler_argv(s, pki)
    kubelet = node.kubelet_argv(s, tmp_path, None)
    assert {"--event-qps=0", "--make-iptables-util-chains=true"} <= set(kubelet)
    assert s.protect_kernel_defaults


def test_defaults_that_the_benchmark_looks_at_are_k3s_own(tmp_path):
    s = options("server", f"--data-dir={tmp_path}")
    pki = Pki(s, tmp_path, "v1.36.3")
    argv = set(server.apiserver_argv(s, pki))
    tls = f"{tmp_path}/server/tls"
    assert {
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={tls}/client-ca.crt",
        f"--kubelet-certificate-authority={tls}/server-ca.crt",
        f"--kubelet-client-certificate={tls}/client-kube-apiserver.crt",
        "--profiling=false",
        f"--service-account-key-file={tls}/service.key",
        f"--tls-cert-file={tls}/serving-kube-apiserver.crt",
        "--tls-min-version=VersionTLS12",
    } <= argv
    for others in (server.manager_argv(s, pki), server.scheduler_argv(s, pki)):
        assert {"--bind-address=127.0.0.1", "--profiling=false"} <= set(others)
    replaced = options(
        "server", "--kube-apiserver-arg=profiling=true", "--kube-apiserver-arg=anonymous-auth=true"
    )
    argv = set(server.apiserver_argv(replaced, Pki(replaced, tmp_path, "v1.36.3")))
    assert {"--profiling=true", "--anonymous-auth=true"} <= argv
    assert not {"--profiling=false", "--anonymous-auth=false"} & argv


def test_agents_join_with_the_agent_token_alone():
    things = objects.joinable("agents")
    (secret,) = [path_of(thing) for thing in things if thing["kind"] == "Secret"]
    ident = tokens.bootstrap("agents")[0]
    assert secret == f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{ident}"
    assert not [t for t in things if t["kind"] in ("Role", "RoleBinding", "ConfigMap")]


class Kernel:
    """A /proc/sys of files."""

    def __init__(self, root):
        self.root = root
        for name, value in host.KERNEL_DEFAULTS.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{value}\n")

    def set(self, name, value):
        (self.root / name).write_text(f"{value}\n")


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    made = Kernel(tmp_path / "sys")
    real = host.kernel_differences
    monkeypatch.setattr(host, "kernel_differences", lambda: real(made.root))
    return made


@pytest.mark.parametrize("container", [True, False])
def test_kernel_as_the_kubelet_wants_is_left_to_it(kernel, monkeypatch, container):
    monkeypatch.setattr(host, "in_container", lambda: container)
    assert node.kernel_defaults(options("agent", "--protect-kernel-defaults")) == []


def test_a_containers_foreign_kernel_is_told_once_and_not_changed(kernel, monkeypatch, capsys):
    kernel.set("vm/overcommit_memory", 0)
    written = []
    monkeypatch.setattr(host, "in_container", lambda: True)
    monkeypatch.setattr(host, "write", lambda path, text, mode: written.append((path, text)))
    assert node.kernel_defaults(options("agent")) == []
    before = node.kernel_defaults(options("agent", "--protect-kernel-defaults"))
    assert before[0] == "unshare"
    assert written == [(Path("/run/k3s/kernel/vm.overcommit_memory"), "1\n")]
    (line,) = capsys.readouterr().err.splitlines()
    assert "protect-kernel-defaults: not checked: vm.overcommit_memory." in line
    assert (kernel.root / "vm/overcommit_memory").read_text() == "0\n"


def test_a_machines_own_kernel_is_the_kubelets_to_refuse(kernel, monkeypatch, capsys):
    kernel.set("kernel/panic", 0)
    monkeypatch.setattr(host, "in_container", lambda: False)
    assert node.kernel_defaults(options("agent", "--protect-kernel-defaults")) == []
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_kubelet_alone_sees_other_values_and_its_mounts_reach_everybody(tmp_path):
    path = Path("/proc/sys/vm/swappiness")
    real = path.read_text()
    wanted = str(int(real) + 1)
    before = host.with_kernel_defaults(tmp_path, {"vm/swappiness": wanted})
    volume = tmp_path / "volume"
    volume.mkdir()
    kubelet = f"cat {path} && mount -t tmpfs volume {volume}"
    # As in a machine of the lab: all is shared, and this is its namespace, not the test's.
    machine = f'mount --make-rshared / && "$@" && cat {path} && mountpoint -q {volume}'
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation=private", "sh", "-ec", machine, "sh"),
            *(*before, "sh", "-ec", kubelet),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [wanted, real.strip()]
    assert path.read_text() == real


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
