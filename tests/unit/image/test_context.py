"""The build context: deterministic, complete, nothing else; and the Dockerfile that takes it."""

import hashlib
import io
import re
import shutil
import tarfile

import pytest
from salt.exceptions import SaltException

from tests.conftest import ROOT, load_ext

context = load_ext("utils/image_context.py")


@pytest.fixture
def app(tmp_path):
    return shutil.copytree(
        ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__")
    )


@pytest.fixture
def cache(app, tmp_path):
    """A cache that already holds the packages of the lock: no network."""
    folder = tmp_path / "cache"
    for arch in ("amd64", "arm64"):
        lock = (app / "requirements.txt").read_bytes()
        recipe = f"{context.RECIPE}\0{arch}\0{context.PYTHON}\0".encode()
        name = hashlib.sha256(recipe + lock).hexdigest()[:16]
        site = folder / f"site-{name}" / "sanic"
        site.mkdir(parents=True)
        (site / "__init__.py").write_text(f"# {arch}\n")
    return folder


def unpack(packed: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=packed) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_the_same_parts_give_the_same_bytes(app, cache, tmp_path):
    one = context.context(app, "amd64", cache).getvalue()
    for file in app.rglob("*.py"):
        file.touch()
    again = shutil.copytree(app, tmp_path / "elsewhere" / "app")
    assert context.context(again, "amd64", cache).getvalue() == one
    assert context.context(app, "arm64", cache).getvalue() != one


def test_it_holds_what_the_dockerfile_copies_and_no_more(app, cache):
    (app / "secret.txt").write_text("x")
    names = unpack(context.context(app, "amd64", cache))
    copied = re.findall(r"^COPY (\S+) ", (app / "Dockerfile").read_text(), re.MULTILINE)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*copied, "Dockerfile", "requirements.txt"}
    for member in ("f1vote/lua/vote.lua", "f1vote/templates/poll.html", "locale/fr.po",
                   "polls/champion.yaml", "site/sanic/__init__.py"):  # fmt: skip
        assert member in names
    assert {(m.uid, m.gid, m.mtime, m.mode) for m in names.values()} == {
        (0, 0, context.EPOCH, 0o644)
    }


def test_the_dockerfile_is_for_the_legacy_builder_and_runs_nothing(app):
    text = (app / "Dockerfile").read_text()
    assert "# syntax" not in text
    assert not re.search(r"^(RUN|ADD|HEALTHCHECK|SHELL)\b", text, re.MULTILINE)
    assert "--mount" not in text
    assert "--link" not in text
    assert "<<" not in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_every_package_of_the_lock_is_pinned_by_hash(app):
    lock = (app / "requirements.txt").read_text()
    pins = re.findall(r"^[a-z0-9-]+==\S+ \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", lock, re.MULTILINE)) > 5
    wanted = re.findall(r"^[A-Za-z0-9]+", (app / "requirements.in").read_text(), re.MULTILINE)
    assert {name.lower() for name in wanted} <= {pin.partition("==")[0] for pin in pins}


def test_a_missing_part_is_named(app):
    shutil.rmtree(app / "polls")
    with pytest.raises(SaltException, match="polls: missing"):
        context.files(app)


def test_packages_that_cannot_be_had(app, tmp_path):
    absent = f"sanic @ file://{tmp_path}/none.whl --hash=sha256:{'0' * 64}\n"
    (app / "requirements.txt").write_text(absent)
    with pytest.raises(SaltException, match=r"(?s)cannot be installed.*refresh the lock"):
        context.packages(app, "amd64", tmp_path / "cache")
    assert list((tmp_path / "cache").glob("site-*")) == []
