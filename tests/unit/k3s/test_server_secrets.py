"""Tokens and keys that the server writes."""

import csv
import hashlib
import json

import pytest

from lab.k3s import config, settings, tokens
from lab.k3s.pki import Pki


@pytest.fixture
def make(tmp_path):
    def pki(*argv, ca=b"a certificate\n"):
        data = tmp_path / "data"
        basic = [f"--data-dir={data}", "--disable=traefik,servicelb,metrics-server"]
        given, problems = config.read("server", [*basic, *argv], {})
        made = Pki(
            settings.resolve("server", given, problems, "s1", "10.0.0.5"), tmp_path, "v1.36.3"
        )
        for folder in (made.tls, made.cred):
            folder.mkdir(parents=True, exist_ok=True)
        for path in (made.ca, made.tls / "ca.crt"):
            if ca:
                path.write_bytes(ca)
        return made

    return pki


def text(pki, name):
    return (pki.server_dir / name).read_text().strip()


def test_without_a_token_one_is_made_and_kept(make):
    pki = make()
    server, agent = pki.secrets()
    assert server == agent
    assert len(server) == 32
    pki.write_tokens(server, agent)
    assert make().secrets() == (server, agent)


def test_files_have_k3s_form_and_mode(make):
    pki = make("--token=s3cret", "--agent-token=agents")
    pki.write_tokens(*pki.secrets())
    ca = pki.ca.read_bytes()
    assert text(pki, "token") == tokens.full(ca, "server", "s3cret")
    assert text(pki, "node-token") == text(pki, "token")
    assert text(pki, "agent-token") == tokens.full(ca, "node", "agents")
    modes = {(pki.server_dir / name).stat().st_mode & 0o777 for name in ("token", "agent-token")}
    assert modes == {0o600}


def test_agent_token_is_the_server_one_unless_given(make):
    pki = make("--token=s3cret", "--agent-token=agents")
    pki.write_tokens(*pki.secrets())
    pki = make("--token=s3cret")
    pki.write_tokens(*pki.secrets())
    assert (pki.server_dir / "agent-token").readlink().name == "token"


def test_agent_token_file(make, tmp_path):
    path = tmp_path / "agent-token"
    path.write_text("from-file\n")
    assert make("--token=a", f"--agent-token-file={path}").secrets() == ("a", "from-file")


def test_full_form_needs_the_cluster_it_names(make):
    full = tokens.full(b"a certificate\n", "server", "s3cret")
    assert make(f"--token={full}").secrets()[0] == "s3cret"
    make(f"--token={full}").check_tokens()
    with pytest.raises(config.ConfigError, match="token of another cluster"):
        make(f"--token=K10{'0' * 64}::server:s3cret").check_tokens()


def test_first_start_takes_the_short_form_only(make):
    with pytest.raises(config.ConfigError, match="short form only"):
        make(f"--token=K10{'0' * 64}::server:s3cret", ca=None).check_tokens()


def test_logins_are_k3s_passwd(make):
    pki = make("--token=s3cret", '--agent-token=a,"b')
    pki.write_tokens(*pki.secrets())
    path = pki.cred / "passwd"
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open() as file:
        assert list(csv.reader(file)) == [
            ['a,"b', "node", "node", "k3s:agent"],
            ["s3cret", "server", "server", "k3s:server"],
        ]


def test_encryption_key_is_kept_and_stays_when_taken_back(make):
    assert make().encryption() is None
    path = make("--secrets-encryption").encryption()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == "encryption-config.json"
    state = (path.parent / "encryption-state.json").read_text()
    assert state == f"start-{hashlib.sha256(path.read_bytes()).hexdigest()}"
    first = json.loads(path.read_text())["resources"][0]
    assert [next(iter(p)) for p in first["providers"]] == ["aescbc", "identity"]
    before = path.stat()
    make("--secrets-encryption").encryption()
    assert path.stat().st_mtime_ns == before.st_mtime_ns  # newer than the datastore's otherwise
    assert json.loads(path.read_text())["resources"][0] == first
    make().encryption()
    last = json.loads(path.read_text())["resources"][0]
    assert last["providers"] == first["providers"][::-1]


def test_certificate_names(make):
    names = make("--tls-san=f1.test,203.0.113.9", "--node-external-ip=203.0.113.9").names()
    assert names == ["127.0.0.1", "localhost", "s1", "10.0.0.5", "203.0.113.9", "f1.test"]
