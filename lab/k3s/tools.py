"""``k3s certificate``, ``k3s token`` and ``k3s secrets-encrypt``: what an operator asks or does.

K3s asks its server for tokens and encryption; the stand-in, on the same machine and as root, works
on the server's files. Output is K3s's (k3s-io/k3s ``pkg/cli/{cert,token,secretsencrypt}``).
"""

import argparse
import datetime
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import bootstrap, certificates, pki, tokens
from .config import ConfigError
from .host import write
from .supervisor import CommandFailed

DATA_DIR = "/var/lib/rancher/k3s"
KEEP_OLD = (
    "\033[33mWARNING\033[0m: Recommended to keep a record of the old token. If restoring from a "
    "snapshot, you must use the token associated with that snapshot."
)
LACKING = {
    "certificate": ("rotate-ca",),
    "token": ("create", "delete", "generate", "list"),
    "secrets-encrypt": ("enable", "disable", "prepare", "rotate", "rotate-keys", "reencrypt"),
}


def main(command: str, argv: Sequence[str]) -> int:
    """Run ``k3s <command> <subcommand> …``; give the exit status."""
    parser = argparse.ArgumentParser(prog=f"k3s {command}", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in LACKING[command]:
        verb = verbs.add_parser(name, help="K3s has it, the stand-in does not", add_help=False)
        verb.set_defaults(run=None, name=name)
    _VERBS[command](verbs)
    options, rest = parser.parse_known_args(argv)
    if options.run is None:
        where = f"k3s {command} {options.name}"
        print(f"{where}: K3s has it, the stand-in does not", file=sys.stderr)
        return 1
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (
        certificates.UnknownService,
        tokens.TokenError,
        CommandFailed,
        ConfigError,
        OSError,
    ) as error:
        print(_log("fatal", str(error)), file=sys.stderr)
        return 1


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=what, allow_abbrev=False)
    verb.add_argument("--data-dir", "-d", type=Path, default=Path(DATA_DIR))
    verb.set_defaults(run=run)
    return verb


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _log(level: str, message: str) -> str:
    return certificates.log_line(level, message, _now())


def _certificate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = _verb(verbs, "check", _check, "check component certificates on disk")
    check.add_argument("--output", "-o", choices=("text", "table", "json"), default="text")
    rotate = _verb(verbs, "rotate", _rotate, "rotate component certificates on disk")
    for verb in (check, rotate):
        verb.add_argument("--service", "-s", action="append", default=[], metavar="SERVICE,…")


def _services(options: argparse.Namespace, doing: str) -> tuple[str, ...]:
    named = [name for text in options.service for name in text.split(",")]
    if not named:
        what = "agent and server" if certificates.is_server(options.data_dir) else "agent"
        who = "Server" if certificates.is_server(options.data_dir) else "Agent"
        print(_log("info", f"{who} detected, {doing} {what} certificates"), file=sys.stderr)
    return certificates.services(options.data_dir, named)


def _check(options: argparse.Namespace) -> int:
    found = certificates.collect(options.data_dir, _services(options, "checking"))
    if options.output == "text":  # logged, as K3s does: to stderr
        print(certificates.as_text(found, _now()), file=sys.stderr)
    else:
        shape = {"json": certificates.as_json, "table": certificates.as_table}[options.output]
        print(shape(found, _now()))
    return 0


def _rotate(options: argparse.Namespace) -> int:
    names = _services(options, "rotating")
    kept = certificates.back_up(options.data_dir, names)
    for name in names:
        print(_log("info", f"Rotating certificates for {name}"), file=sys.stderr)
        certificates.remove(options.data_dir, [name])
    done = f"Successfully backed up certificates to {kept}, please restart k3s server or agent"
    print(_log("info", f"{done} to rotate certificates"), file=sys.stderr)
    return 0


def _token(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    rotate = _verb(verbs, "rotate", _rotate_token, "replace the server token")
    rotate.add_argument("--token", "-t", help="the token that is replaced ($K3S_TOKEN)")
    rotate.add_argument("--new-token", help="the one that replaces it; made if none is given")


def _rotate_token(options: argparse.Namespace) -> int:
    """Replace the server token in every file; the server obeys it from its next start on."""
    print(KEEP_OLD)
    server_dir = options.data_dir / "server"
    kept_file = server_dir / "token"
    kept = tokens.parse(kept_file.read_text())
    if options.token is not None and tokens.parse(options.token).secret != kept.secret:
        raise tokens.TokenError("not authorized: --token is not the server's token")
    new = tokens.parse(options.new_token or secrets.token_hex(16)).secret
    agent_file = server_dir / "agent-token"
    agent = tokens.parse(agent_file.read_text()).secret
    bootstrap.rotate(server_dir / "db/state.db", kept.secret, new)
    write(
        kept_file,
        tokens.full((server_dir / "tls/server-ca.crt").read_bytes(), "server", new) + "\n",
    )
    # An agent token of its own stays; one that is a link to the server's goes with it.
    pki.write_logins(server_dir / "cred", new, new if agent_file.is_symlink() else agent)
    print("Token rotated, restart k3s nodes with new token")
    return 0


def _secrets_encrypt(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = _verb(verbs, "status", _encryption_status, "how Secrets are encrypted at rest")
    status.add_argument("--output", "-o", choices=("text", "json"), default="text")


def _encryption_status(options: argparse.Namespace) -> int:
    cred = options.data_dir / "server/cred"
    if not cred.exists():
        raise FileNotFoundError(f"{cred} does not exist: is this a server that has been up?")
    path = cred / "encryption-config.json"
    if not path.exists():
        nothing = {"stage": "", "activekey": ""}
        said = "Encryption Status: Disabled, no configuration file found"
        print(json.dumps(nothing, indent="\t") if options.output == "json" else said)
        return 0
    providers = json.loads(path.read_text())["resources"][0]["providers"]
    keys = [key["name"] for one in providers for key in one.get("aescbc", {}).get("keys", [])]
    enabled = "aescbc" in providers[0]
    stage = (cred / "encryption-state.json").read_text().partition("-")[0]
    active, inactive = (keys[:1], keys[1:]) if enabled else ([], keys)
    if options.output == "json":
        state = {
            "stage": stage,
            "activekey": f"AES-CBC {active[0]}" if active else "",
            "enable": enabled,
            "hashmatch": True,
        }
        if inactive:
            state["inactivekeys"] = [f"AES-CBC {name}" for name in inactive]
        print(json.dumps(state, indent="\t"))
        return 0
    print(f"Encryption Status: {'Enabled' if enabled else 'Disabled'}")
    print(f"Current Rotation Stage: {stage}")
    print("Server Encryption Hashes: All hashes match\n")
    print("Active  Key Type  Name\n------  --------  ----")
    for mark, name in [(" *", name) for name in active] + [("", name) for name in inactive]:
        print(f"{mark:<8}AES-CBC   {name}")
    print()
    return 0


_VERBS = {
    "certificate": _certificate,
    "token": _token,
    "secrets-encrypt": _secrets_encrypt,
}
