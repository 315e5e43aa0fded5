"""Configuration: everything wrong is said at once, with the fix."""

import pytest

from lab.cloud import config


def test_defaults_are_sound_and_survive_the_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(config.Config().dump())
    assert config.load(file) == config.Config()


def test_a_full_configuration(tmp_path):
    given = {
        "files": str(tmp_path),
        "images": [{"name": "debian-12-x", "mounts": {str(tmp_path): "/opt/x"}, "volumes": ["/v"]}],
        "publish": [{"listen": "127.0.0.1:8443", "machine": "f1-master", "port": 443}],
        "processes": [{"name": "registry", "argv": ["/bin/true"]}],
    }
    parsed = config.parse(given)
    assert parsed.publish[0].address == ("127.0.0.1", 8443)
    assert parsed.images[0].ami == config.Image("debian-12-x").ami != config.Image().ami
    assert parsed.images[0].ami.startswith("ami-")


def test_all_errors_at_once_each_with_its_key():
    given = {
        "api_prt": 1,
        "s3_port": 99999,
        "files": "/nowhere",
        "images": [{"mounts": {"/nowhere/k3s": "/usr/local/bin/k3s"}}, {"nam": "x"}],
        "publish": [
            {"listen": "0.0.0.0:80", "machine": "m", "port": 80},
            {"listen": "127.0.0.1:x", "machine": "m", "port": 0},
            {"machine": "m", "port": 1},
        ],
        "processes": [{"name": "registry", "argv": []}],
    }
    with pytest.raises(config.ConfigError) as caught:
        config.parse(given)
    said = str(caught.value)
    for key in (
        "api_prt: unknown",
        "s3_port: 99999",
        "files: /nowhere",
        "images[0].mounts: /nowhere/k3s",
        "images[1].nam: unknown",
        "publish[0].listen: '0.0.0.0:80'",
        "publish[1].listen",
        "publish[1].port: 0",
        "publish[2]: missing 1 required positional argument: 'listen'",
        "processes[0].argv",
    ):
        assert key in said


def test_one_port_is_published_once():
    twice = [{"listen": "127.0.0.1:8443", "machine": m, "port": 443} for m in ("a", "b")]
    with pytest.raises(config.ConfigError, match=r"127.0.0.1:8443 is used twice"):
        config.parse({"publish": twice})


def test_a_file_that_is_no_mapping(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("- a\n")
    with pytest.raises(config.ConfigError, match="must be a mapping"):
        config.load(file)
