"""Every SLS file, rendered by Salt's own renderers, for every kind of machine and pillar."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.client
import yaml

from tests.conftest import ROOT

from .conftest import DIGEST, STATES, Make, Tree, arguments

# Those of the operator's machine, which the tests of their authors render.
OPERATORS = {"orch/up", "orch/check", "orch/network", "orch/artifacts", "orch/machines"}
OPERATORS |= {"orch/handover", "orch/proof", "orch/down", "orch/rotate_token"}
OPERATORS |= {"orch/rotate_certificates"}
OPERATORS |= {"orch/surplus", "orch/backup", "orch/backup_key", "orch/restore"}

ROLES = {
    "top": {"server", "agent"},
    "base/init": {"server", "agent"},
    "base/packages": {"server", "agent"},
    "base/kernel": {"server", "agent"},
    "base/time": {"server", "agent"},
    "base/journal": {"server", "agent"},
    "base/upgrades": {"server", "agent"},
    "base/ssh": {"server", "agent"},
    "base/absent": {"server", "agent"},
    "egress/init": {"server"},
    "egress/absent": {"server"},
    "k3s/install": {"server", "agent"},
    "k3s/server": {"server"},
    "k3s/agent": {"agent"},
    "k3s/absent": {"server", "agent"},
    "platform/init": {"server"},
    "platform/absent": {"server"},
    "orch/cluster": {"server"},
    "heal/init": {"server"},
    "heal/absent": {"server"},
    "cluster/alone": {"server"},
    "cluster/minions": {"server"},
    "cluster/settled": {"server"},
    "cluster/upgrade": {"server"},
    "cluster/highstate": {"server"},
    "cluster/shrink": {"server"},
    "cluster/rotate_token": {"server"},
    "cluster/rotate_certificates": {"server"},
    "cluster/token_server": {"server"},
    "cluster/token_agent": {"agent"},
    "cluster/certificates": {"server", "agent"},
    "cluster/backup": {"server"},
    "cluster/restore": {"server"},
    "backup/init": {"server"},
    "backup/absent": {"server"},
}
IDS = {"server": "f1-master", "agent": "f1-worker-1"}
HARDENING = yaml.safe_load((STATES / "k3s" / "hardening.yaml").read_text())
SERVER = "/var/lib/rancher/k3s/server"
MIRRORS = {"docker.io": {"endpoint": ["http://10.20.0.5:5000"]}}

CASES: list[dict[str, Any]] = [
    {"arch": arch, "workers": workers, **more}
    for arch, workers, more in itertools.product(
        ("amd64", "arm64"),
        (0, 1, 2, 5),
        ({}, {"digest": None, "registry": {"mirrors": MIRRORS}, "aliases": ["b.example.org"]}),
    )
]


def test_every_sls_has_a_case() -> None:
    found = {
        str(path.relative_to(STATES).with_suffix(""))
        for path in STATES.rglob("*.sls")
        if not path.relative_to(STATES).parts[0].startswith("_")
    }
    assert found - OPERATORS == set(ROLES)


def every(made: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield id, function and arguments of each state of rendered data."""
    for name, functions in made.items():
        if name in ("include", "extend"):
            continue
        for function in functions:
            yield name, function, arguments(made, name, function)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values()))[:40])
@pytest.mark.parametrize("role", IDS)
def test_every_sls_renders_sound(role: str, case: dict[str, Any], tree: Make) -> None:
    made = tree(IDS[role], **case)
    for sls in (sls for sls, roles in ROLES.items() if role in roles and sls != "top"):
        data = made.render(f"{sls}.sls")
        for name, function, given in every(data):
            if function in ("file.managed", "file.serialize"):
                assert given["mode"] in ("0600", "0644"), name
            if function == "artifact.fetched":
                assert case["arch"] == "amd64" or "arm64" in given["url"]
        _requisites_exist(made, sls, data)


def _requisites_exist(made: Tree, sls: str, data: dict[str, Any]) -> None:
    """Each requisite names a state of this file or of one that it includes."""
    known: set[tuple[str, str]] = set()
    todo = [sls]
    while todo:
        one = todo.pop()
        path = one if (STATES / f"{one}.sls").exists() else f"{one}/init"
        rendered = made.render(f"{path}.sls")
        todo += [each.replace(".", "/") for each in rendered.get("include", [])]
        known |= {(function.split(".")[0], name) for name, function, _ in every(rendered)}
    for name, _, given in every(data):
        for kind in ("require", "watch", "onchanges", "require_in"):
            for requisite in given.get(kind, []):
                ((module, target),) = requisite.items()
                assert (module, target) in known, f"{name}: {kind} {requisite}"


def test_nothing_is_removed_before_it_is_allowed(tree: Make) -> None:
    made = tree("operator", dns={"zone": "example.org"})
    data = made.render("orch/down.sls")
    _requisites_exist(made, "orch/down", data)
    states = [each for each in every(data) if not each[1].startswith("stage.")]
    (_, alone, _), (_, function, given), *removals = states
    assert alone == "road.alone"
    assert (function, given["name"], given["confirm"]) == ("cloud_removal.allowed", "f1", None)
    assert len(removals) == 18
    for name, function, given in removals:
        assert "absent" in function
        assert {"cloud_removal": "may be removed"} in given["require"], name


def test_roles_are_given_by_id(tree: Make) -> None:
    top = tree(workers=2).render("top.sls")["base"]
    assert top["f1-master"] == ["egress", "k3s.server", "platform", "backup", "heal"]
    assert top["f1-worker-1,f1-worker-2"] == [{"match": "list"}, "k3s.agent"]


@pytest.mark.parametrize("way", ["nat-gateway", "public"])
def test_a_master_that_does_not_lead_out_forwards_nothing(way: str, tree: Make) -> None:
    top = tree(network={"egress": way}).render("top.sls")["base"]
    assert top["f1-master"] == ["egress.absent", "k3s.server", "platform", "backup", "heal"]


def test_what_the_master_forwards(tree: Make) -> None:
    made = tree(network={"egress_ports": [80, 443, 5000]})
    grains = {"eth0": ["10.20.1.10"], "lo": ["127.0.0.1"]}
    made.opts["grains"]["ip4_interfaces"] = grains
    made.renderers = salt.loader.render(made.opts, salt.loader.minion_mods(made.opts))
    data = made.render("egress/init.sls")
    text = arguments(data, "/etc/f1/egress.nft", "file.managed")["contents"]
    assert "elements = { 10.20.2.0/24, 10.20.3.0/24 }" in text
    assert "ip daddr != 10.20.0.0/16 tcp dport { 80, 443, 5000 } accept" in text
    assert "masquerade" in text
    assert "policy drop" not in text
    switches = {name for name, function, _ in every(data) if function == "sysctl.present"}
    assert switches == {
        "net.ipv4.conf.all.send_redirects",
        "net.ipv4.conf.eth0.send_redirects",
    }
    unit = arguments(data, "/etc/systemd/system/f1-egress.service", "file.managed")["contents"]
    for line in ("Before=k3s.service", "Type=oneshot", "WantedBy=multi-user.target"):
        assert f"\n{line}\n" in f"{unit}\n"
    watched = arguments(data, "f1-egress", "service.running")["watch"]
    assert {"file": "/etc/f1/egress.nft"} in watched


def test_the_kernel_takes_the_table_again_and_again(tree: Make, tmp_path: Path) -> None:
    """In a network of its own; a second time it replaces itself and nothing else."""
    data = tree().render("egress/init.sls")
    file = tmp_path / "egress.nft"
    file.write_text(arguments(data, "/etc/f1/egress.nft", "file.managed")["contents"])
    nft = f"nft add table ip k3s && nft -f {file} && nft -f {file} && nft list ruleset"
    try:
        said = subprocess.run(["unshare", "-n", "sh", "-c", nft], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "Operation not permitted" in said.stderr or "nft: not found" in said.stderr:
        pytest.skip("no nft here, or not allowed")
    assert said.returncode == 0, said.stderr
    tables = [line for line in said.stdout.splitlines() if line.startswith("table")]
    assert tables == ["table ip k3s {", "table ip f1_egress {"]
    assert said.stdout.count("tcp dport { 80, 443 } accept") == 1
    assert said.stdout.count("masquerade") == 1
    forward = said.stdout.partition("chain forward {")[2].split("\n", 4)[2:4]
    clamp = "tcp flags syn tcp option maxseg size set 1460"
    assert [line.strip() for line in forward] == [
        f"ip saddr @workers {clamp}",
        f"ip daddr @workers {clamp}",
    ]


def test_every_file_of_the_way_out_goes_again(tree: Make) -> None:
    made = tree()
    files = {
        name
        for name, function, _ in every(made.render("egress/init.sls"))
        if function == "file.managed"
    }
    absent = made.render("egress/absent.sls")
    gone = {name for name, function, _ in every(absent) if function == "file.absent"}
    assert gone == files | {"/etc/sysctl.d/60-f1-egress.conf"}


def test_no_workers_is_a_fleet_too(tree: Make) -> None:
    made = tree(workers=0)
    assert made.pillar["fleet"] == {"master": "f1-master", "workers": []}
    assert "k3s.agent" not in json.dumps(made.render("top.sls"))
    # Salt takes an empty allow_tgt for "everyone".
    assert {"allow_tgt": "f1-master"} in made.pillar["mine_functions"]["k3s_agent_token"]


def test_the_mine_offers_the_token_to_the_workers_by_id(tree: Make) -> None:
    made = tree(workers=2)
    assert made.pillar["mine_functions"]["k3s_agent_token"] == [
        {"mine_function": "k3s.agent_token"},
        {"allow_tgt": "f1-worker-1,f1-worker-2"},
        {"allow_tgt_type": "list"},
    ]


def test_only_the_master_has_a_mine_and_a_new_name_counts(tree: Make) -> None:
    made = tree("zz-worker-1", name="zz")
    assert made.pillar["fleet"]["master"] == "zz-master"
    assert "mine_functions" not in made.pillar


def test_server_configuration(tree: Make) -> None:
    data = tree(registry={"mirrors": MIRRORS}).render("k3s/server.sls")
    config = arguments(data, "/etc/rancher/k3s/config.yaml", "file.serialize")
    assert config["mode"] == "0600"
    assert config["dataset"] == {
        "node-name": "f1-master",
        "node-ip": "10.20.1.10",
        "node-label": ["f1.vote/role=server"],
        "tls-san": ["10.20.1.10"],
        "write-kubeconfig-mode": "600",
        "agent-token-file": "/etc/rancher/k3s/agent-token",
        "disable": ["traefik", "servicelb", "metrics-server"],
        **HARDENING["every node"],
        **HARDENING["server"],
    }


def test_agent_configuration(tree: Make) -> None:
    data = tree("f1-worker-1").render("k3s/agent.sls")
    config = arguments(data, "/etc/rancher/k3s/config.yaml", "file.serialize")
    assert config["mode"] == "0600"
    assert config["dataset"] == {
        "node-name": "f1-worker-1",
        "node-label": ["f1.vote/role=worker"],
        "server": "https://10.20.1.10:6443",
        "token-file": "/etc/rancher/k3s/token",
        **HARDENING["every node"],
    }


@pytest.mark.parametrize(("role", "sls"), [("server", "k3s/server"), ("agent", "k3s/agent")])
def test_the_stand_in_accepts_what_is_written(role: Any, sls: str, tree: Make) -> None:
    settings = pytest.importorskip("lab.k3s.options")
    data = tree(IDS[role]).render(f"{sls}.sls")
    config = arguments(data, "/etc/rancher/k3s/config.yaml", "file.serialize")["dataset"]
    assert set(config) <= set(settings.options_of(role))


@pytest.mark.parametrize(("unit", "sls"), [("k3s", "k3s/server"), ("k3s-agent", "k3s/agent")])
def test_k3s_restarts_when_what_it_reads_changes(unit: str, sls: str, tree: Make) -> None:
    data = tree("f1-worker-1").render(f"{sls}.sls")
    watched = [next(iter(each.values())) for each in arguments(data, unit, "k3s.running")["watch"]]
    secret = "agent-token" if unit == "k3s" else "token"
    assert watched == [
        "/usr/local/bin/k3s",
        "/etc/rancher/k3s/config.yaml",
        "/etc/rancher/k3s/registries.yaml",
        f"/etc/systemd/system/{unit}.service",
        f"/etc/rancher/k3s/{secret}",
        *([f"{SERVER}/audit.yaml", f"{SERVER}/psa.yaml"] if unit == "k3s" else []),
    ]
    # The kubelet does not start over another kernel.
    required = arguments(data, unit, "k3s.running")["require"]
    assert {"machine": "/etc/sysctl.d/90-kubelet.conf"} in required
    text = arguments(data, f"/etc/systemd/system/{unit}.service", "file.managed")["contents"]
    for line in ("Type=notify", "KillMode=process", "Delegate=yes", "Restart=always"):
        assert f"\n{line}\n" in text
    assert f"\nExecStart=/usr/local/bin/k3s {sls.removeprefix('k3s/')}\n" in text


def test_what_the_server_is_told_of_is_there_before_it(tree: Make) -> None:
    """Every file that its arguments name is written by a state; folders are root's alone."""
    data = tree().render("k3s/server.sls")
    config = arguments(data, "/etc/rancher/k3s/config.yaml", "file.serialize")
    assert {"file": f"{SERVER}/logs"} in config["require"]
    named = [arg.split("=")[1] for arg in config["dataset"]["kube-apiserver-arg"] if "=/" in arg]
    assert named == [f"{SERVER}/psa.yaml", f"{SERVER}/audit.yaml", f"{SERVER}/logs/audit.log"]
    for name in ("audit.yaml", "psa.yaml", "manifests/f1-accounts.yaml"):
        given = arguments(data, f"{SERVER}/{name}", "file.managed")
        assert given["mode"] == "0600"
        assert (STATES / given["source"].removeprefix("salt://")).exists()
    for folder in ("", "/db", "/logs", "/manifests"):
        given = arguments(data, f"{SERVER}{folder}", "file.directory")
        assert given["mode"] == "0700"


def test_admission_is_restricted_and_exemptions_are_named() -> None:
    plugins = yaml.safe_load((STATES / "k3s/files/psa.yaml").read_text())["plugins"]
    pods, events = (plugin["configuration"] for plugin in plugins)
    assert {pods["defaults"][key] for key in ("enforce", "audit", "warn")} == {"restricted"}
    assert pods["exemptions"] == {
        "usernames": [],
        "runtimeClasses": [],
        "namespaces": ["kube-system"],
    }
    assert events["limits"]
    enabled = HARDENING["server"]["kube-apiserver-arg"][0].split("=")[1].split(",")
    assert set(enabled) == {"NodeRestriction", "EventRateLimit", "DenyServiceExternalIPs"}


def test_the_audit_log_holds_who_and_never_what() -> None:
    policy = yaml.safe_load((STATES / "k3s/files/audit.yaml").read_text())
    levels = [rule["level"] for rule in policy["rules"]]
    assert set(levels) == {"None", "Metadata"}
    assert levels[-1] == "Metadata"
    secrets = [
        number
        for number, rule in enumerate(policy["rules"])
        if any("secrets" in each["resources"] for each in rule.get("resources", []))
    ]
    reads = [n for n, rule in enumerate(policy["rules"]) if "get" in rule.get("verbs", [])]
    # The first rule that matches counts.
    assert secrets < reads
    assert policy["rules"][secrets[0]]["level"] == "Metadata"


def test_base_and_its_reverse_name_the_same_files(tree: Make) -> None:
    made = tree()
    parts = [part.replace(".", "/") for part in made.render("base/init.sls")["include"]]
    written = [
        name
        for part in parts
        for name, function, _ in every(made.render(f"{part}.sls"))
        if function in ("file.managed", "machine.kernel")
    ]
    gone = [name for name, fn, _ in every(made.render("base/absent.sls")) if fn == "file.absent"]
    assert len(written) == 6
    assert sorted(gone) == sorted(written)


def test_only_debians_security_comes_by_itself(tree: Make) -> None:
    data = tree().render("base/upgrades.sls")
    text = arguments(data, "/etc/apt/apt.conf.d/60f1-unattended-upgrades", "file.managed")
    assert "#clear Unattended-Upgrade::Origins-Pattern;" in text["contents"]
    origins = [line for line in text["contents"].splitlines() if "origin=" in line]
    assert len(origins) == 1
    assert "label=Debian-Security" in origins[0]
    assert 'Automatic-Reboot "false"' in text["contents"]


@pytest.mark.parametrize(
    ("minion", "time"),
    [("f1-master", "23:40"), ("f1-worker-1", "23:55"), ("f1-worker-2", "00:10")],
)
def test_machines_boot_one_after_another(minion: str, time: str, tree: Make) -> None:
    made = tree(minion, maintenance={"reboot": True, "window": "23:40"})
    data = made.render("base/upgrades.sls")
    text = arguments(data, "/etc/apt/apt.conf.d/60f1-unattended-upgrades", "file.managed")
    assert 'Automatic-Reboot "true"' in text["contents"]
    assert f'Automatic-Reboot-Time "{time}"' in text["contents"]


def test_sshd_takes_keys_only_and_is_tested_before_it_reads_them(tree: Make) -> None:
    data = tree().render("base/ssh.sls")
    drop_in = arguments(data, "/etc/ssh/sshd_config.d/10-f1.conf", "file.managed")
    assert drop_in["check_cmd"] == "/usr/sbin/sshd -t -f"
    lines = [line for line in drop_in["contents"].splitlines() if not line.startswith("#")]
    said = dict(line.split(maxsplit=1) for line in lines)
    for option in ("PasswordAuthentication", "KbdInteractiveAuthentication", "PermitRootLogin"):
        assert said[option] == "no"
    # The operator's key is of this kind (ssh.py), and so is the host key it is pinned to.
    assert "ssh-ed25519" in said["PubkeyAcceptedAlgorithms"].split(",")
    assert said["HostKey"].endswith("ed25519_key")
    assert "AllowUsers" not in said
    assert arguments(data, "ssh", "service.running")["reload"] is True


def test_mirrors_and_locked_artifacts(tree: Make) -> None:
    made = tree(arch="arm64", registry={"mirrors": MIRRORS})
    data = made.render("k3s/install.sls")
    registries = arguments(data, "/etc/rancher/k3s/registries.yaml", "file.serialize")
    assert registries["dataset"] == {"mirrors": MIRRORS}
    assert registries["mode"] == "0600"
    lock = made.pillar["versions"]["k3s"]
    binary = arguments(data, "/usr/local/bin/k3s", "artifact.fetched")
    assert (binary["sha256"], binary["mode"]) == (lock["arm64"]["sha256"], "0755")
    for folder in ("/etc/rancher/k3s", "/var/lib/rancher/k3s/agent/images"):
        assert arguments(data, folder, "file.directory")["mode"] == "0700"


def test_another_architecture_is_refused_by_name(tree: Make) -> None:
    with pytest.raises(Exception, match=r"versions\.k3s has no build for riscv64"):
        tree(arch="riscv64").render("k3s/install.sls")


def test_an_unknown_image_stops_the_platform_with_the_fix(tree: Make) -> None:
    data = tree(digest=None).render("platform/init.sls")
    (state,) = [given for _, function, given in every(data) if function.startswith("test.fail")]
    assert "platform.app.digest" in state["comment"]
    assert "make up" in state["comment"]


def test_the_overlay_has_the_values_of_the_pillar(tree: Make, tmp_path: Path) -> None:
    """Rendered over the real k8s/ by kustomize, where there is one."""
    made = tree(domain="a.example.org", aliases=["b.example.org"])
    data = made.render("platform/init.sls")
    overlay = arguments(data, "/var/lib/f1/render/kustomization.yaml", "file.serialize")["dataset"]
    folder = tmp_path / "render"
    folder.mkdir()
    up = "../" * (len(folder.parts) - 1)
    overlay = json.loads(json.dumps(overlay))
    overlay["resources"] = [f"{up}{str(ROOT)[1:]}/k8s"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    try:
        said = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("no kubectl here")
    objects = {
        (one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(said.stdout)
    }
    ingress = objects["Ingress", "vote"]["spec"]["rules"]
    assert [rule["host"] for rule in ingress] == ["a.example.org", "b.example.org"]
    assert ingress[0]["http"] == ingress[1]["http"]
    images = made.pillar["versions"]["images"]
    for key, wanted in (
        (("Deployment", "vote"), f"registry.example.org/f1vote@{DIGEST}"),
        (("StatefulSet", "redis"), f"{images['redis']['name']}@{images['redis']['digest']}"),
        (("Deployment", "traefik"), f"{images['traefik']['name']}@{images['traefik']['digest']}"),
    ):
        (container,) = objects[key]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == wanted


def test_orchestration_asks_for_every_minion_by_id(tree: Make) -> None:
    made = tree(workers=3)
    wanted = ["f1-master", "f1-worker-1", "f1-worker-2", "f1-worker-3"]
    ready = arguments(made.render("cluster/minions.sls"), "minions", "fleet.ready")
    highstate = arguments(made.render("cluster/highstate.sls"), "highstate", "fleet.highstate")
    assert ready["minions"] == highstate["minions"] == wanted


def test_no_version_is_changed_by_a_highstate_of_all(tree: Make) -> None:
    """The upgrade, one node at a time, goes before it; a failure ends the walk."""
    made = tree()
    order = made.render("orch/cluster.sls")["include"]
    assert order[1:] == [
        "cluster.minions",
        "cluster.settled",
        "cluster.upgrade",
        "cluster.highstate",
        "cluster.shrink",
    ]
    for sls, name, function in (
        ("minions", "minions", "fleet.ready"),
        ("settled", "no restore is half done", "backup.settled"),
        ("upgrade", "upgrade", "cluster.upgraded"),
        ("highstate", "highstate", "fleet.highstate"),
        ("shrink", "surplus workers", "fleet.shrunk"),
    ):
        data = made.render(f"cluster/{sls}.sls")
        assert arguments(data, name, function)["failhard"] is True


@pytest.mark.parametrize(
    "sls",
    [
        "orch/cluster",
        "cluster/upgrade",
        "cluster/shrink",
        "cluster/rotate_token",
        "cluster/rotate_certificates",
    ],
)
def test_one_orchestration_at_a_time(sls: str, tree: Make) -> None:
    assert tree().render(f"{sls}.sls")["include"][0] == "cluster.alone"


def test_the_upgrade_wants_the_lock_and_asks_as_a_voter(tree: Make) -> None:
    made = tree(domain="vote.example.net")
    data = arguments(made.render("cluster/upgrade.sls"), "upgrade", "cluster.upgraded")
    assert data["version"] == made.pillar["versions"]["k3s"]["version"]
    assert (data["master"], data["workers"]) == ("f1-master", ["f1-worker-1", "f1-worker-2"])
    assert data["app"] == {
        "url": "https://10.20.1.10/api/polls/canary/results",
        "host": "vote.example.net",
    }
    assert (data["drain"], data["backup_required"], data["without_backup"]) == (False,) * 3


def test_shrinking_knows_the_machines_only_if_told(tree: Make) -> None:
    made = tree(workers=1)
    given = arguments(made.render("cluster/shrink.sls"), "surplus workers", "fleet.shrunk")
    assert (given["workers"], given["deadline"]) == (["f1-worker-1"], 120)
    orphans = arguments(made.render("cluster/shrink.sls"), "orphans", "fleet.accounted")
    assert orphans["machines"] is None
    made.given(machines={"f1-master": {}, "f1-worker-1": {}})
    told = arguments(made.render("cluster/shrink.sls"), "orphans", "fleet.accounted")
    assert told["machines"] == ["f1-master", "f1-worker-1"]


@pytest.mark.parametrize(
    ("minion", "sls", "unit", "secret"),
    [
        ("f1-master", "token_server", "k3s", "/etc/rancher/k3s/agent-token"),
        ("f1-worker-1", "token_agent", "k3s-agent", "/etc/rancher/k3s/token"),
    ],
)
def test_a_rotation_of_the_token_touches_nothing_else(
    minion: str, sls: str, unit: str, secret: str, tree: Make
) -> None:
    """It may run while the lock holds another version: no binary, no configuration."""
    data = tree(minion).render(f"cluster/{sls}.sls")
    assert {function for _, function, _ in every(data)} <= {
        "k3s.secret_rotated",
        "k3s.current",
        "k3s.token_from_mine",
        "k3s.token_offered",
    }
    assert arguments(data, unit, "k3s.current")["files"] == [secret]


@pytest.mark.parametrize(("minion", "unit"), [("f1-master", "k3s"), ("f1-worker-1", "k3s-agent")])
def test_certificates_are_those_of_this_machines_unit(minion: str, unit: str, tree: Make) -> None:
    made = tree(minion)
    assert unit in made.render("cluster/certificates.sls")
    made.given(rotation={"began": 12.5})
    data = made.render("cluster/certificates.sls")
    assert arguments(data, unit, "k3s.certificates_rotated") == {"before": 12.5}


@pytest.mark.parametrize("role", IDS)
def test_the_highstate_compiles(role: str, tree: Make) -> None:
    """Salt finds no unknown or circular requisite, and nothing is there twice."""
    made = tree(IDS[role])
    caller = salt.client.Caller(mopts={**made.opts, "state_aggregate": False})
    chunks = caller.cmd("state.show_lowstate")
    assert all(isinstance(chunk, dict) for chunk in chunks), chunks
    order = [chunk["__id__"] for chunk in chunks]
    if role == "server":
        assert order.index("the table of f1-egress") < order.index("/usr/local/bin/k3s")
        assert order.index("k3s") < order.index("k3s_agent_token") < order.index("nodes are ready")
        assert order.index("k8s is applied") < order.index("nodes are ready")
    else:
        assert order.index("/etc/rancher/k3s/token") < order.index("k3s-agent")
