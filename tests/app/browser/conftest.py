"""One Chromium, one app with polls of its own, and visitors."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.app.browser import polls
from tests.app.browser.chromium import Visitor, browser
from tests.app.servers import App, Redis


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="session")
def site(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("site")
    # All visitors come from one address: to the guard a crowd.
    app = App(folder, redis_server.url, polls=polls.write(folder / "polls"), F1_CHALLENGE="never")
    yield app
    app.stop()


@pytest.fixture
def visitor(chromium: Browser, site: App, redis_server: Redis) -> Iterator[Callable[..., Visitor]]:
    """Return new visitors; nobody has voted yet. None of their pages may misbehave."""
    redis_server.client.flushall()
    visitors: list[Visitor] = []

    def new(**tastes: Any) -> Visitor:
        visitors.append(Visitor(chromium, site.url, **tastes))
        return visitors[-1]

    yield new
    for one in visitors:
        one.close()
