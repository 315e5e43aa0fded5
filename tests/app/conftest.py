"""One Redis and one app for the tests of this folder that do not break them."""

from collections.abc import Iterator

import pytest

from tests.app.organised import organised
from tests.app.servers import App, Redis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def running(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    app = App(tmp_path_factory.mktemp("app"), redis_server.url)
    yield app
    app.stop()


@pytest.fixture
def app(running: App, redis_server: Redis) -> App:
    """The running app, nobody has voted yet."""
    redis_server.client.flushall()
    return running


@pytest.fixture(scope="module")
def site(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app of its own for each file: polls in every state, an organiser with a token."""
    app = organised(tmp_path_factory.mktemp("site"), redis_server.url)
    yield app
    app.stop()


@pytest.fixture
def clean(site: App, redis_server: Redis) -> App:
    """That app, with nothing voted, decided or logged."""
    redis_server.client.flushall()
    return site
