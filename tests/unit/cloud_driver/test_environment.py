"""The Salt environment: the same from the same, only what a machine needs, in the bucket once."""

import hashlib
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import aws
import environment
import pytest

from tests.unit.cloud_driver import machines as helper


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """Make a wheel (PEP 427) and return its line for a requirements file."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    everything = {**files, **metadata}
    record = "".join(f"{entry},,\n" for entry in [*everything, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for entry, body in {**everything, f"{info}/RECORD": record}.items():
            archive.writestr(entry, body)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name} @ {path.as_uri()} --hash=sha256:{digest}\n"


@pytest.fixture
def lock(tmp_path, monkeypatch) -> Path:
    """A lock of two tiny packages in place of Salt's ninety."""
    lines = wheel(
        tmp_path,
        "salt",
        {
            "salt/__init__.py": "",
            "salt/scripts.py": "def salt_call():\n    print('called')\n",
            "salt/modules/test.py": "def ping():\n    return True\n",
            "salt/modules/tests/test_ping.py": "assert True\n",
        },
    ) + wheel(tmp_path, "libcloud", {"libcloud/__init__.py": ""})
    path = tmp_path / "node.txt"
    path.write_text(lines)
    monkeypatch.setattr(environment, "LOCK", path)
    monkeypatch.setenv("F1_CACHE", str(tmp_path / "cache"))
    return path


def test_the_same_lock_gives_the_same_archive(lock, tmp_path, monkeypatch):
    first = environment.build()
    assert environment.cached() == first
    monkeypatch.setenv("F1_CACHE", str(tmp_path / "another"))
    assert environment.cached() is None
    second = environment.build()
    assert second.sha256 == first.sha256
    assert second.sha256 == hashlib.sha256(second.path.read_bytes()).hexdigest()


def test_what_is_in_it(lock, tmp_path):
    with tarfile.open(environment.build().path) as tar:
        items = {item.name: item for item in tar.getmembers()}
        assert "lib/salt/modules/test.py" in items
        assert "lib/salt/modules/__pycache__/test.cpython-311.pyc" in items
        assert not [name for name in items if "libcloud/" in name or "tests" in name]
        assert {item.uid for item in items.values()} == {0}
        assert {item.mtime for item in items.values()} == {0}
        assert items["bin/salt-call"].mode == 0o755
        # PEP 552: flags 1 = hash-based, not checked.
        compiled = tar.extractfile("lib/salt/modules/__pycache__/test.cpython-311.pyc")
        assert compiled is not None
        assert compiled.read(8)[4:] == b"\x01\0\0\0"
        tar.extractall(tmp_path / "salt")
    launcher = tmp_path / "salt/bin/salt-call"
    text = launcher.read_text()
    assert text.startswith("#!/usr/bin/python3 ")
    launcher.write_text(text.replace("/opt/salt", str(tmp_path / "salt")))
    said = subprocess.run([launcher], capture_output=True, text=True, check=True)
    assert said.stdout == "called\n"


def test_a_package_that_is_not_as_locked_is_refused(lock):
    lock.write_text("".join(f"{line[:-6]}000000\n" for line in lock.read_text().splitlines()))
    with pytest.raises(aws.CloudError, match="pip install"):
        environment.build()
    assert environment.cached() is None


def test_another_python_is_named(lock, monkeypatch):
    monkeypatch.setattr(environment, "PYTHON", (3, 2))
    with pytest.raises(aws.CloudError, match=r"needs Python 3\.2, Debian 12's"):
        environment.build()


def test_the_key_changes_with_the_lock(lock):
    first = environment.key()
    lock.write_text(lock.read_text() + "# another\n")
    assert environment.key() != first


def test_old_archives_go(lock, tmp_path):
    folder = tmp_path / "cache/saltenv"
    folder.mkdir(parents=True)
    for number in range(5):
        old = folder / f"{number}.tar.gz"
        old.touch()
        os.utime(old, (number, number))
    built = environment.build()
    assert {path.name for path in folder.glob("*.gz")} == {"3.tar.gz", "4.tar.gz", built.path.name}


def test_it_is_sent_once(lock, platform, requests_seen: list[str]):
    helper.network(platform)
    built = environment.build()
    key = environment.publish(platform, built)
    assert key == f"saltenv/{built.sha256}.tar.gz"
    assert environment.publish(platform, built) == key
    assert requests_seen.count("put_object") == 1
    body: Any = aws.call(platform, "s3", "get_object", Bucket=aws.bucket(platform), Key=key)[
        "Body"
    ].read()
    assert hashlib.sha256(body).hexdigest() == built.sha256
