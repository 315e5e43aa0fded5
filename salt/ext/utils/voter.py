"""
A voter without a browser: the smallest HTTP client that can vote and take it back.

It speaks to the address of ``url`` but says ``Host: <domain>``, so that the page can be reached
before the domain's DNS record has spread.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

# The poll in which the platform itself votes: unlisted, always open.
CANARY = "canary"


class Failed(Exception):
    """The page did not do what a voter may expect; the text says what it did instead."""


class Voter:
    """One voter in the poll ``CANARY``, with a cookie jar of their own."""

    def __init__(self, url: str, domain: str, *, verify_tls: bool = True, timeout: float = 10):
        self.url = url.rstrip("/")
        self.domain = domain
        context = ssl.create_default_context()
        if not verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._timeout = timeout
        self._cookies: dict[str, str] = {}
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def call(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """
        GET ``path``, or POST ``body`` to it as JSON; return (HTTP status, text).

        Raises OSError when nothing answers.
        """
        headers = {"Host": self.domain, "Accept": "application/json, text/html"}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self._cookies.items())
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers |= {"Content-Type": "application/json", "Origin": f"https://{self.domain}"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                self._keep(answer.headers.get_all("Set-Cookie") or [])
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def _keep(self, set_cookies: list[str]) -> None:
        # A cookie jar would compare the cookie's domain with the address and drop it.
        for line in set_cookies:
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value.strip()

    def wait_for_page(self, seconds: float) -> None:
        """Return when the poll's page answers; raise Failed with the last answer if it does not."""
        deadline = time.monotonic() + seconds
        last = "nothing yet"
        while time.monotonic() < deadline:
            try:
                status, text = self.call(f"/{CANARY}")
                if status == 200:
                    return
                last = f"HTTP {status}: {text[:200]}"
            except OSError as error:
                last = str(error)
            time.sleep(0.3)
        raise Failed(
            f"{self.url}/{CANARY} (host {self.domain}) gave no page in {seconds:.0f} s; "
            f"last seen: {last}"
        )

    def tally(self) -> dict[str, int]:
        """Return the votes by code of the choice."""
        path = f"/api/polls/{CANARY}/results"
        status, text = self.call(path)
        if status != 200:
            raise Failed(f"{path} answered HTTP {status}: {text[:200]}")
        return dict(json.loads(text)["points"])

    def vote(self, choice: str) -> None:
        """Vote for ``choice``; raise Failed if the page does not count it."""
        if not self._cookies:
            # The page gives the ballot: a vote without it is refused.
            self.wait_for_page(self._timeout)
        self._post("vote", {"choices": [choice]})

    def withdraw(self) -> None:
        """Take the vote back; raise Failed if the page does not."""
        self._post("withdraw", {})

    def _post(self, verb: str, body: dict[str, Any]) -> None:
        path = f"/api/polls/{CANARY}/{verb}"
        status, text = self.call(path, body)
        if status != 200:
            raise Failed(f"POST {path} answered HTTP {status}: {text[:200]}")


def prove(url: str, domain: str, *, verify_tls: bool, seconds: float) -> dict[str, Any]:
    """
    Vote once through ``url`` and take it back; return ``{choice, before, during, after}``, the
    tally of that choice at the three moments.

    The choice is the one with the fewest votes: there, one vote more is least likely to be
    mistaken for somebody else's. Raises Failed when the vote is not seen or does not go.
    """
    voter = Voter(url, domain, verify_tls=verify_tls)
    voter.wait_for_page(seconds)
    before = voter.tally()
    choice = min(before, key=lambda code: (before[code], code))
    voter.vote(choice)
    during = voter.tally()
    voter.withdraw()
    after = voter.tally()
    seen = {
        "choice": choice,
        "before": before[choice],
        "during": during[choice],
        "after": after[choice],
    }
    if not during[choice] > before[choice]:
        raise Failed(f"the vote was accepted but not counted: {seen}")
    if not after[choice] < during[choice]:
        raise Failed(f"the vote was counted but not withdrawn: {seen}")
    return seen
