"""The options: K3s's own, from where K3s takes them, refused where K3s has none."""

from pathlib import Path

import pytest

from lab.k3s import config, settings
from lab.k3s.options import LACKING, OPTIONS, Role, options_of

FLAGS = Path(__file__).with_name("k3s-flags.txt")
SERVER = ["--disable=traefik,servicelb,metrics-server"]
AGENT = ["--server=https://10.0.0.1:6443", "--token=x"]


def k3s_flags(role: Role) -> set[str]:
    lines = (line.split() for line in FLAGS.read_text().splitlines() if line[0] != "#")
    return {name for which, name in lines if which in (role, "both")}


def resolve(role, argv, environ=None):
    given, problems = config.read(role, argv, environ or {})
    return settings.resolve(role, given, problems, "Host-1", "10.0.0.5")


def problems_of(role, argv, environ=None):
    with pytest.raises(config.ConfigError) as caught:
        resolve(role, argv, environ)
    return caught.value.problems


@pytest.fixture
def file(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return f"--config={tmp_path / 'config.yaml'}"

    return write


@pytest.mark.parametrize("role", ["server", "agent"])
def test_every_option_is_k3s_own_and_every_one_of_k3s_is_known(role):
    mine = set(options_of(role))
    assert mine <= k3s_flags(role)
    assert mine | LACKING[role] == k3s_flags(role)
    assert not mine & LACKING[role]


def test_environment_names_are_unique():
    names = [option.env for option in OPTIONS if option.env]
    assert len(names) == len(set(names))
    assert all(name.startswith("K3S_") for name in names)


def test_command_line_beats_file_beats_environment(file):
    env = {"K3S_NODE_NAME": "from-env", "K3S_TOKEN": "env-token", "K3S_DATA_DIR": "/env"}
    flag = file("node-name: from-file\ndata-dir: /file\n")
    s = resolve("server", [*SERVER, flag, "--data-dir", "/flag"], env)
    assert (s.node_name, s.token, s.data_dir) == ("from-file", "env-token", Path("/flag"))


def test_config_file_from_environment_wins_as_in_k3s(file, tmp_path):
    flag = file("node-name: from-flag\n")
    other = tmp_path / "other.yaml"
    other.write_text("node-name: from-env\n")
    s = resolve("server", [*SERVER, flag], {"K3S_CONFIG_FILE": str(other)})
    assert s.node_name == "from-env"


def test_drop_ins_replace_and_append_as_documented(file):
    flag = file("token: boop\nnode-label:\n  - foo=bar\n  - bar=baz\n")
    file("write-kubeconfig-mode: 600\nnode-taint: [alice=bob:NoExecute]\n", "config.yaml.d/1.yaml")
    file(
        "write-kubeconfig-mode: 777\nnode-label: [other=what, foo=three]\n"
        "node-taint+: [charlie=delta:NoSchedule]\n",
        "config.yaml.d/2.yml",
    )
    file("node-name: not-yaml-by-name\n", "config.yaml.d/3.txt")
    s = resolve("server", [*SERVER, flag])
    assert s.kubeconfig_mode == 0o777
    assert s.token == "boop"
    assert s.labels == ("other=what", "foo=three")
    assert s.taints == ("alice=bob:NoExecute", "charlie=delta:NoSchedule")
    assert s.node_name == "host-1"


def test_drop_ins_alone_suffice(file):
    flag = file("node-name: alone\n", "config.yaml.d/1.yaml")
    assert resolve("server", [*SERVER, flag]).node_name == "alone"


def test_list_on_the_command_line_replaces_that_of_the_file(file):
    flag = file("node-label: [a=1, b=2]\n")
    s = resolve("server", [*SERVER, flag, "--node-label", "c=3", "--node-label", "d=4"])
    assert s.labels == ("c=3", "d=4")


def test_commas_split_names_but_not_arguments():
    argv = ["--tls-san=a.test,b.test", "--kubelet-arg=eviction-hard=memory.available<1Mi,x<2"]
    s = resolve("server", [*SERVER, *argv])
    assert s.tls_san == ("a.test", "b.test")
    assert s.arguments["kubelet"] == ("eviction-hard=memory.available<1Mi,x<2",)


def test_short_forms_and_flags():
    s = resolve("agent", ["-s", "https://h:1", "-t", "x", "--debug", "--protect-kernel-defaults"])
    assert (s.server, s.token, s.debug, s.protect_kernel_defaults) == (
        "https://h:1",
        "x",
        True,
        True,
    )
    assert not resolve("agent", [*AGENT, "--debug=false"]).debug


def test_unknown_key_names_file_line_and_nearest(file):
    flag = file("node-name: x\ntls-sann: [a]\n")
    (problem,) = problems_of("server", [*SERVER, flag])
    assert "config.yaml:2: tls-sann: unknown to K3s; did you mean tls-san?" in problem


def test_known_to_k3s_only_is_refused_in_other_words():
    (problem,) = problems_of("server", [*SERVER, "--cluster-init"])
    assert problem == "command line: cluster-init: K3s has it, the stand-in does not"


def test_option_of_the_other_command():
    (problem,) = problems_of("agent", [*AGENT, "--tls-san", "x"])
    assert "an option of `k3s server`, not of `k3s agent`" in problem


def test_all_errors_at_once_and_no_secret_in_them(file):
    flag = file(
        "servr: x\ntoken: 0123\nnode-ip: fe80::1\nnode-label: [oops]\nnode-taint: [a=b]\n"
        "node-label: [again=1]\ndata-dir: [a, b]\npause-image:\nresolv-conf: etc/x\n"
    )
    text = "\n".join(problems_of("agent", [flag, "--server", "http://h:6443", "stray"]))
    for part in (
        "servr: unknown",
        "token: write the value as a quoted string",
        "node-ip: 'fe80::1' is not an IPv4 address",
        "node-label: 'oops' is not of the form key=value",
        "node-taint: 'a=b' is not of the form key=value:NoSchedule",
        "node-label: given twice",
        "data-dir: takes one value",
        "pause-image: has no value",
        "resolv-conf: 'etc/x' is not an absolute path",
        "server: 'http://h:6443' is not of the form",
        "unexpected argument 'stray'",
    ):
        assert part in text
    assert "0123" not in text


def test_octal_mode_must_be_quoted(file):
    (problem,) = problems_of("server", [*SERVER, file("write-kubeconfig-mode: 0644\n")])
    assert "write-kubeconfig-mode: write the value as a quoted string" in problem
    s = resolve("server", [*SERVER, file('write-kubeconfig-mode: "0644"\n')])
    assert s.kubeconfig_mode == 0o644


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("--flannel-backend=wireguard-native", "K3s has it, the stand-in does not"),
        ("--flannel-backend=vxlna", "not one of vxlan, host-gw"),
        ("--write-kubeconfig-mode=rw", "not an octal mode"),
        ("--cluster-dns=10.99.0.10", "outside service-cidr"),
        ("--cluster-cidr=10.42.0.1/16", "not an IPv4 network"),
        ("--https-listen-port=70000", "not a number from 1 to 65535"),
        ("--disable=trafik", "'trafik' is not one of"),
        ("--secrets-encryption=maybe", "neither true nor false"),
        ("--kubelet-arg=x y", "not of the form name=value"),
    ],
)
def test_bad_values(argument, why):
    assert why in "\n".join(problems_of("server", [*SERVER, argument]))


def test_what_k3s_would_deploy_must_be_disabled():
    (problem,) = problems_of("server", ["--disable=traefik"])
    assert "K3s would deploy servicelb, metrics-server" in problem


def test_agent_must_be_told_where_and_with_what():
    assert len(problems_of("agent", [])) == 2
    s = resolve("agent", [], {"K3S_URL": "https://h:6443", "K3S_TOKEN_FILE": "/t"})
    assert s.token_file == Path("/t")


def test_named_config_file_must_exist(tmp_path):
    (problem,) = problems_of("server", [*SERVER, f"--config={tmp_path}/none.yaml"])
    assert "none.yaml does not exist" in problem


def test_broken_yaml_tells_its_line(file):
    (problem,) = problems_of("server", [*SERVER, file("a: b\n c: [d\n")])
    assert "config.yaml:2: not YAML" in problem


def test_addresses_follow_each_other():
    s = resolve("server", [*SERVER, "--node-external-ip=203.0.113.7"])
    assert (s.node_ip, s.advertise_address) == ("10.0.0.5", "203.0.113.7")
    s = resolve("server", [*SERVER, "--service-cidr=10.9.0.0/16"])
    assert (s.advertise_address, s.cluster_dns) == ("10.0.0.5", "10.9.0.10")
