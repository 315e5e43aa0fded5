"""What a voter would find: is a vote counted behind the domain?"""

from typing import Any

from salt.exceptions import SaltException

__utils__: dict[str, Any]


def vote(seconds: float = 60) -> str:
    """
    Cast one vote through the domain, see it counted, withdraw it; say so in one sentence.

    ``seconds`` bounds the wait for the page. Raises SaltException with what was seen instead.

    CLI Example:

    .. code-block:: bash

        salt-run proof.vote
    """
    page = _page()
    try:
        seen = __utils__["voter.prove"](**page, seconds=seconds)
    except Exception as error:
        raise SaltException(f"proof: {error}") from error
    return f"{page['url']} counted one vote for {seen['choice']} and let it go again"


def _page() -> dict[str, Any]:
    """Return where the page is and how it is reached, as ``voter.Voter`` takes it."""
    knobs = __utils__["knobs.load"]()["platform"]
    proof, domain = knobs["proof"], knobs["domain"]
    return {
        "url": proof["url"] or f"https://{domain}",
        "domain": domain,
        "verify_tls": proof["verify_tls"],
    }
