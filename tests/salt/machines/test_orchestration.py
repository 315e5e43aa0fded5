"""Orchestrations over real minions: those that stay away, those that restart, those that are busy,
and a token's rotation that leaves no secret anywhere."""

import base64
import hashlib
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.unit.ext.builders import node

from .conftest import Fleet, holders

MASTER, WORKER = "f1-master", "f1-worker-1"
READY = f"minions: {{fleet.ready: [{{minions: [{MASTER}, {WORKER}]}}]}}"
HIGHSTATE = """
highstate:
  fleet.highstate:
    - minions: [{minions}]
    - deadline: {deadline}
"""
# What the highstate is here: one file, and on the worker a pause, which says that it began.
TOP = f"""
base:
  '*': [probe]
  {WORKER}: [pause]
"""
PROBE = """
{folder}/{{{{ grains['id'] }}}}.done:
  file.managed:
    - contents: done
"""
PAUSE = """
pause:
  cmd.run:
    - name: echo x >> {folder}/began; while [ -e {folder}/hold ]; do sleep 0.2; done
"""
ROTATE = """
token:
  cluster.token_rotated:
    - master: {master}
    - workers: [{worker}]
    - server: {server}
    - secret: {secret}
    - deadline: 30
"""

# `restart` is what K3s does at its start: the server takes the secret of its file.
SYSTEMCTL = """#!{python}
import pathlib, sys, time
folder = pathlib.Path("{folder}")
verb, unit = sys.argv[1], sys.argv[-1].removesuffix(".service")
stamp = folder / (unit + ".started")
if verb in ("start", "restart"):
    if unit == "k3s":
        secret = (folder / "agent-token").read_text().strip()
        token = folder / "rancher/server/agent-token"
        token.write_text("K10{digest}::node:" + secret + "\\n")
    stamp.write_text(str(int(time.monotonic() * 1e6)))
if verb == "show":
    print("ActiveState=active\\nSubState=running\\nResult=success\\nNRestarts=0")
    print("UnitFileState=enabled\\nNeedDaemonReload=no\\nJob=")
    print("ExecMainStartTimestampMonotonic=" + (stamp.read_text() if stamp.exists() else "0"))
"""


class Server:
    """K3s's supervisor: its CA, and who may join (asked as agents do)."""

    def __init__(self, folder: Path) -> None:
        tls = folder / "rancher" / "server" / "tls"
        tls.mkdir(parents=True)
        ca, key = tls / "server-ca.crt", folder / "ca.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=k3s-ca", "-days", "2"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(ca)]
        subprocess.run(command, check=True, capture_output=True)
        self.digest = hashlib.sha256(ca.read_bytes()).hexdigest()
        token = folder / "rancher" / "server" / "agent-token"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = base64.b64decode(self.headers.get("Authorization", "Basic ")[6:]).decode()
                held = token.read_text().strip().partition("::")[2]
                asked = self.path == "/cacerts" or shown == held
                self.send_response(200 if asked else 401)
                self.end_headers()
                if self.path == "/cacerts":
                    self.wfile.write(ca.read_bytes())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca, key)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{self.http.server_port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("orchestration"))
    yield made
    made.http.shutdown()


@pytest.fixture(scope="module")
def fleet(
    salt_factories: Any, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.getbasetemp() / "orchestration0"
    programs = folder / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(
        SYSTEMCTL.format(python=sys.executable, folder=folder, digest=server.digest)
    )
    (programs / "systemctl").chmod(0o755)
    fake = ROOT / "tests" / "unit" / "ext" / "fake_kubectl.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("F1_FAKE", str(folder))
        made = Fleet(
            salt_factories,
            folder,
            {MASTER: {}, WORKER: {}},
            {
                "modules/k3s.py": {
                    '"/var/lib/rancher/k3s/server/agent-token"': (
                        f'"{folder}/rancher/server/agent-token"'
                    ),
                    '"/var/lib/rancher/k3s")': f'"{folder}/rancher")',
                    '["systemctl"': f'["{programs}/systemctl"',
                },
                "modules/kubectl.py": {
                    '("/usr/local/bin/k3s", "kubectl")': f'("{sys.executable}", "{fake}")',
                    '"/etc/rancher/k3s/k3s.yaml"': f'"{folder}/objects.json"',
                },
                "utils/jobs.py": {"SILENT_SECONDS = 120": "SILENT_SECONDS = 6"},
            },
            {"workers": {"count": 1}},
        )
        objects = {f"Node /{name}": node(name) for name in (MASTER, WORKER)}
        (folder / "objects.json").write_text(json.dumps(objects))
        for name in ("token_server", "token_agent"):
            text = (ROOT / "salt" / "states" / "cluster" / f"{name}.sls").read_text()
            text = text.replace("/etc/rancher/k3s/", f"{folder}/")
            # The address comes from a knob, and the test's server has a port of its own.
            text = text.replace("{{ k3s.server | json }}", server.url)
            made.sls(f"cluster/{name}", text)
        made.sls("top", TOP)
        made.sls("probe", PROBE.format(folder=folder))
        made.sls("pause", PAUSE.format(folder=folder))
        with made.running():
            assert made.orchestrate(READY)["result"] is True
            yield made


def highstate(fleet: Fleet, *minions: str, deadline: int = 90) -> dict[str, Any]:
    return fleet.orchestrate(HIGHSTATE.format(minions=", ".join(minions), deadline=deadline))


def until(what: str, probe: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def test_a_highstate_of_all_is_told_by_machine(fleet: Fleet) -> None:
    said = highstate(fleet, MASTER, WORKER)
    assert said["result"] is True, said["comment"]
    assert set(said["changes"]["ret"]) == {MASTER, WORKER}
    again = highstate(fleet, MASTER)
    assert (again["result"], again["changes"]) == (True, {})


def test_an_orchestration_that_no_minion_answered_names_each(fleet: Fleet) -> None:
    with fleet.minions[WORKER].stopped():
        said = highstate(fleet, WORKER, "f1-worker-9")
    assert (said["result"], said["changes"]) == (False, {})
    assert f"{WORKER}: silent for" in said["comment"]
    assert "f1-worker-9: the master has no accepted key of it" in said["comment"]


def test_a_state_that_fails_is_told_with_its_machine(fleet: Fleet) -> None:
    fleet.sls("probe", "broken:\n  test.fail_without_changes:\n    - comment: on purpose\n")
    try:
        said = highstate(fleet, MASTER)
    finally:
        fleet.sls("probe", PROBE.format(folder=fleet.folder))
    assert said["result"] is False
    assert f"{MASTER}: broken: on purpose" in said["comment"]


def test_what_does_not_render_is_told(fleet: Fleet) -> None:
    fleet.sls("probe", "broken: {{ nothing.at.all }}\n")
    try:
        said = highstate(fleet, MASTER)
    finally:
        fleet.sls("probe", PROBE.format(folder=fleet.folder))
    assert said["result"] is False
    assert f"{MASTER}: Rendering SLS" in said["comment"]


def test_a_busy_minion_is_waited_for(fleet: Fleet) -> None:
    hold, began = fleet.folder / "hold", fleet.folder / "began"
    hold.touch()
    began.unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(fleet.cli.run, "state.apply", "pause", minion_tgt=WORKER)
        until("the other state run", began.exists)
        ours = pool.submit(highstate, fleet, WORKER)
        # Long enough to be refused, which is what is tested.
        time.sleep(6)
        hold.unlink()
        assert other.result().returncode == 0
        said = ours.result()
    assert said["result"] is True, said["comment"]
    assert len(began.read_text().split()) == 2


def test_a_busy_minion_is_not_waited_for_without_end(fleet: Fleet) -> None:
    hold, began = fleet.folder / "hold", fleet.folder / "began"
    hold.touch()
    began.unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(fleet.cli.run, "state.apply", "pause", minion_tgt=WORKER)
        until("the other state run", began.exists)
        said = highstate(fleet, WORKER, deadline=12)
        hold.unlink()
        other.result()
    assert said["result"] is False
    assert f"{WORKER}: waited" in said["comment"]
    assert "is running as PID" in said["comment"]


def test_a_minion_that_dies_in_the_middle_gets_its_job_again(fleet: Fleet) -> None:
    hold, began = fleet.folder / "hold", fleet.folder / "began"
    hold.touch()
    began.unlink(missing_ok=True)
    minion = fleet.minions[WORKER]
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(highstate, fleet, MASTER, WORKER)
        until("the highstate", began.exists)
        family = [psutil.Process(minion.pid), *psutil.Process(minion.pid).children(recursive=True)]
        for process in family:
            process.kill()
        minion.terminate()
        hold.unlink()
        minion.start()
        said = ours.result()
    assert said["result"] is True, said["comment"]
    assert len(began.read_text().split()) == 2, "once before it died, once after"


def test_a_token_is_rotated_and_no_secret_is_left_anywhere(fleet: Fleet, server: Server) -> None:
    secret, worker = fleet.folder / "agent-token", fleet.folder / "token"
    secret.write_text("first-secret\n")
    rancher = fleet.folder / "rancher" / "server" / "agent-token"
    rancher.write_text(f"K10{server.digest}::node:first-secret\n")
    text = ROTATE.format(master=MASTER, worker=WORKER, server=server.url, secret=secret)

    # Interrupted where the worker is away: the server has moved, the worker has not.
    with fleet.minions[WORKER].stopped():
        stopped = fleet.orchestrate(text)
    assert stopped["result"] is False
    assert f"{WORKER}: silent for" in stopped["comment"]
    second = secret.read_text().strip()
    assert second != "first-secret"
    assert not worker.exists()

    said = fleet.orchestrate(text)
    assert said["result"] is True, said["comment"]
    assert said["changes"]["proof"] == {"new": 200, "old": 401}
    assert set(said["changes"]) == {WORKER, "proof"}
    assert secret.read_text().strip() == second
    assert worker.read_text().strip() == f"K10{server.digest}::node:{second}"
    assert not Path(f"{secret}.old").exists()

    # Once more, from where no rotation is under way.
    third = fleet.orchestrate(text)
    assert third["result"] is True, third["comment"]
    assert set(third["changes"]) == {MASTER, WORKER, "proof"}
    newest = secret.read_text().strip()
    assert newest not in (second, "first-secret")
    told = json.dumps([stopped, said, third])
    assert not any(each in told for each in ("first-secret", second, newest))
    found = holders(fleet.roots, "first-secret", second, newest)
    assert found == {Path("cache/mine") / f"{MASTER}.p"}


def test_the_extension_loads_on_the_master_without_complaint(fleet: Fleet) -> None:
    """What the orchestrations call is there: a module that fails to import is silently missing."""
    text = """
plan:
  cluster.upgraded:
    - version: v1.36.3+k3s1
    - master: f1-master
    - workers: [f1-worker-1]
"""
    said = fleet.orchestrate(text)
    assert said["comment"] == "2 nodes report v1.36.3+k3s1"
