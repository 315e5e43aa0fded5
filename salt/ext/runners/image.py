"""
The image of the vote app: built once for a content, pushed, and believed only once the registry
gives its digest back.

Its tag is ``c-`` and a hash of everything it is made of. If the registry holds that tag, nothing
is built and no Docker engine is needed.
"""

import functools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.errors import DockerException, NotFound
from salt.exceptions import SaltException

__utils__: dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
APP = ROOT / "app"
TAG_DIGITS = 16
# A registry or a disk may be silent that long between two lines (seconds).
SILENCE = 180

# What an engine or a registry says → what the operator can do about it.
FIXES = {
    "no space left": "the engine's disk is full; free some (docker system prune)",
    "unauthorized": "run `docker login {host}`",
    "authentication required": "run `docker login {host}`",
    "denied": "run `docker login {host}` as someone who may write there",
    "no basic auth credentials": "run `docker login {host}`",
    "connection refused": "check that {host} is up",
    "not found": "correct versions.images.python, or what {host} holds",
    "manifest unknown": "correct versions.images.python, or what {host} holds",
    "no such host": "check the name {host} and the network",
    "server gave http response": "{host} has no TLS; give it a certificate",
}


def present(test: bool = False) -> dict[str, Any]:
    """
    Make sure that the registry holds the image of this app, and the pillar its digest.

    Returns ``{"result", "changes", "comment", "digest", "reference"}``: ``digest`` is null with
    ``test`` if the image is not there yet, ``reference`` is what the nodes pull. Raises
    SaltException.

    CLI Example:

    .. code-block:: bash

        salt-run image.present
        salt-run image.present test=True
    """
    knobs = _knobs()
    name = tag()
    old = knobs["app"].get("digest")
    digest = __utils__["registry.digest"](knobs["push"], name)
    if digest is None:
        if test:
            changes = {"image": {"old": old, "new": name}}
            return _result(None, changes, f"{name} would be built and pushed", None, knobs)
        build()
        digest = push()
    changes = {} if digest == old else {"image": {"old": old, "new": digest}}
    if changes and not test:
        _remember(digest)
    comment = f"{knobs['push']} holds {name}"
    return _result(None if test and changes else True, changes, comment, digest, knobs)


def tag() -> str:
    """
    Return the tag of this app's image: ``c-`` and a hash of what it is made of.

    CLI Example:

    .. code-block:: bash

        salt-run image.tag
    """
    knobs = _knobs()
    digits: str = __utils__["image_context.key"](APP, knobs["base"]["digest"], knobs["arch"])
    return f"c-{digits[:TAG_DIGITS]}"


def build() -> str:
    """
    Build this app's image in the Docker engine and return its local name. Raises SaltException.

    CLI Example:

    .. code-block:: bash

        salt-run image.build
    """
    knobs, name = _knobs(), tag()
    base = f"{knobs['base']['name']}@{knobs['base']['digest']}"
    engine = _engine()
    _fetch(engine, base, knobs["arch"])
    local = f"{knobs['push']}:{name}"
    context = __utils__["image_context.context"](
        APP, knobs["arch"], __utils__["image_context.cache_dir"]()
    )
    _follow(
        "the image cannot be built",
        local,
        lambda: engine.api.build(
            fileobj=context,
            custom_context=True,
            tag=local,
            buildargs={"BASE": base, "VERSION": name},
            platform=f"linux/{knobs['arch']}",
            rm=True,
            forcerm=True,
            decode=True,
        ),
    )
    commit = _commit()
    if commit:
        engine.images.get(local).tag(knobs["push"], commit)
    return local


def push() -> str:
    """
    Push this app's image and return the digest that the registry then gives for it.

    The Docker SDK does not raise when a push fails: the stream is read for errors, and the
    registry itself has the last word. Raises SaltException.

    CLI Example:

    .. code-block:: bash

        salt-run image.push
    """
    knobs, name = _knobs(), tag()
    engine, sent = _engine(), None
    for one in filter(None, (_commit(), name)):  # the tag that `present` trusts comes last
        sent = _follow(
            "the image cannot be pushed",
            f"{knobs['push']}:{one}",
            functools.partial(engine.api.push, knobs["push"], tag=one, stream=True, decode=True),
        )
    held: str | None = __utils__["registry.digest"](knobs["push"], name)
    if held is None or held != sent:
        raise SaltException(
            f"the engine pushed {knobs['push']}:{name} as {sent}, but the registry gives "
            f"{held or 'nothing'} for it; run it again"
        )
    return held


def _knobs() -> dict[str, Any]:
    """Return what this module needs of the pillar; raise SaltException with all that it lacks."""
    pillar = __utils__["knobs.load"]()
    platform = pillar["platform"]
    base = pillar["versions"].get("images", {}).get("python") or {}
    wrong = [
        f"platform.registry.{key}: set the repository of the app's image, such as ghcr.io/me/f1vote"
        for key in ("push", "pull")
        if not platform["registry"].get(key)
    ]
    wrong += [
        f"versions.images.python.{key}: missing; lock the base image"
        for key in ("name", "digest")
        if not base.get(key)
    ]
    if wrong:
        raise SaltException("\n".join(wrong))
    return {
        "push": platform["registry"]["push"],
        "pull": platform["registry"]["pull"],
        "app": platform.get("app") or {},
        "base": base,
        "arch": __utils__["image_context.architecture"](platform),
    }


def _engine() -> docker.DockerClient:
    try:
        engine = docker.from_env(timeout=SILENCE)
        engine.ping()
    except DockerException as error:
        raise SaltException(
            f"no Docker engine answers: {error}; start Docker, or set DOCKER_HOST"
        ) from error
    return engine


def _fetch(engine: docker.DockerClient, base: str, arch: str) -> None:
    """Make sure that the engine holds ``base`` for ``arch``."""
    try:
        if engine.images.get(base).attrs.get("Architecture") == arch:
            return
    except NotFound:
        pass
    _follow(
        "the base image cannot be pulled",
        base,
        lambda: engine.api.pull(base, stream=True, decode=True, platform=f"linux/{arch}"),
    )


def _follow(what: str, image: str, start: Callable[[], Iterator[dict[str, Any]]]) -> str | None:
    """Read an engine's stream to its end; return the digest it names, raise what it tells."""
    digest, said = None, ""
    try:
        for line in start():
            if "error" in line or "errorDetail" in line:
                told = line.get("error") or line["errorDetail"].get("message", "")
                raise _failure(what, f"{told} (after: {said})" if said else told, image)
            said = line.get("stream", "").strip() or said
            digest = (line.get("aux") or {}).get("Digest") or digest
    except (DockerException, OSError) as error:
        raise _failure(what, str(error), image) from error
    return digest


def _failure(what: str, told: str, image: str) -> SaltException:
    host = __utils__["registry.split"](image)[0]
    fixes = [fix.format(host=host) for sign, fix in FIXES.items() if sign in told.lower()]
    return SaltException("; ".join([f"{what} ({image}): {told}", *fixes[:1]]))


def _commit() -> str | None:
    """Return the commit of this tree; None if the app is not exactly what it says."""

    def git(*arguments: str) -> str | None:
        try:
            ended = subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30
            )
        except OSError:
            return None
        return ended.stdout.strip() if ended.returncode == 0 else None

    return git("rev-parse", "HEAD") if git("status", "--porcelain", "--", "app") == "" else None


def _remember(digest: str) -> None:
    """Write the pillar file that shadows ``salt/pillar/app.sls``."""
    file = __utils__["knobs.state_dir"]() / "pillar" / "app.sls"
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".new")
    written.write_text(yaml.safe_dump({"platform": {"app": {"digest": digest}}}))
    written.replace(file)


def _result(
    result: bool | None,
    changes: dict[str, Any],
    comment: str,
    digest: str | None,
    knobs: dict[str, Any],
) -> dict[str, Any]:
    return {
        "result": result,
        "changes": changes,
        "comment": comment,
        "digest": digest,
        "reference": f"{knobs['pull']}@{digest}" if digest else None,
    }
