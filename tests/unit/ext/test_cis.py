"""Every number of the benchmark that is judged: right on a sound machine, wrong on a broken one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from salt.exceptions import CommandExecutionError

from tests.conftest import ROOT, load_ext

TABLE = ROOT / "salt/states/k3s/files/cis.yaml"
ENTRIES = {each["id"]: each for each in yaml.safe_load(TABLE.read_text())["checks"]}
JUDGED = [number for number, each in ENTRIES.items() if "reason" not in each]
SERVER = "var/lib/rancher/k3s/server"
AGENT = "var/lib/rancher/k3s/agent"
SECRET = "d0n0tt3ll"

CIPHERS = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
# As K3s logs them (the guide's own examples, shortened), with etcd so that its checks are judged.
ARGUMENTS: dict[str, dict[str, str]] = {
    "kube-apiserver": {
        "admission-control-config-file": f"/{SERVER}/psa.yaml",
        "anonymous-auth": "false",
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "audit-log-path": f"/{SERVER}/logs/audit.log",
        "audit-policy-file": f"/{SERVER}/audit.yaml",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"/{SERVER}/tls/client-ca.crt",
        "enable-admission-plugins": (
            "NodeRestriction,EventRateLimit,DenyServiceExternalIPs,AlwaysPullImages"
        ),
        "encryption-provider-config": f"/{SERVER}/cred/encryption-config.json",
        "etcd-cafile": f"/{SERVER}/tls/etcd/server-ca.crt",
        "etcd-certfile": f"/{SERVER}/tls/etcd/client.crt",
        "etcd-keyfile": f"/{SERVER}/tls/etcd/client.key",
        "etcd-servers": "https://127.0.0.1:2379",
        "kubelet-certificate-authority": f"/{SERVER}/tls/server-ca.crt",
        "kubelet-client-certificate": f"/{SERVER}/tls/client-kube-apiserver.crt",
        "kubelet-client-key": f"/{SERVER}/tls/client-kube-apiserver.key",
        "profiling": "false",
        "service-account-extend-token-expiration": "false",
        "service-account-key-file": f"/{SERVER}/tls/service.key",
        "tls-cert-file": f"/{SERVER}/tls/serving-kube-apiserver.crt",
        "tls-cipher-suites": CIPHERS,
        "tls-private-key-file": f"/{SERVER}/tls/serving-kube-apiserver.key",
    },
    "kube-controller-manager": {
        "bind-address": "127.0.0.1",
        "controllers": "*,tokencleaner,-service",
        "kubeconfig": f"/{SERVER}/cred/controller.kubeconfig",
        "profiling": "false",
        "root-ca-file": f"/{SERVER}/tls/server-ca.crt",
        "service-account-private-key-file": f"/{SERVER}/tls/service.current.key",
        "terminated-pod-gc-threshold": "100",
        "use-service-account-credentials": "true",
    },
    "kube-scheduler": {
        "bind-address": "127.0.0.1",
        "kubeconfig": f"/{SERVER}/cred/scheduler.kubeconfig",
        "profiling": "false",
    },
    "kubelet": {
        "config-dir": f"/{AGENT}/etc/kubelet.conf.d",
        "event-qps": "0",
        "kubeconfig": f"/{AGENT}/kubelet.kubeconfig",
        "make-iptables-util-chains": "true",
        "node-labels": "f1.vote/role=server",
        "pod-max-pids": "4096",
        "read-only-port": "0",
        "seccomp-default": "true",
        "streaming-connection-idle-timeout": "5m",
        "tls-cipher-suites": CIPHERS,
    },
    "kube-proxy": {"kubeconfig": f"/{AGENT}/kubeproxy.kubeconfig", "proxy-mode": "iptables"},
}
KUBELET = {
    "authentication": {
        "anonymous": {"enabled": False},
        "x509": {"clientCAFile": f"/{AGENT}/client-ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "tlsCertFile": f"/{AGENT}/serving-kubelet.crt",
    "tlsPrivateKeyFile": f"/{AGENT}/serving-kubelet.key",
}
ENCRYPTION = {
    "resources": [
        {
            "resources": ["secrets"],
            "providers": [
                {"aescbc": {"keys": [{"name": "k", "secret": SECRET}]}},
                {"identity": {}},
            ],
        }
    ]
}
FILES = {
    "var/lib/cni/networks/cbr0/10.42.0.2": "",
    "var/lib/cni/networks/cbr0/lock": "",
    "etc/rancher/k3s/k3s.yaml": SECRET,
    f"{SERVER}/cred/admin.kubeconfig": SECRET,
    f"{SERVER}/cred/scheduler.kubeconfig": SECRET,
    f"{SERVER}/cred/controller.kubeconfig": SECRET,
    f"{SERVER}/cred/encryption-config.json": json.dumps(ENCRYPTION),
    f"{SERVER}/db/state.db": "",
    f"{SERVER}/tls/server-ca.crt": "",
    f"{SERVER}/tls/server-ca.key": SECRET,
    f"{AGENT}/kubelet.kubeconfig": SECRET,
    f"{AGENT}/kubeproxy.kubeconfig": SECRET,
    f"{AGENT}/client-ca.crt": "",
}


def binding(name: str, role: str, kind: str, subject: str, space: str = "") -> dict[str, Any]:
    who = {"kind": kind, "name": subject, **({"namespace": space} if space else {})}
    return {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [who],
    }


def role(name: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    rules = [{"apiGroups": [""], "resources": resources, "verbs": verbs}]
    return {"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}


def account(space: str, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "metadata": {"namespace": space, "name": name}, **more}


def pod(space: str, name: str, as_: str = "default", **spec: Any) -> dict[str, Any]:
    container = {
        "name": name,
        "image": f"registry.example.org/{name}@sha256:{'a' * 64}",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "kind": "Pod",
        "metadata": {"namespace": space, "name": name},
        "spec": {
            "serviceAccountName": as_,
            "securityContext": security,
            "containers": [container],
            **spec,
        },
    }


OBJECTS: list[dict[str, Any]] = [
    *(
        {"kind": "Namespace", "metadata": {"name": name}}
        for name in ("default", "kube-system", "kube-public", "kube-node-lease", "f1", "ingress")
    ),
    *(
        account(space, "default", automountServiceAccountToken=False)
        for space in ("default", "kube-system", "f1", "ingress")
    ),
    account("kube-system", "coredns"),
    account("ingress", "traefik", automountServiceAccountToken=False),
    pod("f1", "vote"),
    pod("f1", "redis", automountServiceAccountToken=False),
    pod("ingress", "traefik", "traefik", automountServiceAccountToken=True),
    pod("kube-system", "coredns", "coredns", securityContext={}),
    {"kind": "Service", "metadata": {"namespace": "default", "name": "kubernetes"}},
    {"kind": "NetworkPolicy", "metadata": {"namespace": "f1", "name": "all"}},
    {"kind": "NetworkPolicy", "metadata": {"namespace": "ingress", "name": "all"}},
    role("cluster-admin", ["*"], ["*"]),
    role("system:kubelet-api-admin", ["nodes/proxy"], ["*"]),
    role("system:node", ["secrets", "serviceaccounts/token"], ["get", "create"]),
    role("f1-traefik", ["nodes"], ["get", "list", "watch"]),
    role("wrong", ["nodes/proxy"], ["get"]),
    {"kind": "Role", "metadata": {"namespace": "f1", "name": "empty"}},
    binding("cluster-admin", "cluster-admin", "Group", "system:masters"),
    binding("kube-apiserver", "system:kubelet-api-admin", "User", "kube-apiserver"),
    binding("system:node", "system:node", "Group", "system:nodes"),
    binding("f1-traefik", "f1-traefik", "ServiceAccount", "traefik", "ingress"),
]


class Machine:
    """A machine on the disk: change what you like of it, then ask for a check."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.arguments = copy.deepcopy(ARGUMENTS)
        self.kubelet: dict[str, Any] = copy.deepcopy(KUBELET)
        self.objects = copy.deepcopy(OBJECTS)
        self.owners: dict[str, str] = {}
        self.config: dict[str, Any] = {"node-name": "f1-master"}
        self.psa = yaml.safe_load((TABLE.parent / "psa.yaml").read_text())
        self.policy = yaml.safe_load((TABLE.parent / "audit.yaml").read_text())
        self.journal = ""
        for name, text in FILES.items():
            self.write(name, text)
        self.write("etc/systemd/system/k3s.service", "")
        for path in ("db", "cred"):
            (root / SERVER / path).chmod(0o700)
        self.cis = load_ext("modules/cis.py")
        monkeypatch.setattr(self.cis, "ROOT", root)
        monkeypatch.setattr(self.cis, "_owner_of", self._owner)
        self.cis.__dict__["__salt__"] = {
            "cp.get_file_str": lambda _: TABLE.read_text(),
            "kubectl.run": lambda *_: json.dumps({"items": self.objects}),
        }

    def _owner(self, path: Path) -> str:
        return self.owners.get(str(path.relative_to(self.root)), "root:root")

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self) -> None:
        """Write down what runs on it now."""
        for number, (component, given) in enumerate(self.arguments.items()):
            words = [f"/usr/bin/{component}", *(f"--{key}={value}" for key, value in given.items())]
            self.write(f"proc/{100 + number}/cmdline", "\0".join([*words, ""]))
        self.write(f"{AGENT}/etc/kubelet.conf.d/00-k3s-defaults.conf", json.dumps(self.kubelet))
        self.write("etc/rancher/k3s/config.yaml", yaml.safe_dump(self.config))
        self.write(f"{SERVER}/psa.yaml", yaml.safe_dump(self.psa))
        self.write(f"{SERVER}/audit.yaml", yaml.safe_dump(self.policy))

    def check(self, *numbers: str) -> dict[str, dict[str, str]]:
        self.run()
        return {each["id"]: each for each in self.cis.check(list(numbers) or None)}

    def one(self, kind: str, name: str) -> dict[str, Any]:
        return next(o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))

    @property
    def vote(self) -> dict[str, Any]:
        return dict(self.one("Pod", "vote")["spec"])

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.one("Pod", "vote")["spec"]["containers"][0]
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


Break = Callable[[Machine], Any]


def chmod(name: str, mode: int) -> Break:
    return lambda m: (m.root / name).chmod(mode)


def owner(name: str) -> Break:
    return lambda m: m.owners.update({name: "nobody:nogroup"})


def arg(component: str, **given: str | None) -> Break:
    """Give a component other arguments; None takes one away."""

    def broken(m: Machine) -> None:
        for name, value in given.items():
            key = name.replace("_", "-")
            m.arguments[component].pop(key, None)
            if value is not None:
                m.arguments[component][key] = value

    return broken


def api(**given: str | None) -> Break:
    return arg("kube-apiserver", **given)


def plugins(name: str) -> Break:
    return lambda m: m.arguments["kube-apiserver"].update({"enable-admission-plugins": name})


def add(*objects: dict[str, Any]) -> Break:
    return lambda m: m.objects.extend(objects)


def grant(verb: str, resource: str, kind: str = "User", name: str = "eve") -> Break:
    return add(role("theirs", [resource], [verb]), binding("theirs", "theirs", kind, name))


def spec(**given: Any) -> Break:
    return lambda m: m.one("Pod", "vote")["spec"].update(given)


def security(**given: Any) -> Break:
    return lambda m: m.container["securityContext"].update(given)


def container(**given: Any) -> Break:
    return lambda m: m.container.update(given)


def kubelet_file(**given: Any) -> Break:
    return lambda m: m.kubelet.update(given)


def etcd(m: Machine) -> None:
    m.write(f"{SERVER}/db/etcd/config", "")


BROKEN: dict[str, Break] = {
    "1.1.9": chmod("var/lib/cni/networks/cbr0/10.42.0.2", 0o644),
    "1.1.10": owner("var/lib/cni/networks/cbr0/10.42.0.2"),
    "1.1.11": chmod(f"{SERVER}/db", 0o755),
    "1.1.13": chmod("etc/rancher/k3s/k3s.yaml", 0o644),
    "1.1.14": owner(f"{SERVER}/cred/admin.kubeconfig"),
    "1.1.15": chmod(f"{SERVER}/cred/scheduler.kubeconfig", 0o640),
    "1.1.16": owner(f"{SERVER}/cred/scheduler.kubeconfig"),
    "1.1.17": lambda m: (m.root / SERVER / "cred/controller.kubeconfig").unlink(),
    "1.1.18": owner(f"{SERVER}/cred/controller.kubeconfig"),
    "1.1.19": owner(f"{SERVER}/tls/server-ca.key"),
    "1.1.20": chmod(f"{SERVER}/tls/server-ca.crt", 0o664),
    "1.1.21": chmod(f"{SERVER}/tls/server-ca.key", 0o644),
    "1.2.1": api(anonymous_auth=None),
    "1.2.2": api(token_auth_file="/tokens.csv"),
    "1.2.3": plugins("NodeRestriction"),
    "1.2.4": api(kubelet_client_key=None),
    "1.2.5": api(kubelet_certificate_authority=None),
    "1.2.6": api(authorization_mode="AlwaysAllow"),
    "1.2.7": api(authorization_mode="RBAC"),
    "1.2.8": api(authorization_mode="Node"),
    "1.2.9": plugins("NodeRestriction"),
    "1.2.10": plugins("NodeRestriction,AlwaysAdmit"),
    "1.2.11": plugins("NodeRestriction"),
    "1.2.12": api(disable_admission_plugins="ServiceAccount"),
    "1.2.13": api(disable_admission_plugins="Priority,NamespaceLifecycle"),
    "1.2.14": plugins("EventRateLimit"),
    "1.2.15": api(profiling=None),
    "1.2.16": api(audit_log_path=None),
    "1.2.17": api(audit_log_maxage="29"),
    "1.2.18": api(audit_log_maxbackup="9"),
    "1.2.19": api(audit_log_maxsize="many"),
    "1.2.20": api(request_timeout="0s"),
    "1.2.21": api(service_account_lookup="false"),
    "1.2.22": api(service_account_key_file=""),
    "1.2.23": api(etcd_keyfile=None),
    "1.2.24": api(tls_cert_file=None),
    "1.2.25": api(client_ca_file=None),
    "1.2.26": api(etcd_cafile=None),
    "1.2.27": api(encryption_provider_config=None),
    "1.2.28": lambda m: m.write(
        f"{SERVER}/cred/encryption-config.json",
        json.dumps({"resources": [{"resources": ["secrets"], "providers": [{"identity": {}}]}]}),
    ),
    "1.2.29": api(tls_cipher_suites=f"{CIPHERS},TLS_RSA_WITH_AES_128_CBC_SHA"),
    "1.2.30": api(service_account_extend_token_expiration=None),
    "1.3.1": arg("kube-controller-manager", terminated_pod_gc_threshold=None),
    "1.3.2": arg("kube-controller-manager", profiling="true"),
    "1.3.3": arg("kube-controller-manager", use_service_account_credentials="false"),
    "1.3.4": arg("kube-controller-manager", service_account_private_key_file=None),
    "1.3.5": arg("kube-controller-manager", root_ca_file=None),
    "1.3.6": arg("kube-controller-manager", feature_gates="RotateKubeletServerCertificate=false"),
    "1.3.7": arg("kube-controller-manager", bind_address="0.0.0.0"),
    "1.4.1": arg("kube-scheduler", profiling=None),
    "1.4.2": arg("kube-scheduler", bind_address="10.20.1.10"),
    **{f"2.{number}": etcd for number in range(1, 8)},
    "3.2.1": api(audit_policy_file=None),
    "3.2.2": lambda m: m.policy["rules"].insert(-1, m.policy["rules"].pop()),
    "4.1.3": chmod(f"{AGENT}/kubeproxy.kubeconfig", 0o644),
    "4.1.4": owner(f"{AGENT}/kubeproxy.kubeconfig"),
    "4.1.5": arg("kubelet", kubeconfig=None),
    "4.1.6": owner(f"{AGENT}/kubelet.kubeconfig"),
    "4.1.7": chmod(f"{AGENT}/client-ca.crt", 0o666),
    "4.1.8": owner(f"{AGENT}/client-ca.crt"),
    "4.1.11": lambda m: m.write(f"{AGENT}/etc/kubelet.conf.d/99.conf", "{}", 0o644),
    "4.2.1": arg("kubelet", anonymous_auth="true"),
    "4.2.2": kubelet_file(authorization={"mode": "AlwaysAllow"}),
    "4.2.3": kubelet_file(authentication={}),
    "4.2.4": arg("kubelet", read_only_port=None),
    "4.2.5": arg("kubelet", streaming_connection_idle_timeout="0"),
    "4.2.6": arg("kubelet", make_iptables_util_chains="false"),
    "4.2.8": arg("kubelet", event_qps="-1"),
    "4.2.9": kubelet_file(tlsPrivateKeyFile=None),
    "4.2.10": kubelet_file(rotateCertificates=False),
    "4.2.11": kubelet_file(featureGates={"RotateKubeletServerCertificate": False}),
    "4.2.12": arg("kubelet", tls_cipher_suites=None),
    "4.2.13": arg("kubelet", pod_max_pids="-1"),
    "4.2.14": arg("kubelet", seccomp_default="false"),
    "4.3.1": arg("kube-proxy", metrics_bind_address="0.0.0.0:10249"),
    "5.1.1": add(binding("ci", "cluster-admin", "ServiceAccount", "ci", "f1")),
    "5.1.2": grant("list", "secrets", "Group", "system:authenticated"),
    "5.1.3": add(role("mine", ["*"], ["get"])),
    "5.1.4": grant("create", "pods", "Group", "system:serviceaccounts"),
    "5.1.5": add(account("shop", "default")),
    "5.1.6": add(account("f1", "ci"), pod("f1", "ci", "ci")),
    "5.1.7": add(binding("more", "f1-traefik", "Group", "system:masters")),
    "5.1.8": grant("escalate", "clusterroles"),
    "5.1.9": grant("create", "persistentvolumes"),
    "5.1.10": add(binding("w", "wrong", "ServiceAccount", "vote", "f1")),
    "5.1.11": grant("update", "certificatesigningrequests/approval"),
    "5.1.12": grant("*", "mutatingwebhookconfigurations"),
    "5.1.13": grant("create", "*"),
    "5.1.14": grant("get", "nodes/proxy"),
    "5.2.1": lambda m: m.psa["plugins"][0]["configuration"]["defaults"].update(enforce="baseline"),
    "5.2.2": security(privileged=True),
    "5.2.3": spec(hostPID=True),
    "5.2.4": spec(hostIPC=True),
    "5.2.5": spec(hostNetwork=True),
    "5.2.6": security(allowPrivilegeEscalation=None),
    "5.2.7": spec(securityContext={}),
    "5.2.8": security(capabilities={}),
    "5.2.9": security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    "5.2.10": security(windowsOptions={"hostProcess": True}),
    "5.2.11": spec(volumes=[{"name": "x", "hostPath": {"path": "/"}}]),
    "5.2.12": container(ports=[{"containerPort": 1, "hostPort": 1}]),
    "5.2.13": security(procMount="Unmasked"),
    "5.3.1": lambda m: m.config.update({"disable-network-policy": True}),
    "5.3.2": lambda m: m.objects.remove(m.one("NetworkPolicy", "all")),
    "5.4.1": container(env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
    "5.5.1": container(image="registry.example.org/vote:latest"),
    "5.6.1": lambda m: m.objects.remove(m.one("Namespace", "ingress")),
    "5.6.2": spec(securityContext={"runAsNonRoot": True}),
    "5.6.3": security(readOnlyRootFilesystem=False),
    "5.6.4": add(pod("default", "lost")),
}


def test_every_judged_number_can_be_broken() -> None:
    assert len(ENTRIES) == 134
    assert list(BROKEN) == JUDGED
    assert len(BROKEN) == 116


def test_a_sound_server_passes_every_check(machine: Machine) -> None:
    found = machine.check()
    assert list(found) == list(ENTRIES)
    status = {number: each["status"] for number, each in found.items()}
    not_applicable = {number for number in JUDGED if status.pop(number) != "pass"}
    # There is no etcd; all else is judged.
    assert not_applicable == {f"2.{number}" for number in range(1, 8)}, [
        found[number] for number in not_applicable
    ]
    assert set(status.values()) == {"n/a"}


@pytest.mark.parametrize("number", JUDGED)
def test_a_broken_machine_fails(number: str, machine: Machine) -> None:
    BROKEN[number](machine)
    found = machine.check(number)[number]
    accepted = ENTRIES[number].get("accepted")
    assert found["status"] == ("accepted" if accepted else "fail"), found
    assert found["evidence"]
    if accepted:
        assert found["evidence"].endswith(accepted)


def test_no_evidence_holds_a_secret(machine: Machine) -> None:
    assert SECRET not in json.dumps(machine.check())


def test_sqlite_needs_no_certificates_of_etcd(machine: Machine) -> None:
    machine.arguments["kube-apiserver"]["etcd-servers"] = "unix://kine.sock"
    for number in ("1.2.23", "1.2.26"):
        assert machine.check(number)[number]["status"] == "n/a"


@pytest.mark.parametrize(
    ("anonymous", "status"),
    [
        ({"enabled": False}, "pass"),
        ({"enabled": True, "conditions": [{"path": "/livez"}]}, "pass"),
        ({"enabled": True}, "fail"),
    ],
)
def test_a_file_may_restrict_anonymous_requests(
    anonymous: dict[str, Any], status: str, machine: Machine
) -> None:
    machine.write(f"{SERVER}/auth.yaml", yaml.safe_dump({"anonymous": anonymous}))
    api(anonymous_auth=None, authentication_config=f"/{SERVER}/auth.yaml")(machine)
    assert machine.check("1.2.1")["1.2.1"]["status"] == status


def test_an_agent_is_asked_what_concerns_nodes(machine: Machine) -> None:
    (machine.root / "etc/systemd/system/k3s.service").unlink()
    with pytest.raises(CommandExecutionError, match="no K3s on this machine"):
        machine.check()
    machine.write("etc/systemd/system/k3s-agent.service", "")
    for component in ("kube-apiserver", "kube-scheduler", "kube-controller-manager"):
        del machine.arguments[component]
    found = machine.check()
    assert set(found) == {number for number, each in ENTRIES.items() if each.get("on") == "node"}
    assert len(found) == 23
    assert {each["status"] for each in found.values()} == {"pass"}


def test_what_runs_inside_k3s_is_read_from_its_journal(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f'time="2026-05-26T22:08:48Z" level=info msg="Running {component} '
        + " ".join(f"--{key}={value}" for key, value in given.items())
        + '"'
        for component, given in machine.arguments.items()
    ]
    machine.write("log", "\n".join([*lines, ""]))
    # journalctl -q --no-pager -o cat -n 1 --grep PATTERN …
    script = f'#!/bin/sh\nwhile [ "$1" != --grep ]; do shift; done\ngrep -e "$2" {tmp_path}/log\n'
    machine.write("bin/journalctl", script, 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    machine.run()
    for number in range(len(machine.arguments)):
        (tmp_path / f"proc/{100 + number}/cmdline").unlink()
    found = {each["id"]: each["status"] for each in machine.cis.check()}
    assert {found[number] for number in JUDGED} == {"pass", "n/a"}
    assert found["1.2.29"] == found["4.2.12"] == found["1.3.7"] == "pass"


def test_what_cannot_be_looked_at_fails_with_the_cause(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.write("bin/journalctl", "#!/bin/sh\nexit 1\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    del machine.arguments["kube-scheduler"]
    found = machine.check("1.4.1")["1.4.1"]
    assert found["status"] == "fail"
    assert "kube-scheduler neither runs as a process nor" in found["evidence"]


def test_no_table_is_no_audit(machine: Machine) -> None:
    machine.cis.__dict__["__salt__"]["cp.get_file_str"] = lambda _: False
    with pytest.raises(CommandExecutionError, match=r"salt://k3s/files/cis\.yaml cannot be had"):
        machine.check()
