"""Pushing, against a registry in this process."""

import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lab.build import oci, publish
from lab.build.oci import Config, Entry


class Registry(ThreadingHTTPServer):
    """As much of a registry as a push sees. ``lie`` maps a reference to the digest it tells."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.lie: str | None = None
        self.refuse: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_HEAD(self) -> None:
        self.server.asked.append(f"HEAD {self.path}")
        kind, reference = self.path.split("/")[-2:]
        if kind == "blobs":
            self.answer(200 if reference in self.server.blobs else 404)
            return
        data = self.server.manifests[reference]
        self.answer(200, Docker_Content_Digest=self.server.lie or digest(data))

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        self.body()
        self.answer(202, Location="/v2/uploads/1?state=x")  # relative, with a query of its own

    def do_PUT(self) -> None:
        self.server.asked.append(f"PUT {self.path}")
        data = self.body()
        if self.server.refuse and self.server.refuse in self.path:
            self.answer(507)
        elif match := re.fullmatch(r"/v2/uploads/1\?state=x&digest=(sha256:\w+)", self.path):
            self.server.blobs[match[1]] = data
            self.answer(201, Docker_Content_Digest=digest(data))
        else:
            assert self.headers["Content-Type"] == oci.MANIFEST
            self.server.manifests[self.path.rpartition("/")[2]] = data
            self.answer(201)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    oci.write_layer(tmp_path / "layer.tar", {"x": Entry(b"y" * 300_000)})
    target = tmp_path / "image"
    target.mkdir()
    oci.write_layout(target, "docker.io/a/b:1", [tmp_path / "layer.tar"], Config(), "amd64")
    return target


def test_push_gives_the_digest_that_the_registry_has(registry: Registry, image: Path):
    made = publish.push(image, registry.url, "a/b", "1")
    assert made == oci.read_layout(image).digest == digest(registry.manifests["1"])
    assert all(name == digest(data) for name, data in registry.blobs.items())
    assert len(registry.blobs) == 2


def test_blobs_are_not_sent_twice(registry: Registry, image: Path):
    publish.push(image, registry.url, "a/b", "1")
    registry.asked.clear()
    publish.push(image, registry.url, "a/b", "2")
    sent = [asked for asked in registry.asked if not asked.startswith("HEAD")]
    assert sent == ["PUT /v2/a/b/manifests/2"]


def test_another_digest_is_refused(registry: Registry, image: Path):
    registry.lie = f"sha256:{'0' * 64}"
    with pytest.raises(publish.PublishError, match=r"has sha256:0+, pushed was sha256"):
        publish.push(image, registry.url, "a/b", "1")


def test_refusal_is_told_with_its_status(registry: Registry, image: Path):
    registry.refuse = "/uploads/"
    with pytest.raises(publish.PublishError, match=r"PUT http://\S+/v2/uploads/1\S* 507"):
        publish.push(image, registry.url, "a/b", "1")
    assert not registry.manifests


def test_no_registry_is_told(image: Path):
    with pytest.raises(publish.PublishError, match="Connection refused"):
        publish.push(image, "http://127.0.0.1:1", "a/b", "1")
