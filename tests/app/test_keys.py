"""Another key signs the cookies: who comes back stays who he is, without the old one."""

from collections.abc import Iterator

import pytest

from f1vote import ballot, codes
from tests.app.organised import organised
from tests.app.servers import COOKIE, App, Redis

CODE_COOKIE = "__Host-f1code-invited"
OLD = b"the key before, of 32 bytes or more"


@pytest.fixture(scope="module")
def site(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("keys")
    app = organised(folder, redis_server.url, older_key=OLD)
    yield app
    app.stop()


@pytest.mark.parametrize("path", ["/sprint", "/api/polls/sprint"])
def test_a_ballot_of_the_old_key_is_signed_anew(site, path):
    name, old = ballot.issue([OLD])
    with site.browser() as voter:
        voter.cookies.set(COOKIE, old)
        given = voter.get(path).headers["set-cookie"].partition("=")[2].partition(";")[0]
        assert ballot.read([site.key], given) == name
    with site.browser() as voter:
        voter.cookies.set(COOKIE, given)
        assert "set-cookie" not in voter.get(path).headers


@pytest.mark.parametrize("path", ["/invited", "/api/polls/invited"])
def test_so_is_a_one_time_code(site, path):
    (code,) = codes.make(1)
    _, mine = ballot.issue([site.key])
    with site.browser() as voter:
        voter.cookies.set(COOKIE, mine)
        voter.cookies.set(CODE_COOKIE, ballot.sign_code([OLD], "invited", code))
        name, _, given = voter.get(path).headers["set-cookie"].partition(";")[0].partition("=")
        assert name == CODE_COOKIE
        assert ballot.read_code([site.key], "invited", given) == code
    with site.browser() as voter:
        voter.cookies.set(COOKIE, mine)
        voter.cookies.set(CODE_COOKIE, given)
        assert "set-cookie" not in voter.get(path).headers
