"""
The command line: ``python -m f1vote <command>``. It speaks the language of ``LANG``.

Exit codes: 0 done, 1 refused (or a check failed), 2 what it was given is wrong, 3 Redis is silent.
"""

import argparse
import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from nacl.signing import VerifyKey

from f1vote import codes, export, polls, settings
from f1vote.admin import DONE, Done, Organiser, Refused
from f1vote.explained import Explained
from f1vote.i18n import Texts, _, negotiate
from f1vote.pages import STATES
from f1vote.polls import LANGUAGES, Poll
from f1vote.problems import Problems
from f1vote.receipts import show
from f1vote.settings import Settings
from f1vote.store import Standing, Store, Unreachable

FINE, REFUSED, WRONG, SILENT = range(4)
STDOUT = "-"

# The verbs that need nothing but a poll, and what they do.
VERBS = {
    "open": _("take votes from now on"),
    "close": _("take no more votes from now on"),
    "revert": _("open and close as the poll’s file says"),
    "freeze": _("pause: take no votes until unfreeze"),
    "unfreeze": _("end the pause"),
    "hide": _("show the results to nobody until show"),
    "show": _("show the results to whom the poll’s file says"),
    "recount": _("count every vote again"),
}


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Do what ``arguments`` ask for; return the exit code. Raises SystemExit(2) on wrong usage."""
    tool = _Tool(environ)
    options = _parser(tool.say).parse_args(arguments)
    tool.as_json = getattr(options, "json", False)
    run: Callable[[_Tool, argparse.Namespace], int] = options.run
    try:
        return run(tool, options)
    except Explained as refused:
        tool.fail(refused.say(tool.texts, tool.language))
        return REFUSED
    except Problems as problems:
        tool.fail(*problems.lines)
        return WRONG
    except OSError as error:
        tool.fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return WRONG
    except Unreachable as error:
        tool.fail(tool.say(_("Redis does not answer: {error}"), error=error))
        return SILENT


class _Tool:
    """The settings of a run, and how it speaks."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.texts = Texts()
        # POSIX: the first of them that is set decides (XBD 8.2).
        named = next(
            (value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environ.get(name))),
            "",
        )
        self.language = negotiate(named[:2].lower(), "")
        self.say = partial(self.texts.get, self.language)
        self.as_json = False

    def tell(self, value: Any, *lines: str) -> None:
        """Print ``value`` as JSON if that was asked for, else ``lines``."""
        print(json.dumps(value, ensure_ascii=False) if self.as_json else "\n".join(lines))

    def fail(self, *lines: str) -> None:
        """Say on standard error what went wrong; a program reads it as JSON."""
        if self.as_json:
            print(json.dumps({"error": "\n".join(lines)}, ensure_ascii=False))
        else:
            print(*lines, sep="\n", file=sys.stderr)

    def settings(self) -> Settings:
        """Return the settings of the environment; raise Problems."""
        return settings.load(self.environ)

    @asynccontextmanager
    async def desk(self, options: argparse.Namespace) -> AsyncIterator["_Desk"]:
        """Give what an organiser needs, and close it."""
        given = self.settings()
        known = {poll.id: poll for poll in polls.load(given.polls_dir)}
        store = Store(given.redis_url, known.values(), given.redis_password)
        try:
            yield _Desk(store, given, known, options.by)
        finally:
            await store.close()


class _Desk:
    def __init__(
        self, store: Store, given: Settings, known: Mapping[str, Poll], by: str | None
    ) -> None:
        self.store, self.settings, self.polls, self._by = store, given, known, by

    def organiser(self) -> Organiser:
        """Return who acts; raise Refused if that is not known."""
        return Organiser(self.store, self.settings, self._by or _user())

    def poll(self, name: str) -> Poll:
        """Return the poll ``name``; raise Refused if there is none."""
        if name not in self.polls:
            raise Refused(
                _("There is no poll {name}. There are: {polls}"),
                name=name,
                polls=", ".join(self.polls),
            )
        return self.polls[name]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # in a pod nobody has a name


# admin


def _admin(tool: _Tool, options: argparse.Namespace) -> int:
    return asyncio.run(_act(tool, options))


async def _act(tool: _Tool, options: argparse.Namespace) -> int:
    async with tool.desk(options) as desk:
        verb = options.verb
        if verb == "log":
            return await _log(tool, desk, options.count)
        if verb == "status":
            return await _status(tool, desk, options.poll)
        poll = desk.poll(options.poll)
        if verb == "bursts":
            return await _bursts(tool, desk, poll)
        if verb == "export":
            return await _export(desk, poll, options)
        done = await _do(desk.organiser(), poll, options)
        standing = await desk.store.standing(poll)
        tool.tell(
            {"done": done.verb, "n": done.n, **_standing(poll, standing)},
            tool.say(DONE[done.verb], n=done.n),
            _line(tool, poll, standing),
        )
        # A recount that differs is no success.
        return REFUSED if done.verb == "recount" and done.n else FINE


async def _do(organiser: Organiser, poll: Poll, options: argparse.Namespace) -> Done:
    if options.verb == "extend":
        return await organiser.extend(poll, options.until)
    if options.verb == "reset":
        return await organiser.reset(poll, options.confirm)
    if options.verb == "admit":
        text = sys.stdin.read() if options.file == STDOUT else Path(options.file).read_text("utf-8")
        return await organiser.admit(poll, text.splitlines())
    verbs: dict[str, Any] = {verb: getattr(organiser, verb) for verb in VERBS}
    done: Done = await verbs[options.verb](poll)
    return done


async def _status(tool: _Tool, desk: _Desk, name: str | None) -> int:
    chosen = [desk.poll(name)] if name else list(desk.polls.values())
    standings = [(poll, await desk.store.standing(poll)) for poll in chosen]
    lines = [_line(tool, poll, standing) for poll, standing in standings]
    if name:
        ((poll, standing),) = standings
        labels = {choice.code: choice.label(tool.language) for choice in poll.choices}
        for code, points in sorted(standing.points.items(), key=lambda pair: -pair[1]):
            lines.append(f"{tool.texts.number(tool.language, points):>12}  {code}  {labels[code]}")
    tool.tell([_standing(poll, standing) for poll, standing in standings], *lines)
    return FINE


async def _bursts(tool: _Tool, desk: _Desk, poll: Poll) -> int:
    found = await desk.store.bursts(poll)
    tool.tell(
        [vars(burst) for burst in found],
        *(
            f"{_iso(burst.first)} – {_iso(burst.last)}  {burst.fresh} (+{burst.challenged})  "
            + ", ".join(f"{code} {n}" for code, n in burst.choices.items())
            for burst in found
        ),
    )
    return FINE


async def _log(tool: _Tool, desk: _Desk, count: int) -> int:
    entries = await desk.store.log(count)
    tool.tell(
        [vars(entry) for entry in entries],
        *(
            f"{_iso(entry.at)}  {entry.who}  {entry.action}  {json.dumps(entry.facts)}"
            for entry in entries
        ),
    )
    return FINE


async def _export(desk: _Desk, poll: Poll, options: argparse.Namespace) -> int:
    with _written(options.out, 0o644) as file:
        async for piece in await desk.organiser().export(poll, options.kind):
            file.write(piece)
    return FINE


# codes


def _codes(tool: _Tool, options: argparse.Namespace) -> int:
    return asyncio.run(_make_codes(tool, options))


async def _make_codes(tool: _Tool, options: argparse.Namespace) -> int:
    async with tool.desk(options) as desk:
        poll = desk.poll(options.poll)
        url = options.url or desk.settings.public_url
        if not url:
            raise Refused(_("Give the voters’ address, https://vote.example.org, with --url."))
        if not options.sheet and not options.csv:
            raise Refused(_("Say where to write the codes: --sheet or --csv."))
        # The files before the codes: what is admitted must not be lost.
        with ExitStack() as files:
            sheet, table = (
                files.enter_context(_written(name, 0o600)) if name else None
                for name in (options.sheet, options.csv)
            )
            made = await desk.organiser().make_codes(poll, options.count)
            if sheet:
                text = codes.sheet(poll, made, url, options.language, tool.texts)
                sheet.write(text.encode())
            if table:
                rows = [f"{shown},{url}/{poll.id}?code={shown}" for shown in map(show, made)]
                table.write("\r\n".join(["code,address", *rows, ""]).encode())
    return FINE


# Files


def _check(tool: _Tool, options: argparse.Namespace) -> int:
    found = polls.load(Path(options.folder))
    tool.tell([poll.id for poll in found], *(poll.id for poll in found))
    return FINE


def _verify(tool: _Tool, options: argparse.Namespace) -> int:
    key = _verify_key(tool, options.key)
    checked = export.verify(Path(options.file), key)
    tool.tell(
        vars(checked),
        tool.say(
            _("{poll}, {at}: {voters} votes, their sum is the standing"),
            poll=checked.poll, at=checked.at, voters=checked.voters,
        ),
    )  # fmt: skip
    if checked.signature == "good":
        return FINE
    if checked.signature == "absent":
        raise Refused(_("The file is not signed: anybody can have made it."))
    raise Refused(
        _("The signature was not checked: give the platform’s public key, --key export-key.pem.")
    )


def _verify_key(tool: _Tool, file: str | None) -> VerifyKey | None:
    """Return the key of ``file``, else our own; None if there is neither."""
    if file:
        try:
            return export.read_key(Path(file).read_text("ascii"))
        except ValueError as error:
            raise Refused(_("{file} holds no public key of Ed25519 in PEM"), file=file) from error
    if not tool.environ.get("F1_SIGN_KEY_FILE"):
        return None
    secret = Path(tool.environ["F1_SIGN_KEY_FILE"]).read_bytes().strip()
    return export.signing_key(secret).verify_key


@contextmanager
def _written(name: str, mode: int) -> Iterator[BinaryIO]:
    """
    Open a new file ``name`` with the permissions ``mode``, or standard output if it is ``-``.

    An existing file is never written over; one that could not be finished is removed.
    """
    if name == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        try:
            yield file
        except BaseException:
            Path(name).unlink()
            raise


# What is printed


def _standing(poll: Poll, standing: Standing) -> dict[str, Any]:
    return {
        "poll": poll.id,
        "state": standing.state,
        "opens": standing.opens,
        "closes": standing.closes,
        "hidden": standing.hidden,
        "voters": standing.voters,
        "points": standing.points,
    }


def _line(tool: _Tool, poll: Poll, standing: Standing) -> str:
    parts = [
        poll.id,
        tool.say(STATES[standing.state]),
        tool.texts.plural(tool.language, "{n} vote", "{n} votes", standing.voters),
    ]
    if standing.closes:
        moment = tool.texts.moment(tool.language, standing.closes)
        past = standing.state == "closed"
        text = _("Closed on {moment}") if past else _("Closes on {moment}")
        parts.append(tool.say(text, moment=moment))
    if standing.hidden:
        parts.append(tool.say(_("Results hidden")))
    return " · ".join(parts)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# What may be asked


def _parser(say: Callable[..., str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("f1vote", description=say(_("Run a vote, and serve it.")))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=say(what), description=say(what))
        made.set_defaults(run=run)
        return made

    # Done by __main__, and named here so that the help knows it.
    command("serve", _("serve the vote until SIGTERM"), lambda *_: WRONG)

    check = command("check", _("check the poll files of a folder"), _check)
    check.add_argument("folder", metavar="FOLDER")

    verify = command("verify", _("check an export: signature, hashes, sums"), _verify)
    verify.add_argument("file", metavar="FILE")
    verify.add_argument("--key", metavar="FILE", help=say(_("the platform’s public key, PEM")))
    _add_json(verify, say)

    made = command("codes", _("one-time codes"), _codes).add_subparsers(
        required=True, metavar="VERB"
    )
    make = made.add_parser("make", help=say(_("make codes and a sheet to print")))
    make.add_argument("poll", metavar="POLL")
    make.add_argument("--count", type=int, required=True, metavar="N")
    make.add_argument("--sheet", metavar="FILE", help=say(_("a page to print; - is stdout")))
    make.add_argument("--csv", metavar="FILE", help=say(_("a table; - is stdout")))
    make.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0])
    make.add_argument("--url", help=say(_("the voters’ address, if F1_PUBLIC_URL is not set")))
    _add_by(make, say)

    verbs = command("admin", _("what an organiser may do"), _admin).add_subparsers(
        required=True, metavar="VERB", dest="verb"
    )

    def verb(name: str, what: str, poll: str | None = None) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=say(what), description=say(what))
        if name != "log":
            added.add_argument("poll", metavar="POLL", nargs=poll)
        _add_by(added, say)
        _add_json(added, say)
        return added

    verb("status", _("the state of a poll, or of all"), "?")
    for name, what in VERBS.items():
        verb(name, what)
    extend = verb("extend", _("close at another time, or open again until then"))
    extend.add_argument("until", metavar="UNTIL", help="2026-03-08T15:00Z, +30m, +2h, +1d")
    reset = verb("reset", _("remove every vote"))
    reset.add_argument(
        "--confirm", metavar="POLL", default="", help=say(_("the poll’s name once more"))
    )
    admit = verb("admit", _("admit one-time codes"))
    admit.add_argument("file", metavar="FILE", help=say(_("one code a line; - is stdin")))
    verb("bursts", _("the bursts that were marked"))
    log = verb("log", _("what organisers did, newest first"))
    log.add_argument("--count", type=int, default=100, metavar="N")
    out = verb("export", _("write the standing and every vote, signed"))
    out.add_argument("--kind", choices=export.KINDS, required=True)
    out.add_argument("--out", default=STDOUT, metavar="FILE", help=say(_("ZIP; - is stdout")))
    return parser


def _add_by(parser: argparse.ArgumentParser, say: Callable[..., str]) -> None:
    parser.add_argument("--by", metavar="NAME", help=say(_("who you are, for the log")))


def _add_json(parser: argparse.ArgumentParser, say: Callable[..., str]) -> None:
    parser.add_argument("--json", action="store_true", help=say(_("answer as JSON")))
