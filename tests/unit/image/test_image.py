"""``image.present``: what is built when, and what is said when it cannot be."""

import json
import shutil
import time

import pytest
import yaml
from docker.errors import APIError, DockerException, NotFound
from salt.exceptions import SaltException

from tests.conftest import ROOT, load_ext
from tests.unit.image.registries import FakeRegistry, digest

BASE = "sha256:" + "b" * 64


class FakeImages:
    def __init__(self, engine):
        self.engine = engine

    def get(self, name):
        if "@" in name and not self.engine.has_base:
            raise NotFound("no such image")
        return self

    attrs = {"Architecture": "amd64"}  # noqa: RUF012

    def tag(self, repository, tag):
        self.engine.done.append(f"tag {tag}")


class FakeEngine:
    """Does what Docker's engine does with a stream: an error is a line of it, not an exception."""

    def __init__(self, registry):
        self.registry = registry
        self.images = FakeImages(self)
        self.api = self
        self.has_base = True
        self.done: list[str] = []
        self.build_lines: list[dict] = [{"stream": "Successfully built"}]
        self.push_error: dict | None = None
        self.loses_push = False
        self.pull_error: Exception | None = None

    def ping(self):
        return True

    def pull(self, name, **_):
        self.done.append("pull")
        if self.pull_error:
            raise self.pull_error
        yield {"status": "done"}

    def build(self, *, tag, buildargs, **_):
        self.done.append(f"build {buildargs['BASE']}")
        yield from self.build_lines

    def push(self, repository, *, tag, **_):
        self.done.append(f"push {tag}")
        if self.push_error:
            yield self.push_error
            return
        manifest = json.dumps({"built": len(self.done)}).encode()
        if not self.loses_push:
            self.registry.manifests[f"{repository.partition('/')[2]}:{tag}"] = manifest
        yield {"aux": {"Digest": digest(manifest)}}


@pytest.fixture
def registry():
    fake = FakeRegistry()
    yield fake
    fake.close()


@pytest.fixture
def engine(registry, monkeypatch):
    fake = FakeEngine(registry)
    monkeypatch.setattr("docker.from_env", lambda **_: fake)
    return fake


@pytest.fixture
def app(tmp_path):
    return shutil.copytree(ROOT / "app", tmp_path / "app")


@pytest.fixture
def image(registry, app, tmp_path, monkeypatch):
    module = load_ext("runners/image.py")
    context = load_ext("utils/image_context.py")
    http = load_ext("utils/registry.py")
    pillar = {
        "platform": {
            "image": {"name": "debian-12-amd64-*"},
            "registry": {"push": f"{registry.host}/f1/vote", "pull": "docker.io/f1/vote"},
            "app": {"digest": None},
        },
        "versions": {"images": {"python": {"name": f"{registry.host}/python", "digest": BASE}}},
    }
    module.__utils__ = {
        "knobs.load": lambda: pillar,
        "knobs.state_dir": lambda: tmp_path / "state",
        "registry.digest": http.digest,
        "registry.split": http.split,
        "image_context.key": context.key,
        "image_context.architecture": context.architecture,
        "image_context.cache_dir": lambda: tmp_path / "cache",
        "image_context.context": lambda *_: b"",
    }
    monkeypatch.setattr(module, "APP", app)
    monkeypatch.setattr(module, "_commit", lambda: "a" * 40)
    module.pillar = pillar
    return module


def written(tmp_path):
    return yaml.safe_load((tmp_path / "state" / "pillar" / "app.sls").read_text())


def test_built_once_pushed_once_remembered(image, engine, registry, tmp_path):
    first = image.present()
    name = image.tag()
    assert first["result"] is True
    assert first["digest"] == digest(registry.manifests[f"f1/vote:{name}"])
    assert first["changes"] == {"image": {"old": None, "new": first["digest"]}}
    assert first["reference"] == f"docker.io/f1/vote@{first['digest']}"
    assert written(tmp_path) == {"platform": {"app": {"digest": first["digest"]}}}
    assert engine.done == [
        f"build {registry.host}/python@{BASE}", "tag " + "a" * 40, "push " + "a" * 40,
        f"push {name}",
    ]  # fmt: skip

    engine.done.clear()
    image.pillar["platform"]["app"]["digest"] = first["digest"]
    began = time.monotonic()
    second = image.present()
    assert time.monotonic() - began < 1
    assert (second["changes"], second["digest"]) == ({}, first["digest"])
    assert engine.done == []


def test_what_the_registry_holds_needs_no_engine(image, registry, monkeypatch, tmp_path):
    def none(**_):
        raise DockerException("no engine")

    monkeypatch.setattr("docker.from_env", none)
    registry.manifests[f"f1/vote:{image.tag()}"] = b"{}"
    # The pillar was lost, the registry was not.
    assert image.present()["changes"]["image"]["new"] == digest(b"{}")
    assert written(tmp_path)["platform"]["app"]["digest"] == digest(b"{}")


def test_a_plan_touches_nothing(image, engine, registry, tmp_path):
    planned = image.present(test=True)
    assert planned["result"] is None
    assert planned["changes"] == {"image": {"old": None, "new": image.tag()}}
    registry.manifests[f"f1/vote:{image.tag()}"] = b"{}"
    assert image.present(test=True)["result"] is None
    assert engine.done == []
    assert not (tmp_path / "state").exists()


def test_another_content_is_another_image(image, app):
    before = image.tag()
    (app / "f1vote" / "__pycache__").mkdir(exist_ok=True)
    (app / "f1vote" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (app / "notes.txt").write_text("not in the image")
    assert image.tag() == before
    page = app / "f1vote" / "templates" / "poll.html"
    page.write_text(page.read_text() + " ")
    edited = image.tag()
    image.pillar["versions"]["images"]["python"]["digest"] = "sha256:" + "c" * 64
    rebased = image.tag()
    image.pillar["platform"]["image"]["name"] = "debian-12-arm64-*"
    assert len({before, edited, rebased, image.tag()}) == 4


def test_a_push_that_failed_in_the_stream_is_a_failure(image, engine, tmp_path):
    engine.push_error = {"errorDetail": {"message": "denied: requested access"}, "error": "denied"}
    with pytest.raises(SaltException, match=r"cannot be pushed .*denied; run `docker login 127"):
        image.present()
    assert not (tmp_path / "state").exists()


def test_a_push_that_the_registry_does_not_confirm_is_a_failure(image, engine):
    engine.loses_push = True
    with pytest.raises(SaltException, match="but the registry gives nothing"):
        image.present()


@pytest.mark.parametrize(
    ("told", "fix"),
    [
        ("write /x: no space left on device", "docker system prune"),
        ("COPY failed: file not found in build context", "COPY failed"),
    ],
)
def test_a_build_that_failed(image, engine, told, fix):
    engine.build_lines = [{"stream": "Step 3/9 : COPY site /app/site"}, {"error": told}]
    with pytest.raises(SaltException) as raised:
        image.present()
    assert told in str(raised.value)
    assert fix in str(raised.value)
    assert "Step 3/9" in str(raised.value)


def test_a_base_that_is_not_there(image, engine):
    engine.has_base = False
    engine.pull_error = NotFound("manifest unknown")
    with pytest.raises(SaltException, match=r"base image .*; correct versions\.images\.python"):
        image.present()


def test_a_base_that_needs_a_login(image, engine):
    engine.has_base = False
    engine.pull_error = APIError("unauthorized: authentication required")
    with pytest.raises(SaltException, match="run `docker login"):
        image.present()


def test_no_engine(image, monkeypatch):
    def none(**_):
        raise DockerException("Error while fetching server API version")

    monkeypatch.setattr("docker.from_env", none)
    with pytest.raises(SaltException, match=r"no Docker engine answers.*DOCKER_HOST"):
        image.present()


def test_all_that_the_pillar_lacks_is_told_at_once(image):
    image.pillar["platform"]["registry"] = {"push": None, "pull": None}
    image.pillar["versions"] = {}
    with pytest.raises(SaltException) as raised:
        image.present()
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        "platform.registry.push", "platform.registry.pull",
        "versions.images.python.name", "versions.images.python.digest",
    ]  # fmt: skip
