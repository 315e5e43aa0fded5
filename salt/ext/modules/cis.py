"""
The CIS Kubernetes Benchmark on this machine: what files, processes and objects are, not what they
were told to be.

The table, by the numbers of K3s's self-assessment guide, is ``salt/states/k3s/files/cis.yaml``.
Each of its entries says with one key what is looked at:

- ``mode``, ``owner``: files, by path (with ``*``), or the one that an argument names;
- ``argument``, ``kubelet``, ``config``: a component's argument, a setting of the kubelet, a key of
  K3s's own configuration; each against one of `TESTS`;
- ``rule``: one of `RULES`, with what it needs.

A component's arguments are those of its process (``/proc``) or, where K3s runs it inside its own,
those that K3s logged when it started it. Evidence holds the one value that was asked for, never a
file's content.
"""

import grp
import json
import pwd
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from salt.exceptions import CommandExecutionError

Check = dict[str, Any]
Object = dict[str, Any]
# What was found: right or wrong (None: it does not apply here), and the evidence.
Verdict = tuple[bool | None, str]

__salt__: dict[str, Any]

ROOT = Path("/")
TABLE = "salt://k3s/files/cis.yaml"
SECONDS = 30
_EVIDENCE = 300
_KINDS = (
    "pods,serviceaccounts,services,namespaces,networkpolicies,"
    "roles,rolebindings,clusterroles,clusterrolebindings"
)
_EVERYONE = ("system:authenticated", "system:unauthenticated", "system:serviceaccounts")


def check(numbers: list[str] | None = None) -> list[dict[str, str]]:
    """
    Run the checks of this machine's role (of these ``numbers`` only, if given).

    Returns ``[{"id", "title", "status", "evidence"}]`` in the table's order; ``status`` is
    ``pass``, ``fail``, ``accepted`` (a failure that the table bears, with its reason) or ``n/a``.
    Raises CommandExecutionError if there is no K3s here, or no table.

    CLI Example:

    .. code-block:: bash

        salt f1-master cis.check
        salt f1-worker-1 cis.check '["4.2.4"]'
    """
    machine = _Machine()
    text = __salt__["cp.get_file_str"](TABLE)
    if not text:
        raise CommandExecutionError(f"{TABLE} cannot be had from the master's files")
    return [
        {"id": each["id"], "title": each["title"], **machine.judge(each)}
        for each in yaml.safe_load(text)["checks"]
        if (numbers is None or each["id"] in numbers)
        and (each.get("on", "server") == "node" or machine.role == "server")
    ]


class _Machine:
    """What is asked of this machine more than once in a run."""

    def __init__(self) -> None:
        units = ROOT / "etc/systemd/system"
        if (units / "k3s.service").exists():
            self.role = "server"
        elif (units / "k3s-agent.service").exists():
            self.role = "agent"
        else:
            raise CommandExecutionError("there is no K3s on this machine")
        self._arguments: dict[str, dict[str, str]] = {}
        self._objects: dict[str, list[Object]] | None = None

    def judge(self, entry: Check) -> dict[str, str]:
        """Return status and evidence of one entry of the table."""
        if "reason" in entry:
            return {"status": "n/a", "evidence": entry["reason"]}
        (how,) = (key for key in _HOW if key in entry)
        try:
            right, evidence = _HOW[how](self, entry[how])
        except (CommandExecutionError, OSError, ValueError, yaml.YAMLError) as error:
            right, evidence = False, f"could not be looked at: {error}"
        evidence = evidence if len(evidence) <= _EVIDENCE else f"{evidence[:_EVIDENCE]}…"
        if right is False and "accepted" in entry:
            return {"status": "accepted", "evidence": f"{evidence}; {entry['accepted']}"}
        return {"status": {True: "pass", False: "fail", None: "n/a"}[right], "evidence": evidence}

    def arguments(self, component: str) -> dict[str, str]:
        """Return the arguments with which ``component`` runs, by name, without dashes."""
        if component not in self._arguments:
            found = _of_process(component) or _of_journal(component)
            if not found:
                raise CommandExecutionError(
                    f"{component} neither runs as a process nor is its start in K3s's journal "
                    "(a restart of K3s writes it there)"
                )
            self._arguments[component] = found
        return self._arguments[component]

    def kubelet(self, flag: str, field: str) -> tuple[str | None, str]:
        """Return a setting of the kubelet and where it is from: an argument wins over files."""
        given = self.arguments("kubelet")
        if flag in given:
            return given[flag], f"--{flag}"
        value: Any = None
        for path in self._kubelet_files():
            here: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            for key in field.split("."):
                here = here.get(key) if isinstance(here, dict) else None
            value = value if here is None else here
        return _text(value), field

    def _kubelet_files(self) -> list[Path]:
        """Return the kubelet's configuration files, a later one wins (kubelet(1) --config-dir)."""
        given = self.arguments("kubelet")
        files = [_at(given["config"])] if "config" in given else []
        if "config-dir" in given:
            files += sorted(_at(given["config-dir"]).glob("*.conf"))
        return files

    def files(self, spec: Check) -> list[Path]:
        """Return the files that ``mode`` or ``owner`` looks at."""
        paths = list(spec.get("files", []))
        if "argument" in spec:
            component, name = spec["argument"]
            value = self.arguments(component).get(name)
            paths += [value] if value else []
        if "kubelet" in spec:
            value, _ = self.kubelet(*spec["kubelet"])
            paths += [value] if value else []
        if "inside" in spec:
            paths = [f"{path}/{spec['inside']}" for path in paths]
        found = [each for path in paths for each in sorted(ROOT.glob(path.lstrip("/")))]
        return [path for path in found if path.name not in spec.get("except", [])]

    def yaml_of(self, argument: str) -> Any:
        """Return the content of the file that this argument of the API server names."""
        path = self.arguments("kube-apiserver").get(argument)
        if not path:
            raise CommandExecutionError(f"--{argument} is not set")
        return yaml.safe_load(_at(path).read_text(encoding="utf-8"))

    def objects(self, kind: str) -> list[Object]:
        """Return the cluster's objects of a kind; all kinds are fetched at once."""
        if self._objects is None:
            said = json.loads(__salt__["kubectl.run"]("get", _KINDS, "-A", "-o", "json"))
            self._objects = {}
            for one in said["items"]:
                self._objects.setdefault(one["kind"], []).append(one)
        return self._objects.get(kind, [])


def _at(path: str) -> Path:
    return ROOT / path.lstrip("/")


def _text(value: Any) -> str | None:
    """Return a value as it would stand on a command line."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _parsed(words: list[str]) -> dict[str, str]:
    """Return ``--name=value`` words by name; the last of a name wins, as with Kubernetes."""
    found = {}
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else "true"
    return found


def _of_process(component: str) -> dict[str, str]:
    for path in sorted(ROOT.glob("proc/[0-9]*/cmdline")):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if Path(words[0]).name == component:
            return _parsed(words[1:])
    return {}


def _of_journal(component: str) -> dict[str, str]:
    line = f"Running {component} "
    argv = ["journalctl", "-q", "--no-pager", "-o", "cat", "-n", "1", "--grep", line]
    argv += ["-u", "k3s.service", "-u", "k3s-agent.service"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandExecutionError(f"journalctl: {error}") from None
    # level=info msg="Running kubelet --a=b --c=d"
    return _parsed(done.stdout.partition(line)[2].strip().removesuffix('"').split())


# What a value is held against: (value as text, what the table says) → right or wrong.
def _items(value: str) -> list[str]:
    return [each for each in value.split(",") if each]


TESTS: dict[str, Callable[[str, Any], bool]] = {
    "set": lambda value, _: bool(value),
    "is": lambda value, wanted: value == wanted,
    "is_not": lambda value, refused: value not in refused,
    "has": lambda value, wanted: wanted in _items(value),
    "has_not": lambda value, refused: (
        not set(_items(value)) & set([refused] if isinstance(refused, str) else refused)
    ),
    "at_least": lambda value, least: int(value) >= least,
    "only": lambda value, allowed: bool(value) and set(_items(value)) <= set(allowed),
}


def _held(value: str | None, what: str, spec: Check) -> Verdict:
    """Hold one value against the test that ``spec`` names."""
    if value is None:
        return spec.get("unset") == "pass", f"{what} is not set"
    tests = [(TESTS[key], spec[key]) for key in TESTS if key in spec]
    return bool(tests) and all(test(value, wanted) for test, wanted in tests), f"{what}={value}"


def _all(verdicts: list[Verdict]) -> Verdict:
    return all(right for right, _ in verdicts), ", ".join(evidence for _, evidence in verdicts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _argument(machine: _Machine, spec: Check) -> Verdict:
    given = machine.arguments(spec["of"])
    return _all([_held(given.get(name), f"--{name}", spec) for name in _list(spec["name"])])


def _kubelet(machine: _Machine, spec: Check) -> Verdict:
    pairs = zip(_list(spec["flag"]), _list(spec["field"]), strict=True)
    return _all([_held(*machine.kubelet(flag, field), spec) for flag, field in pairs])


def _config(machine: _Machine, spec: Check) -> Verdict:
    config = yaml.safe_load(_at("/etc/rancher/k3s/config.yaml").read_text(encoding="utf-8")) or {}
    return _held(_text(config.get(spec["key"])), spec["key"], spec)


def _none(spec: Check) -> Verdict:
    what = spec.get("files") or spec.get("argument") or spec["kubelet"]
    said = f"there is no {' '.join(what)}"
    return (None if spec.get("optional") else False), said


def _mode(machine: _Machine, spec: Check) -> Verdict:
    files = machine.files(spec)
    if not files:
        return _none(spec)
    most = int(spec["most"], 8)
    modes = {path: path.stat().st_mode & 0o7777 for path in files}
    wide = {path: mode for path, mode in modes.items() if mode & ~most}
    shown = wide or modes
    return not wide, _told({f"{path} {mode:o}" for path, mode in shown.items()})


def _owner(machine: _Machine, spec: Check) -> Verdict:
    files = machine.files(spec)
    if not files:
        return _none(spec)
    owners = {path: _owner_of(path) for path in files}
    other = {path: owner for path, owner in owners.items() if owner != "root:root"}
    return not other, _told({f"{path} {owner}" for path, owner in (other or owners).items()})


def _owner_of(path: Path) -> str:
    stat = path.stat()
    try:
        return f"{pwd.getpwuid(stat.st_uid).pw_name}:{grp.getgrgid(stat.st_gid).gr_name}"
    except KeyError:
        return f"{stat.st_uid}:{stat.st_gid}"


def _told(found: set[str], most: int = 3) -> str:
    shown = sorted(found)[:most]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _faults(found: set[str], right: str) -> Verdict:
    return not found, _told(found) or right


# The rules that take more than one value.


def _rule(machine: _Machine, spec: Check) -> Verdict:
    return RULES[spec["name"]](machine, spec)


def _anonymous(machine: _Machine, spec: Check) -> Verdict:
    """Nobody without a name, or only for the paths that a file names (KEP-4633)."""
    given = machine.arguments("kube-apiserver")
    if "authentication-config" not in given:
        value = given.get("anonymous-auth")
        return value == "false", f"--anonymous-auth={value or '(unset: true)'}"
    said = machine.yaml_of("authentication-config").get("anonymous") or {}
    paths = [each.get("path") for each in said.get("conditions") or []]
    if said.get("enabled") is False:
        return True, "anonymous.enabled=false"
    return bool(paths), f"anonymous for {', '.join(map(str, paths)) or 'every path'}"


def _etcd_tls(machine: _Machine, spec: Check) -> Verdict:
    given = machine.arguments("kube-apiserver")
    servers = given.get("etcd-servers", "")
    if not servers.startswith("https://"):
        return None, f"no etcd: the datastore answers on this machine alone, at {servers}"
    return _all([_held(given.get(name), f"--{name}", {"set": True}) for name in spec["arguments"]])


def _no_etcd(machine: _Machine, spec: Check) -> Verdict:
    if (ROOT / "var/lib/rancher/k3s/server/db/etcd").exists():
        return False, "there is an etcd, and this table knows only of SQLite"
    return None, "no etcd: the datastore is SQLite"


def _encryption(machine: _Machine, spec: Check) -> Verdict:
    """What writes Secrets is the first provider; only its name is told."""
    entries = machine.yaml_of("encryption-provider-config")["resources"]
    (first, *_) = [each["providers"][0] for each in entries if "secrets" in each["resources"]]
    (name, *_) = first
    return name in spec["providers"], f"Secrets are written with {name}"


def _audit_policy(machine: _Machine, spec: Check) -> Verdict:
    rules = machine.yaml_of("audit-policy-file")["rules"]
    kept = {
        name
        for rule in rules
        if rule["level"] != "None" and not rule.get("verbs")
        for each in rule.get("resources", [])
        for name in each.get("resources", [])
    }
    lacking = set(spec.get("resources", [])) - kept
    last = rules[-1]
    rest = last["level"] != "None" and not {*last} - {"level", "omitStages"}
    if spec.get("rest") and not rest:
        lacking.add("everything else")
    if not any(rule["level"] != "None" for rule in rules):
        lacking.add("anything")
    return _faults({f"{name} is not logged" for name in lacking}, f"{len(rules)} rules")


def _bindings(machine: _Machine) -> Iterator[tuple[Object, Object]]:
    """Yield each binding with each of its subjects."""
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in machine.objects(kind):
            for subject in binding.get("subjects") or []:
                yield binding, subject


def _rules_of(machine: _Machine, binding: Object) -> list[Object]:
    ref = binding["roleRef"]
    space = binding["metadata"].get("namespace")
    for role in machine.objects(ref["kind"]):
        meta = role["metadata"]
        same = ref["kind"] == "ClusterRole" or meta["namespace"] == space
        if meta["name"] == ref["name"] and same:
            return role.get("rules") or []
    return []


def _grants(rules: list[Object], verbs: list[str], resources: list[str]) -> bool:
    """Say whether one of ``rules`` allows one of ``verbs`` on one of ``resources`` ('' = any)."""
    for rule in rules:
        named = set(rule.get("resources") or [])
        hit = ("" in resources and named) or "*" in named or named & set(resources)
        if hit and {"*", *verbs} & set(rule["verbs"]):
            return True
    return False


def _name(subject: Object) -> str:
    space = f"{subject['namespace']}/" if subject.get("namespace") else ""
    return f"{subject['kind']} {space}{subject['name']}"


def _access(machine: _Machine, spec: Check) -> Verdict:
    """``everyone``: groups that hold all; ``others``: who is not a part of Kubernetes or K3s."""
    found = set()
    for binding, subject in _bindings(machine):
        name = subject["name"]
        if spec["to"] == "everyone":
            asked = subject["kind"] == "Group" and name in _EVERYONE
        elif subject["kind"] == "ServiceAccount":
            asked = subject.get("namespace") != "kube-system"
        else:
            asked = name in _EVERYONE or not name.startswith("system:")
        if not asked or _name(subject) in spec.get("except", []):
            continue
        if _grants(_rules_of(machine, binding), spec["verbs"], spec["resources"]):
            found.add(f"{_name(subject)} by {binding['metadata']['name']}")
    return _faults(found, "nobody")


def _bound(machine: _Machine, spec: Check, hit: Callable[[Object, Object], bool]) -> Verdict:
    names = {each["metadata"]["name"] for each, subject in _bindings(machine) if hit(each, subject)}
    other = names - set(spec["bindings"])
    return _faults({f"bound by {name}" for name in other}, _told(names) or "nobody")


def _cluster_admin(machine: _Machine, spec: Check) -> Verdict:
    return _bound(machine, spec, lambda binding, _: binding["roleRef"]["name"] == "cluster-admin")


def _masters(machine: _Machine, spec: Check) -> Verdict:
    return _bound(machine, spec, lambda _, subject: subject["name"] == "system:masters")


def _wildcards(machine: _Machine, spec: Check) -> Verdict:
    roles = [*machine.objects("Role"), *machine.objects("ClusterRole")]
    wild = {
        role["metadata"]["name"]
        for role in roles
        for rule in role.get("rules") or []
        if any("*" in (rule.get(key) or []) for key in ("apiGroups", "resources", "verbs"))
    }
    return _faults(wild - set(spec["roles"]), f"{len(roles)} roles, none but Kubernetes' own")


def _default_accounts(machine: _Machine, spec: Check) -> Verdict:
    accounts = [
        one for one in machine.objects("ServiceAccount") if one["metadata"]["name"] == "default"
    ]
    giving = {
        one["metadata"]["namespace"]
        for one in accounts
        if one.get("automountServiceAccountToken") is not False
    }
    return _faults({f"{space}/default gives it" for space in giving}, f"{len(accounts)} accounts")


def _mounted_tokens(machine: _Machine, spec: Check) -> Verdict:
    gives = {
        f"{one['metadata']['namespace']}/{one['metadata']['name']}": one.get(
            "automountServiceAccountToken", True
        )
        for one in machine.objects("ServiceAccount")
    }
    found = set()
    for pod in machine.objects("Pod"):
        account = f"{pod['metadata']['namespace']}/{pod['spec'].get('serviceAccountName')}"
        mounts = pod["spec"].get("automountServiceAccountToken", gives.get(account, True))
        if mounts and account not in spec["accounts"]:
            found.add(f"{_pod(pod)} as {account}")
    return _faults(found, f"{len(machine.objects('Pod'))} pods")


def _admission(machine: _Machine, spec: Check) -> Verdict:
    plugins = machine.yaml_of("admission-control-config-file")["plugins"]
    for plugin in plugins:
        if plugin["name"] == "PodSecurity":
            config = plugin["configuration"]
            level = config["defaults"]["enforce"]
            exempt = config["exemptions"]["namespaces"]
            return level == spec["level"], f"enforce: {level}; exempt: {', '.join(exempt)}"
    return False, "no configuration of PodSecurity"


def _security(pod: Object, container: Object, key: str) -> Any:
    """Return a setting of a container's security context, or its pod's."""
    own = (container.get("securityContext") or {}).get(key)
    return own if own is not None else (pod["spec"].get("securityContext") or {}).get(key)


def _capabilities(container: Object, what: str) -> set[str]:
    held = (container.get("securityContext") or {}).get("capabilities") or {}
    return set(held.get(what) or [])


def _windows(pod: Object, container: Object) -> Object:
    return _security(pod, container, "windowsOptions") or {}


# What can be wrong with a container of a pod.
_PODS: dict[str, Callable[[Object, Object], bool]] = {
    "privileged": lambda pod, one: _security(pod, one, "privileged") is True,
    "host_pid": lambda pod, one: pod["spec"].get("hostPID") is True,
    "host_ipc": lambda pod, one: pod["spec"].get("hostIPC") is True,
    "host_network": lambda pod, one: pod["spec"].get("hostNetwork") is True,
    "escalation": lambda pod, one: _security(pod, one, "allowPrivilegeEscalation") is not False,
    "root": lambda pod, one: _security(pod, one, "runAsNonRoot") is not True,
    "net_raw": lambda pod, one: not {"ALL", "NET_RAW"} & _capabilities(one, "drop"),
    "capabilities": lambda pod, one: bool(_capabilities(one, "add")),
    "host_process": lambda pod, one: _windows(pod, one).get("hostProcess") is True,
    "host_path": lambda pod, one: any("hostPath" in v for v in pod["spec"].get("volumes") or []),
    "host_port": lambda pod, one: any(port.get("hostPort") for port in one.get("ports") or []),
    "proc_mount": lambda pod, one: _security(pod, one, "procMount") == "Unmasked",
    "secret_in_environment": lambda pod, one: bool(
        any("secretRef" in each for each in one.get("envFrom") or [])
        or any("secretKeyRef" in (each.get("valueFrom") or {}) for each in one.get("env") or [])
    ),
    "unpinned_image": lambda pod, one: not re.search(r"@sha256:[0-9a-f]{64}$", one["image"]),
    "seccomp": lambda pod, one: (
        (_security(pod, one, "seccompProfile") or {}).get("type")
        not in ("RuntimeDefault", "Localhost")
    ),
    "writable_root": lambda pod, one: _security(pod, one, "readOnlyRootFilesystem") is not True,
}


def _pods(machine: _Machine, spec: Check) -> Verdict:
    wrong = _PODS[spec["fault"]]
    pods = [
        pod
        for pod in machine.objects("Pod")
        if pod["metadata"]["namespace"] not in spec.get("except", [])
    ]
    found = {
        f"{_pod(pod)}: {one['name']}"
        for pod in pods
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for one in pod["spec"].get(kind) or []
        if wrong(pod, one)
    }
    exempt = f", not looked at: {', '.join(spec['except'])}" if spec.get("except") else ""
    return _faults(found, f"{len(pods)} pods{exempt}")


def _pod(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _policies(machine: _Machine, spec: Check) -> Verdict:
    spaces = {one["metadata"]["name"] for one in machine.objects("Namespace")}
    with_some = {one["metadata"]["namespace"] for one in machine.objects("NetworkPolicy")}
    return _faults(
        {f"{space} has none" for space in spaces - set(spec["except"]) - with_some},
        f"{len(machine.objects('NetworkPolicy'))} policies",
    )


def _namespaces(machine: _Machine, spec: Check) -> Verdict:
    spaces = {one["metadata"]["name"] for one in machine.objects("Namespace")}
    lacking = set(spec["wanted"]) - spaces
    return _faults({f"no namespace {name}" for name in lacking}, ", ".join(sorted(spaces)))


def _default_namespace(machine: _Machine, spec: Check) -> Verdict:
    found = {
        f"{kind} {one['metadata']['name']}"
        for kind in ("Pod", "Service")
        for one in machine.objects(kind)
        if one["metadata"]["namespace"] == "default" and one["metadata"]["name"] != "kubernetes"
    }
    return _faults(found, "nothing but the API's own Service")


RULES: dict[str, Callable[[_Machine, Check], Verdict]] = {
    "anonymous": _anonymous,
    "etcd_tls": _etcd_tls,
    "no_etcd": _no_etcd,
    "encryption": _encryption,
    "audit_policy": _audit_policy,
    "access": _access,
    "cluster_admin": _cluster_admin,
    "masters": _masters,
    "wildcards": _wildcards,
    "default_accounts": _default_accounts,
    "mounted_tokens": _mounted_tokens,
    "admission": _admission,
    "pods": _pods,
    "policies": _policies,
    "namespaces": _namespaces,
    "default_namespace": _default_namespace,
}

_HOW: dict[str, Callable[[_Machine, Check], Verdict]] = {
    "mode": _mode,
    "owner": _owner,
    "argument": _argument,
    "kubelet": _kubelet,
    "config": _config,
    "rule": _rule,
}
