"""The lab's one process: API, machines, network and services, from start to signal."""

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from pyroute2.netlink.exceptions import NetlinkError

# Before anything of moto: it reads its settings when it is imported.
from lab.cloud import dns, files, firewall, metadata, moto_cloud, network, publish, requests, ways
from lab.cloud.api import Bucket, Gate, serve
from lab.cloud.config import (
    DNS_ADDRESS,
    GUARD,
    HOST_ADDRESS,
    METADATA_ADDRESS,
    RESOLVER_ADDRESS,
    Config,
    Image,
    cache,
)
from lab.cloud.machines import Driver
from lab.cloud.model import View
from lab.cloud.names import OUTSIDE, ROUTER
from lab.cloud.processes import Supervisor
from lab.cloud.state import Store
from lab.machine import ensure as ensure_machine_image

log = logging.getLogger("server")

ROUND = 5.0  # seconds between two comparisons when nothing asks for one


class Busy(RuntimeError):
    """Another lab runs on this machine."""


def guard() -> object:
    """Hold the machine's one lab lock until the process ends.

    Raises:
        Busy: another process holds it.
    """
    handle = GUARD.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        raise Busy(f"a lab runs already: {handle.read().strip()}") from None
    handle.truncate(0)
    handle.write(f"pid {os.getpid()}, {os.environ.get('F1_LAB_HOME', 'default folder')}\n")
    handle.flush()
    return handle


def _write(path: Path, data: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1))
    part.replace(path)


class Lab:
    """Everything that runs in the process.

    Args:
        config: what to run.
        home: the runtime folder (``log/``, ``run/``, ``state/``).
    """

    def __init__(self, config: Config, home: Path) -> None:
        self.config = config
        self.home = home
        self.view = View()
        self.zones: moto_cloud.Zones = {}
        self.applied: tuple[str, frozenset[ways.Rule]] | None = None  # rules of both kinds
        self.problem = ""
        self.end = threading.Event()
        self.wake = threading.Event()
        self.store = Store(home / "state")
        self.requests = requests.Log(home / requests.FILE)
        self.engine = docker.from_env(timeout=120)
        self.driver = Driver(self.engine, self._images(), self._switched_off, self.wake.set)
        self.supervisor = Supervisor(config.processes, home / "log")

    def _images(self) -> dict[str, tuple[Image, str]]:
        tags = {}
        for image in self.config.images:
            tag = image.tag or ensure_machine_image(self.engine, cache())
            tags[image.ami] = (image, tag)
        return tags

    def _switched_off(self, instance: str) -> None:
        moto_cloud.power_off(instance, self.config.region)
        self.store.save("ec2")

    def listen(self) -> None:
        """Load the state, make the network and open every listener.

        Raises:
            OSError: a port is taken, or the kernel refused something.
            StateError, FirewallError, ProcessError: with what to do.
        """
        self.store.load()
        moto_cloud.bind(self.driver.console)
        moto_cloud.register(self.config.images, self.config.region)
        network.ensure()
        self.refresh()
        tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
        service = metadata.Service(lambda address: self.view.by_address(address))
        web = metadata.Server(network.listen(ROUTER, tcp, (str(METADATA_ADDRESS), 80)), service)
        threading.Thread(target=web.serve_forever, name="metadata", daemon=True).start()
        world = dns.Resolver(lambda: self.zones, [])
        vpc = dns.Resolver(lambda: self.zones | dns.private_zone(self.view), dns.host_resolvers())
        for space, address, resolver in (
            (OUTSIDE, DNS_ADDRESS, world),
            (ROUTER, RESOLVER_ADDRESS, vpc),
        ):
            at = (str(address), 53)
            dns.serve(network.listen(space, udp, at), network.listen(space, tcp, at), resolver)
        serve(str(HOST_ADDRESS), self.config.s3_port, Bucket(self.store, self.requests))
        if self.config.files:
            shelf = files.Server(str(HOST_ADDRESS), self.config.files_port, Path(self.config.files))
            threading.Thread(target=shelf.serve_forever, name="files", daemon=True).start()
        publish.serve(self.config.publish, lambda: self.view)
        self.supervisor.start()
        # The API last: who finds it open finds a whole cloud.
        serve("127.0.0.1", self.config.api_port, Gate(self.store, self.changed, self.requests))

    def changed(self) -> None:
        """Make a change of the API true: rules at once, machines in the background."""
        with suppress(Exception):  # told by `problem`, tried again each round
            self.refresh()
        self.wake.set()

    def refresh(self) -> None:
        """Read the API and, if they differ, load its rules.

        Raises:
            FirewallError, OSError, pyroute2 NetlinkError: nft or the kernel refused them.
        """
        with moto_cloud.LOCK:
            self.view = moto_cloud.view(self.config.region)
            self.zones = moto_cloud.zones()
            wanted = (
                firewall.render(self.view, self.config.s3_port),
                ways.rules(self.view, self.config.s3_port),
            )
            if wanted == self.applied:
                return
            try:
                firewall.apply(wanted[0])
                ways.apply(wanted[1])
            except (firewall.FirewallError, NetlinkError, OSError) as error:
                self.problem = f"network: {error}"
                log.error("%s", self.problem)
                raise
            self.applied = wanted
            self.problem = ""

    def _watch(self) -> None:
        while not self.end.is_set():
            try:
                self.driver.watch()
            except Exception as error:
                log.warning("the engine's events ended: %s", error)
            self.end.wait(1)

    def run(self) -> None:
        """Keep machines and rules as the API says until `end` is set."""
        threading.Thread(target=self._watch, name="events", daemon=True).start()
        _write(self.home / "run" / "ready.json", {"pid": os.getpid(), "time": time.time()})
        while not self.end.is_set():
            self.wake.clear()
            try:
                self.refresh()
                self.driver.reconcile(self.view)
                self._report()
            except Exception as error:
                self.problem = str(error)
                log.exception("a round failed")
            self.wake.wait(ROUND)
        self.supervisor.stop()

    def _report(self) -> None:
        containers = self.driver.containers()
        machines = [
            {
                "id": m.id,
                "name": m.name,
                "state": m.state,
                "container": (containers.get(m.id) or {}).get("State", "absent"),
                "private": str(m.address),
                "public": str(m.public) if m.public else None,
                "error": self.driver.errors.get(m.id),
            }
            for m in self.view.machines
        ]
        machines += [
            {"id": m.id, "name": m.name, "error": f"{m.address} is an older machine's already"}
            for m in self.view.clashing
        ]
        status = {
            "machines": machines,
            "processes": self.supervisor.status(),
            "problem": self.problem or None,
        }
        _write(self.home / "run" / "status.json", status)


def main(config: Config, home: Path) -> None:
    """Serve until SIGTERM or SIGINT; machines and network stay as they are then."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    held = guard()
    lab = Lab(config, home)

    def leave(*_: object) -> None:
        lab.end.set()
        lab.wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        lab.listen()
        lab.run()
    except (OSError, RuntimeError, SystemExit) as error:
        log.error("%s", error)
        lab.supervisor.stop()
        raise SystemExit(1) from error
    finally:
        (home / "run" / "ready.json").unlink(missing_ok=True)
        del held
