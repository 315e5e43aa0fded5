"""
How the driver's work grows with the number of machines: 3, 10 and 30 against the API alone.

The API is moto with the lab's fixes, in this process; the command is the real one
(`salt-cloud -m … -P -y`). No machine boots: each one's real first-boot.py runs in a folder, as in
the driver's tests. What those ask for (presigned URLs) is counted apart.
"""

import importlib
import io
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from salt.utils.dictupdate import merge_recurse
from werkzeug.serving import BaseWSGIServer, make_server

from lab.__main__ import ROOT
from lab.bench.common import HINT, operator, salt_cloud, stamp, table, write_section
from lab.bench.machines import FILE, TITLE
from lab.cloud import moto_fixes, requests

# Their fake machines; the tests are not typed as the lab is.
fake: Any = importlib.import_module("tests.unit.cloud_driver.machines")

SIZES = (3, 10, 30)
IMAGE = "ami-12c6146b"  # one that moto knows


class Counted:
    """moto behind a door, one call at a time; counts what comes through it.

    Args:
        moto: the application, the same for all doors.
        lock: held by every call, as moto's own objects have none.
    """

    def __init__(self, moto: DomainDispatcherApplication, lock: threading.RLock) -> None:
        self.moto = moto
        self.lock = lock
        self.calls: Counter[str] = Counter()  # the operator's
        self.fetched: Counter[str] = Counter()  # by presigned URL, the machines'

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with self.lock:
            app = self.moto.get_application(environ)
            operation, _ = requests.named(app.service, environ, body)
            signed_url = "X-Amz-Signature" in environ.get("QUERY_STRING", "")
            (self.fetched if signed_url else self.calls)[f"{app.service}:{operation}"] += 1
            return list(app(environ, start_response))


class _Silent(MotoRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nobody reads it."""


def _open(app: Any) -> tuple[BaseWSGIServer, str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def _knobs(url: str, machines: int) -> dict[str, Any]:
    return {
        "aws": {"endpoint_url": url, "s3_endpoint_url": url},
        "image": {"id": IMAGE},
        "operator": {"cidrs": ["203.0.113.7/32"]},
        "workers": {"count": machines - 1},
    }


def _configure(folder: Path, knobs: dict[str, Any]) -> Path:
    """Write Salt's configuration of the repository with these knobs instead; return its folder."""
    config = folder / "config"
    (folder / "pillar").mkdir()
    config.mkdir()
    (folder / "pillar" / "local.sls").write_text(yaml.safe_dump({"platform": knobs}))
    own = ROOT / "salt" / "config"
    master = yaml.safe_load((own / "master").read_text())
    master["pillar_roots"] = {"base": [str(folder / "pillar"), "salt/pillar"]}
    master["root_dir"] = str(folder / "root")
    cloud = yaml.safe_load((own / "cloud").read_text())
    for key in ("providers_config", "profiles_config"):
        cloud[key] = str((own / cloud[key]).resolve())
    (config / "master").write_text(yaml.safe_dump(master))
    (config / "cloud").write_text(yaml.safe_dump(cloud))
    return config


def measure(size: int) -> tuple[float, Counter[str], Counter[str]]:
    """Make ``size`` machines in an empty account; return seconds, calls, and what machines asked.

    Raises:
        SystemExit: salt-cloud failed, or not all machines are there.
    """
    moto = DomainDispatcherApplication(create_backend_app)
    lock = threading.RLock()
    door = Counted(moto, lock)
    servers = [_open(door), _open(Counted(moto, lock))]
    (_, url), (_, aside) = servers
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        default = yaml.safe_load((ROOT / "salt" / "pillar" / "platform.sls").read_text())
        platform = merge_recurse(default["platform"], _knobs(aside, size))
        state = {"F1_STATE": str(folder / "state"), "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.update({**operator(), **state})
        fake.network(platform)
        machines = fake.Machines(platform, folder / "machines")
        machines.patience = 120.0
        env = {**operator(), **state, "PATH": f"{machines.programs}:{operator()['PATH']}"}
        config = _configure(folder, _knobs(url, size))
        with machines:
            seconds = salt_cloud("-c", str(config), "-m", "salt/cloud/k3s.map", "-P", env=env)
        if len(machines.booted) != size:
            raise SystemExit(f"bench: {len(machines.booted)} of {size} machines booted")
    for server, _ in servers:
        server.shutdown()
        server.server_close()
    return seconds, door.calls, door.fetched


def _forget() -> None:
    """Empty the account for the next size."""
    from moto.ec2.models import ec2_backends
    from moto.s3.models import s3_backends

    for backends in (ec2_backends, s3_backends):
        backends.reset()


def main() -> None:
    """Measure, print, write the evidence."""
    moto_fixes.apply()
    rows, names = [], Counter[str]()
    for size in SIZES:
        _forget()
        seconds, calls, fetched = measure(size)
        names = calls
        total = sum(calls.values())
        rows.append(
            [
                str(size),
                str(total),
                f"{total / size:.1f}",
                f"{sum(fetched.values()) / size:.1f}",
                f"{seconds:.1f}",
                f"{seconds / size:.2f}",
            ]
        )
        print(rows[-1], flush=True)
    head = ["machines", "calls", "calls each", "by machines, each", "s", "s each"]
    most = ", ".join(f"{name} {count}" for name, count in names.most_common(8))
    write_section(
        FILE,
        TITLE,
        "Growth",
        f"{stamp()}. {HINT} growth`. `salt-cloud -m salt/cloud/k3s.map -P` against the API alone "
        "(moto with the lab's fixes, one call at a time; the machines are their first-boot.py in "
        f"folders of this host).\n\n{table(head, rows)}\nMost frequent with {SIZES[-1]}: {most}.",
    )
