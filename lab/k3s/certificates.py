"""The certificates on disk: ``k3s certificate check`` and ``rotate``, and renewal at start.

Names of services and files, output and limits are K3s's (k3s-io/k3s ``pkg/cli/cert/cert.go``,
``pkg/util/services``, ``pkg/util/cert.go``).
"""

import datetime
import json
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .supervisor import CommandFailed, run

RENEW_DAYS = 120
KUBELET_PKI = Path("/var/lib/kubelet/pki")
KUBELET_CLIENT = KUBELET_PKI / "kubelet-client-current.pem"

AGENT_SERVICES = ("kube-proxy", "kubelet", "k3s-controller")
SERVER_SERVICES = (
    "api-server",
    "admin",
    "auth-proxy",
    "cloud-controller",
    "controller-manager",
    "etcd",
    "scheduler",
    "supervisor",
    "k3s-server",
)
# What kubeadm makes, and K3s's names for it: hard links beside it.
NAMES = {
    "ca": ("server-ca", "client-ca"),
    "front-proxy-ca": ("request-header-ca",),
    "apiserver": ("serving-kube-apiserver",),
    "apiserver-kubelet-client": ("client-kube-apiserver",),
    "front-proxy-client": ("client-auth-proxy",),
}
# service → (name of the certificate, the file that kubeadm makes for it)
_TLS = {
    "api-server": (
        ("client-kube-apiserver", "apiserver-kubelet-client"),
        ("serving-kube-apiserver", "apiserver"),
    ),
    "auth-proxy": (("client-auth-proxy", "front-proxy-client"),),
    "admin": (("client-admin", "client-admin"),),
    "controller-manager": (("client-controller", "client-controller"),),
    "scheduler": (("client-scheduler", "client-scheduler"),),
}
_KUBECONFIGS = {
    "admin": "admin.kubeconfig",
    "controller-manager": "controller.kubeconfig",
    "scheduler": "scheduler.kubeconfig",
}


class UnknownService(Exception):
    """A name that is no service of K3s's."""


@dataclass(frozen=True)
class Certificate:
    """One certificate of a file; times are UTC."""

    filename: str
    subject: str
    issuer: str
    usages: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime

    def status(self, now: datetime.datetime) -> str:
        """K3s's word for how it stands."""
        if now < self.begins:
            return "NOT YET VALID"
        if now > self.ends:
            return "EXPIRED"
        return "WARNING" if now + datetime.timedelta(days=RENEW_DAYS) > self.ends else "OK"


def services(data_dir: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """The services that are meant: those named, or all of this machine's.

    Raises:
        UnknownService: K3s has none of that name.
    """
    for name in wanted:
        if name not in SERVER_SERVICES + AGENT_SERVICES:
            raise UnknownService(f"service {name} is not recognized")
    if wanted:
        return tuple(dict.fromkeys(wanted))
    return (SERVER_SERVICES if is_server(data_dir) else ()) + AGENT_SERVICES


def is_server(data_dir: Path) -> bool:
    """Whether this machine is a server, as K3s tells it."""
    return (data_dir / "server").exists()


def files(data_dir: Path, service: str) -> dict[str, Path]:
    """K3s's file name → the file, for every certificate of a service that is here."""
    tls, agent = data_dir / "server/tls", data_dir / "agent"
    found = {f"{name}.crt": tls / f"{name}.crt" for name, _ in _TLS.get(service, ())}
    if service == "kubelet":
        embedded = agent / "client-kubelet.crt"
        found["client-kubelet.crt"] = KUBELET_CLIENT if KUBELET_CLIENT.exists() else embedded
        found["serving-kubelet.crt"] = agent / "serving-kubelet.crt"
    return {name: path for name, path in found.items() if path.exists()}


def made_of(data_dir: Path, service: str) -> list[Path]:
    """Every file that must go for the service to get new keys and certificates."""
    tls, agent = data_dir / "server/tls", data_dir / "agent"
    stems = {stem for pair in _TLS.get(service, ()) for stem in pair}
    gone = [tls / f"{stem}.{kind}" for stem in sorted(stems) for kind in ("crt", "key")]
    if service in _KUBECONFIGS:
        gone.append(data_dir / "server/cred" / _KUBECONFIGS[service])
    if service == "kubelet":
        names = ("client-kubelet.crt", "client-kubelet.key", "kubelet.kubeconfig")
        gone += [agent / name for name in names]
        gone += [agent / "serving-kubelet.crt", agent / "serving-kubelet.key"]
        gone += sorted(KUBELET_PKI.glob("*"))
    return [path for path in gone if path.exists() or path.is_symlink()]


def read(path: Path, name: str) -> list[Certificate]:
    """The certificates of a file (which may hold a key as well), in order.

    Raises:
        CommandFailed: openssl cannot read one.
    """
    pattern = r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    return [_parse(pem, name) for pem in re.findall(pattern, path.read_text(), re.DOTALL)]


def _parse(pem: str, name: str) -> Certificate:
    shown = ["-startdate", "-enddate", "-subject", "-issuer", "-ext", "keyUsage,extendedKeyUsage"]
    forms = ["-dateopt", "iso_8601", "-nameopt", "multiline,utf8,-esc_msb"]
    text = run(["openssl", "x509", "-noout", *shown, *forms], stdin=pem + "\n")

    def common_name(part: str) -> str:
        found = re.search(rf"^{part}=.*?^    commonName\s*= (.*?)$", text, re.DOTALL | re.MULTILINE)
        return found[1] if found else ""

    def moment(part: str) -> datetime.datetime:
        found = re.search(rf"^{part}=(.*)Z$", text, re.MULTILINE)
        if not found:
            raise CommandFailed(f"openssl shows no {part} of {name}")
        return datetime.datetime.fromisoformat(found[1]).replace(tzinfo=datetime.UTC)

    words = {
        "Certificate Sign": "CertSign",
        "TLS Web Server Authentication": "ServerAuth",
        "TLS Web Client Authentication": "ClientAuth",
    }
    usages = tuple(usage for word, usage in words.items() if word in text) or ("Unknown",)
    return Certificate(
        name,
        common_name("subject"),
        common_name("issuer"),
        usages,
        moment("notBefore"),
        moment("notAfter"),
    )


def collect(data_dir: Path, names: Iterable[str]) -> list[Certificate]:
    """All certificates of these services, each with the CA that K3s has in the same file."""
    found = []
    for service in names:
        front = data_dir / "server/tls/request-header-ca.crt"
        ca = front if service == "auth-proxy" else data_dir / "agent/client-ca.crt"
        for name, path in files(data_dir, service).items():
            mine = read(path, name)
            if ca.exists():
                have = {one.subject for one in mine}
                mine += [one for one in read(ca, name) if one.subject not in have]
            found += mine
    return found


def as_text(found: Iterable[Certificate], now: datetime.datetime) -> str:
    """Lines as K3s logs them."""
    lines = []
    for one in found:
        who = f"{one.filename}: certificate {one.subject} ({','.join(one.usages)})"
        status = one.status(now)
        level, what = {
            "NOT YET VALID": ("error", f"is not valid before {_rfc3339(one.begins)}"),
            "EXPIRED": ("error", f"expired at {_rfc3339(one.ends)}"),
            "WARNING": (
                "warning",
                f"will expire within {RENEW_DAYS} days at {_rfc3339(one.ends)}",
            ),
            "OK": ("info", f"is ok, expires at {_rfc3339(one.ends)}"),
        }[status]
        lines.append(log_line(level, f"{who} {what}", now))
    return "\n".join(lines)


def log_line(level: str, message: str, now: datetime.datetime) -> str:
    """A line of logrus, which K3s logs with."""
    return f'time="{_rfc3339(now)}" level={level} msg={json.dumps(message)}'


def as_json(found: Iterable[Certificate], now: datetime.datetime) -> str:
    """One line, with Go's names of fields; ResidualTime is in nanoseconds."""
    shown = [
        {
            "Filename": one.filename,
            "Subject": one.subject,
            "Issuer": one.issuer,
            "Usages": list(one.usages),
            "ExpiryTime": _rfc3339(one.begins if one.status(now) == "NOT YET VALID" else one.ends),
            "ResidualTime": int((one.ends - now).total_seconds()) * 1_000_000_000,
            "Status": one.status(now),
        }
        for one in found
    ]
    return json.dumps({"Certificates": shown})


def as_table(found: Iterable[Certificate], now: datetime.datetime) -> str:
    """The table that K3s prints, with its empty first line."""
    head = ("FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS")
    rows = [head, tuple("-" * len(name) for name in head)]
    rows += [
        (
            one.filename,
            one.subject,
            ",".join(one.usages),
            one.ends.strftime("%b %d, %Y %H:%M UTC"),
            _residual(one.ends - now),
            one.status(now),
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(len(head) - 1)]
    lines = ["".join(c.ljust(w) for c, w in zip(r, [*widths, 0], strict=True)) for r in rows]
    return "\n".join(["", *lines])


def _rfc3339(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _residual(left: datetime.timedelta) -> str:
    """As go-humanize says it, whose months have 30 days and years twelve of these."""
    days = abs(left).days
    if days < 1:
        hours = abs(left).seconds // 3600
        return "1 hour" if hours == 1 else f"{hours} hours"
    for limit, unit, size in ((7, "day", 1), (30, "week", 7), (360, "month", 30)):
        if days < limit:
            return f"{days // size} {unit}{'s' * (days >= 2 * size)}"
    if days < 540:
        return "1 year"
    return f"{max(2, days // 360)} years"


def back_up(data_dir: Path, names: Iterable[str]) -> Path:
    """Copy what a rotation will remove, where K3s does; give the folder."""
    agent = data_dir / "agent"
    where = data_dir / ("server" if is_server(data_dir) else "agent") / f"tls-{int(time.time())}"
    where.mkdir()
    tls = data_dir / "server/tls"
    if tls.exists():
        shutil.copytree(tls, where, dirs_exist_ok=True)
    where.chmod(0o700)
    for service in names:
        for path in made_of(data_dir, service):
            if agent in path.parents or KUBELET_PKI in path.parents:
                shutil.copy2(path, where / path.name)
    return where


def remove(data_dir: Path, names: Iterable[str]) -> None:
    """Remove keys and certificates; the next start makes new ones."""
    for service in names:
        for path in made_of(data_dir, service):
            path.unlink()


def expiring(data_dir: Path, names: Iterable[str]) -> list[str]:
    """The services whose certificates end within 120 days, which K3s renews at start."""
    now = datetime.datetime.now(datetime.UTC)
    return [
        service
        for service in names
        if any(
            one.status(now) in ("WARNING", "EXPIRED")
            for name, path in files(data_dir, service).items()
            for one in read(path, name)[:1]
        )
    ]
