"""The last stage of ``up``: is a vote counted behind the domain?"""

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
    platform = __utils__["knobs.load"]()["platform"]
    url = platform["proof"]["url"] or f"https://{platform['domain']}"
    try:
        seen = __utils__["voter.prove"](
            url, platform["domain"], verify_tls=platform["proof"]["verify_tls"], seconds=seconds
        )
    except Exception as error:
        raise SaltException(f"proof: {error}") from error
    return f"{url} counted one vote for {seen['choice']} and let it go again"
