"""``k3s certificate``, ``token`` and ``secrets-encrypt`` on a server's and an agent's files."""

import datetime
import json
import re
import subprocess
from collections.abc import Sequence

import pytest

from lab.k3s import bootstrap, certificates, pki, tokens, tools

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)


def make(path, subject: str, usage: str, days: int, ca=None) -> None:
    """A certificate of the openssl program, as kubeadm's and K3s's are shaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sign: Sequence[str] = ()
    if ca is not None:
        sign = ("-CA", str(ca), "-CAkey", str(ca.with_suffix(".key")))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", subject, "-days", str(days), "-addext", usage),
            *("-keyout", str(path.with_suffix(".key")), "-out", str(path), *sign),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )


CLIENT, SERVER, CA = (
    "extendedKeyUsage=clientAuth",
    "extendedKeyUsage=serverAuth",
    "keyUsage=critical,keyCertSign",
)


@pytest.fixture
def agent(tmp_path, monkeypatch):
    kubelet = tmp_path / "kubelet-pki"
    monkeypatch.setattr(certificates, "KUBELET_PKI", kubelet)
    monkeypatch.setattr(certificates, "KUBELET_CLIENT", kubelet / "kubelet-client-current.pem")
    data = tmp_path / "data"
    make(data / "agent/client-ca.crt", "/CN=kubernetes", CA, 3650)
    make(kubelet / "kubelet-client-1.pem", "/O=system:nodes/CN=system:node:w1", CLIENT, 365)
    (kubelet / "kubelet-client-current.pem").symlink_to("kubelet-client-1.pem")
    make(data / "agent/serving-kubelet.crt", "/CN=w1", SERVER, 100)
    (data / "agent/kubelet.kubeconfig").write_text("{}")
    return data


@pytest.fixture
def server(agent):
    tls = agent / "server/tls"
    make(tls / "apiserver.crt", "/CN=kube-apiserver", SERVER, 365)
    (tls / "serving-kube-apiserver.crt").hardlink_to(tls / "apiserver.crt")
    (tls / "serving-kube-apiserver.key").hardlink_to(tls / "apiserver.key")
    make(tls / "client-admin.crt", "/O=system:masters/CN=kubernetes-super-admin", CLIENT, 365)
    for path in (tls / "ca.crt", tls / "ca.key", tls / "server-ca.crt"):
        path.write_bytes((agent / "agent/client-ca").with_suffix(path.suffix).read_bytes())
    (agent / "server/cred").mkdir()
    (agent / "server/cred/admin.kubeconfig").write_text("{}")
    return agent


def run(capsys, command, *argv):
    status = tools.main(command, argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_check_as_json_has_k3s_fields(server, capsys):
    status, out, _ = run(capsys, "certificate", "check", "-o", "json", f"--data-dir={server}")
    assert status == 0
    found = json.loads(out)["Certificates"]
    by_name = {}
    for one in found:
        by_name.setdefault(one["Filename"], []).append(one)
    assert set(by_name) == {
        "client-admin.crt",
        "serving-kube-apiserver.crt",
        "client-kubelet.crt",
        "serving-kubelet.crt",
    }
    leaf, ca = by_name["client-admin.crt"]
    assert leaf["Subject"] == "kubernetes-super-admin"
    assert (leaf["Usages"], ca["Usages"]) == (["ClientAuth"], ["CertSign"])
    assert (leaf["Status"], ca["Subject"]) == ("OK", "kubernetes")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", leaf["ExpiryTime"])
    left = datetime.timedelta(microseconds=leaf["ResidualTime"] // 1000)
    assert datetime.timedelta(364) < left < datetime.timedelta(366)
    assert by_name["client-kubelet.crt"][0]["Subject"] == "system:node:w1"
    assert by_name["serving-kubelet.crt"][0]["Status"] == "WARNING"


def test_check_as_text_is_logged(agent, capsys):
    status, out, err = run(capsys, "certificate", "check", f"--data-dir={agent}")
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert 'msg="Agent detected, checking agent certificates"' in lines[0]
    pattern = (
        r'time="\S+" level=info msg="client-kubelet\.crt: certificate system:node:w1 '
        r'\(ClientAuth\) is ok, expires at \S+"'
    )
    assert any(re.fullmatch(pattern, line) for line in lines)
    (warning,) = [line for line in lines if "level=warning" in line]
    assert "serving-kubelet.crt: certificate w1 (ServerAuth) will expire within 120" in warning


def certificate(begins, ends):
    day = datetime.timedelta(days=1)
    name = ("x.crt", "me", "ca", ("ClientAuth",))
    return certificates.Certificate(*name, NOW + begins * day, NOW + ends * day)


@pytest.mark.parametrize(
    ("begins", "ends", "status", "said"),
    [
        (-1, 121, "OK", "is ok, expires at 2026-09-30T12:00:00Z"),
        (-1, 119, "WARNING", "will expire within 120 days at 2026-09-28T12:00:00Z"),
        (-2, -1, "EXPIRED", "expired at 2026-05-31T12:00:00Z"),
        (1, 2, "NOT YET VALID", "is not valid before 2026-06-02T12:00:00Z"),
    ],
)
def test_status(begins, ends, status, said):
    one = certificate(begins, ends)
    assert one.status(NOW) == status
    assert said in certificates.as_text([one], NOW)


def test_table_is_k3s_own():
    table = certificates.as_table([certificate(-1, 365), certificate(-1, 3650)], NOW)
    assert table.splitlines() == [
        "",
        "FILENAME   SUBJECT   USAGES       EXPIRES                  RESIDUAL TIME   STATUS",
        "--------   -------   ------       -------                  -------------   ------",
        "x.crt      me        ClientAuth   Jun 01, 2027 12:00 UTC   1 year          OK",
        "x.crt      me        ClientAuth   May 29, 2036 12:00 UTC   10 years        OK",
    ]


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (0, "0 hours"),
        (1, "1 day"),
        (8, "1 week"),
        (29, "4 weeks"),
        (59, "1 month"),
        (300, "10 months"),
    ],
)
def test_residual_time(days, said):
    assert certificates._residual(datetime.timedelta(days=days)) == said


def test_rotation_removes_leaves_and_keeps_the_ca_and_a_copy(server, capsys):
    before = (server / "server/tls/apiserver.crt").read_bytes()
    status, _, err = run(capsys, "certificate", "rotate", f"--data-dir={server}")
    assert status == 0
    assert "Successfully backed up certificates to" in err
    tls = server / "server/tls"
    assert {path.name for path in tls.iterdir()} == {"ca.crt", "ca.key", "server-ca.crt"}
    assert not (server / "server/cred/admin.kubeconfig").exists()
    assert not (server / "agent/kubelet.kubeconfig").exists()
    assert not list(certificates.KUBELET_PKI.iterdir())
    (kept,) = (server / "server").glob("tls-*")
    assert (kept / "apiserver.crt").read_bytes() == before
    assert (kept / "kubelet-client-1.pem").exists()
    assert kept.stat().st_mode & 0o777 == 0o700


def test_one_service_is_rotated_alone(server, capsys):
    argv = ("rotate", "--service", "admin,scheduler", f"--data-dir={server}")
    assert run(capsys, "certificate", *argv)[0] == 0
    assert not (server / "server/tls/client-admin.crt").exists()
    assert (server / "server/tls/apiserver.crt").exists()
    assert (server / "agent/kubelet.kubeconfig").exists()


def test_unknown_service(server, capsys):
    status, _, err = run(capsys, "certificate", "check", "-s", "etdc", f"--data-dir={server}")
    assert status == 1
    assert "service etdc is not recognized" in err


def test_what_ends_within_120_days_is_renewed_at_start(server):
    every = (*certificates.SERVER_SERVICES, "kubelet")
    assert certificates.expiring(server, every) == ["kubelet"]


@pytest.mark.parametrize(
    ("command", "verb"),
    [("certificate", "rotate-ca"), ("token", "create"), ("secrets-encrypt", "rotate-keys")],
)
def test_what_k3s_has_and_the_stand_in_lacks(capsys, command, verb):
    status, _, err = run(capsys, command, verb, "--any=thing")
    assert status == 1
    assert err == f"k3s {command} {verb}: K3s has it, the stand-in does not\n"


def tokens_of(data, server_secret, agent_secret):
    folder = data / "server"
    ca = (folder / "tls/server-ca.crt").read_bytes()
    (folder / "token").write_text(tokens.full(ca, "server", server_secret) + "\n")
    if agent_secret is None:
        (folder / "agent-token").symlink_to("token")
    else:
        (folder / "agent-token").write_text(tokens.full(ca, "node", agent_secret) + "\n")
    (folder / "db").mkdir()
    (folder / "db/state.db").touch()
    bootstrap.save(folder / "db/state.db", server_secret, folder)
    pki.write_logins(folder / "cred", server_secret, agent_secret or server_secret)


@pytest.mark.parametrize(("agent_secret", "then"), [("agents", "agents"), (None, "new")])
def test_token_rotation(server, capsys, agent_secret, then):
    tokens_of(server, "old", agent_secret)
    argv = ("rotate", "--token=old", "--new-token=new", f"--data-dir={server}")
    status, out, _ = run(capsys, "token", *argv)
    assert status == 0
    assert out.endswith("Token rotated, restart k3s nodes with new token\n")
    folder = server / "server"
    assert tokens.parse((folder / "token").read_text()).secret == "new"
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert tokens.parse((folder / "agent-token").read_text()).secret == then
    assert (folder / "cred/passwd").read_text() == (
        f"{then},node,node,k3s:agent\nnew,server,server,k3s:server\n"
    )
    assert bootstrap.load(folder / "db/state.db", "new")


def test_wrong_token_rotates_nothing_and_is_not_shown(server, capsys):
    tokens_of(server, "old", None)
    argv = ("rotate", "--token=guess", "--new-token=new", f"--data-dir={server}")
    status, out, err = run(capsys, "token", *argv)
    assert status == 1
    assert "not authorized" in err
    assert "guess" not in out + err
    assert bootstrap.load(server / "server/db/state.db", "old")


def test_encryption_status(server, capsys):
    cred = server / "server/cred"
    argv = ("status", f"--data-dir={server}")
    assert "Disabled, no configuration file" in run(capsys, "secrets-encrypt", *argv)[1]
    key = {"aescbc": {"keys": [{"name": "aescbckey", "secret": "hidden"}]}}
    config = {"resources": [{"resources": ["secrets"], "providers": [key, {"identity": {}}]}]}
    (cred / "encryption-config.json").write_text(json.dumps(config))
    (cred / "encryption-state.json").write_text("start-abc")
    out = run(capsys, "secrets-encrypt", *argv)[1]
    assert out.splitlines()[:3] == [
        "Encryption Status: Enabled",
        "Current Rotation Stage: start",
        "Server Encryption Hashes: All hashes match",
    ]
    assert " *      AES-CBC   aescbckey" in out.splitlines()
    assert "hidden" not in out
    state = json.loads(run(capsys, "secrets-encrypt", *argv, "-o", "json")[1])
    assert (state["enable"], state["stage"]) == (True, "start")
