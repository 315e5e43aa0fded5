"""``registries.yaml`` of K3s → ``hosts.toml`` files and credentials for containerd 1.6.

Formats: k3s-io/docs ``docs/installation/private-registry.md``; containerd ``docs/hosts.md``.
Not offered: ``rewrite`` (containerd needs K3s's own patch for it).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .config import ConfigError

AUTH_KEYS = ("username", "password", "auth", "identity_token")
TLS_PATHS = ("ca_file", "cert_file", "key_file")
TLS_KEYS = (*TLS_PATHS, "insecure_skip_verify")


@dataclass(frozen=True)
class Registries:
    """Endpoints by registry, then TLS and credentials by the host they are for."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    auth: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _keys(where: str, value: Any, allowed: tuple[str, ...], problems: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(f"{where}: must be a mapping")
        return {}
    for key in value:
        if key == "rewrite":
            problems.append(f"{where}: rewrite: K3s has it, the stand-in does not")
        elif key not in allowed:
            problems.append(f"{where}: {key}: unknown; one of {', '.join(allowed)} expected")
    return {key: value[key] for key in allowed if value.get(key) is not None}


def _endpoints(where: str, value: Any, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        problems.append(f"{where}: endpoint: must be a list of URLs")
        return ()
    for item in value:
        parts = urlsplit(item)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            problems.append(f"{where}: endpoint: {item!r} is not http(s)://<host>[:port][/path]")
    return tuple(item.rstrip("/") for item in value)


def load(path: Path) -> Registries:
    """Read ``registries.yaml``; without the file there are none.

    Raises:
        ConfigError: with every problem of the file.
    """
    if not path.exists():
        return Registries()
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        # PyYAML's text shows the line, which may hold a password: only its place is said.
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else type(error).__name__
        raise ConfigError([f"{path}: cannot be read as YAML: {place}"]) from None
    problems: list[str] = []
    top = _keys(str(path), data, ("mirrors", "configs"), problems)
    mirrors: dict[str, tuple[str, ...]] = {}
    tls: dict[str, dict[str, Any]] = {}
    auth: dict[str, dict[str, str]] = {}
    for name, value in _mapping(path, top, "mirrors", problems).items():
        where = f"{path}: mirrors.{name}"
        mirror = _keys(where, value, ("endpoint",), problems)
        mirrors[name] = _endpoints(where, mirror.get("endpoint", []), problems)
    for name, value in _mapping(path, top, "configs", problems).items():
        where = f"{path}: configs.{name}"
        config = _keys(where, value, ("auth", "tls"), problems)
        auth[name] = _keys(f"{where}.auth", config.get("auth"), AUTH_KEYS, problems)
        tls[name] = _keys(f"{where}.tls", config.get("tls"), TLS_KEYS, problems)
        if name == "*" and auth[name]:
            problems.append(f"{where}.auth: K3s has it, the stand-in does not: name the host")
        problems += [
            f"{where}.tls.{key}: {tls[name][key]} does not exist"
            for key in TLS_PATHS
            if key in tls[name] and not Path(str(tls[name][key])).is_file()
        ]
        if ("cert_file" in tls[name]) != ("key_file" in tls[name]):
            problems.append(f"{where}.tls: cert_file and key_file belong together")
    if problems:
        raise ConfigError(problems)
    return Registries(mirrors, tls, auth)


def _mapping(path: Path, top: dict[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    value = top.get(key, {})
    if not isinstance(value, dict):
        problems.append(f"{path}: {key}: must be a mapping of registry to settings")
        return {}
    return {str(name): settings for name, settings in value.items()}


def _default(name: str) -> str:
    return f"https://{'registry-1.docker.io' if name == 'docker.io' else name}"


def _tls_lines(registries: Registries, host: str, indent: str) -> list[str]:
    tls = registries.tls.get(host, registries.tls.get("*", {}))
    lines = []
    if "ca_file" in tls:
        lines.append(f"ca = [{json.dumps(tls['ca_file'])}]")
    if "cert_file" in tls:
        lines.append(f"client = [[{json.dumps(tls['cert_file'])}, {json.dumps(tls['key_file'])}]]")
    if tls.get("insecure_skip_verify"):
        lines.append("skip_verify = true")
    return [indent + line for line in lines]


def hosts(registries: Registries) -> dict[str, str]:
    """The ``hosts.toml`` of each registry, by the name of its folder under ``certs.d``.

    As with K3s, the registry's own address comes last, after its mirrors.
    """
    files = {}
    for name in sorted({*registries.mirrors, *registries.tls}):
        lines = []
        if name != "*":
            host = urlsplit(_default(name)).netloc
            lines += [f'server = "{_default(name)}/v2"', 'capabilities = ["pull", "resolve"]']
            lines += _tls_lines(registries, name if name in registries.tls else host, "")
        for url in registries.mirrors.get(name, ()):
            parts = urlsplit(url)
            own_path = parts.path not in {"", "/v2"}
            base = url if own_path else f"{parts.scheme}://{parts.netloc}/v2"
            if name != "*" and base == f"{_default(name)}/v2":
                continue  # it is tried in any case, at the end
            lines += ["", f"[host.{json.dumps(base)}]", '  capabilities = ["pull", "resolve"]']
            lines += ["  override_path = true"] if own_path else []
            lines += _tls_lines(registries, parts.netloc, "  ")
        if lines:
            files["_default" if name == "*" else name] = "\n".join(lines) + "\n"
    return files


def credentials(registries: Registries) -> dict[str, dict[str, str]]:
    """Credentials by host, with the keys that containerd's CRI plugin knows."""
    names = {"identity_token": "identitytoken"}
    return {
        "registry-1.docker.io" if host == "docker.io" else host: {
            names.get(key, key): str(value) for key, value in auth.items()
        }
        for host, auth in registries.auth.items()
        if auth
    }
