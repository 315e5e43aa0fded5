"""Asking a registry for a digest: logins, refusals, silence."""

import json
import socket

import pytest
from salt.exceptions import SaltException

from tests.conftest import load_ext
from tests.unit.image.registries import FakeRegistry, digest

registry = load_ext("utils/registry.py")


@pytest.fixture(params=[None, "basic", "bearer"])
def server(request):
    fake = FakeRegistry(request.param)
    fake.manifests["f1/vote:c-1"] = b"{}"
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def docker_config(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def login(host: str, **entry: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: entry}}))

    return login


def test_the_digest_of_a_tag_or_none(server, docker_config):
    docker_config(server.host, auth="bWU6c2VjcmV0")  # me:secret
    assert registry.digest(f"{server.host}/f1/vote", "c-1") == digest(b"{}")
    assert registry.digest(f"{server.host}/f1/vote", "c-2") is None


def test_who_is_not_logged_in_is_told_how(server, docker_config):
    if server.auth is None:
        pytest.skip("this one lets everybody in")
    docker_config(server.host, auth="bWU6d3Jvbmc=")  # me:wrong
    with pytest.raises(SaltException, match=f"docker login {server.host}"):
        registry.digest(f"{server.host}/f1/vote", "c-1")


def test_an_identity_token_is_exchanged(docker_config):
    fake = FakeRegistry("bearer")
    fake.manifests["f1/vote:c-1"] = b"{}"
    docker_config(fake.host, identitytoken="id-token", auth="")
    try:
        assert registry.digest(f"{fake.host}/f1/vote", "c-1") == digest(b"{}")
    finally:
        fake.close()


def test_a_registry_that_is_not_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(SaltException, match=f"{host} does not answer: .*refused"):
            registry.digest(f"{host}/f1/vote", "c-1")


@pytest.mark.parametrize(
    ("repository", "parts"),
    [
        ("ghcr.io/me/f1vote", ("ghcr.io", "me/f1vote")),
        ("127.0.0.1:5000/f1/vote", ("127.0.0.1:5000", "f1/vote")),
        ("localhost/vote", ("localhost", "vote")),
        ("me/f1vote", ("docker.io", "me/f1vote")),
        ("vote", ("docker.io", "library/vote")),
    ],
)
def test_host_and_path_as_docker_reads_them(repository, parts):
    assert registry.split(repository) == parts
