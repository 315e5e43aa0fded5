"""Machines: makes the containers be what the API says, by comparing the two."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import docker
import docker.errors
from docker.types import LogConfig, Mount

from lab.cloud import network
from lab.cloud.config import LABEL, Image
from lab.cloud.engine import bounding_set, privileges
from lab.cloud.model import Machine, View

log = logging.getLogger("machines")

INSTANCE_LABEL = "f1.instance"
OURS = {"label": [f"{LABEL}=1", INSTANCE_LABEL]}
RETRY = 1.0  # seconds until a failed step is tried again
STOP_TIMEOUT = 20  # seconds systemd has to go down
POWERED_OFF = 130  # exit code of a container whose init called reboot(POWER_OFF or HALT)


def container_name(instance_id: str) -> str:
    """The name under which `docker ps` shows an instance."""
    return f"f1-{instance_id}"


class Driver:
    """Compares and repairs, each machine in a thread of its own and one step at a time.

    Args:
        engine: the Docker engine.
        images: image id of the API → (image, Docker tag).
        switched_off: told the instance id of a machine that switched itself off.
        wake: asks for another `reconcile` soon.
    """

    def __init__(
        self,
        engine: docker.DockerClient,
        images: dict[str, tuple[Image, str]],
        switched_off: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self.engine = engine
        self.images = images
        self.switched_off = switched_off
        self.wake = wake
        self.errors: dict[str, str] = {}
        self._privileges = privileges(bounding_set())
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="machine")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._seen_running: set[str] = set()
        # By us, and not started since: the lists `_next` is asked with may be older than that.
        self._halted: set[str] = set()
        self._reboots: dict[str, int] = {}

    def containers(self) -> dict[str, dict[str, Any]]:
        """The lab's containers by instance id, as the engine lists them."""
        found = self.engine.api.containers(all=True, filters=OURS)
        return {c["Labels"][INSTANCE_LABEL]: c for c in found}

    def watch(self) -> None:
        """Wake whenever one of the containers ends; returns only if the engine does."""
        filters = OURS | {"type": "container", "event": ["die"]}
        for _ in self.engine.events(decode=True, filters=filters):
            self.wake()

    def reconcile(self, view: View) -> None:
        """Start what each machine needs next; comes back at once."""
        present = self.containers()
        links = network.links()
        wanted = {m.id: m for m in view.machines}
        for machine in wanted.values():
            step = self._next(machine, present.get(machine.id), machine.link in links)
            if step:
                self._do(machine.id, step)
        for instance, container in present.items():
            if instance not in wanted:
                self._do(instance, partial(self._remove, instance, container["Id"]))

    def _next(
        self, machine: Machine, container: dict[str, Any] | None, plugged: bool
    ) -> Callable[[], None] | None:
        if not machine.running:
            if container and container["State"] == "running":
                return partial(self._stop, machine, container["Id"])
            return None
        if container is None:
            return partial(self._create, machine)
        if container["State"] != "running":
            return partial(self._start, machine, container["Id"])
        asked = self._reboots.setdefault(machine.id, machine.reboots)
        if machine.reboots != asked:
            return partial(self._reboot, machine, container["Id"])
        self._seen_running.add(machine.id)
        if not plugged:
            return partial(self._replug, machine, container["Id"])
        return None

    def _do(self, instance: str, step: Callable[[], None]) -> None:
        with self._lock:
            if instance in self._busy:
                return
            self._busy.add(instance)

        def run() -> None:
            again = 0.0
            try:
                step()
                self.errors.pop(instance, None)
            except Exception as error:
                again = RETRY
                if self.errors.get(instance) != str(error):  # said once, not each second
                    log.exception("%s: a step failed", instance)
                self.errors[instance] = str(error)
            finally:
                with self._lock:
                    self._busy.discard(instance)
                threading.Timer(again, self.wake).start()

        self._pool.submit(run)

    def _create(self, machine: Machine) -> None:
        image, tag = self.images[machine.image]
        mounts = [
            Mount(guest, host, type="bind", read_only=True) for host, guest in image.mounts.items()
        ]
        mounts += [Mount(path, None, type="volume", labels={LABEL: "1"}) for path in image.volumes]
        host = self.engine.api.create_host_config(
            network_mode="none",
            mounts=mounts,
            tmpfs={"/run": "exec,mode=755", "/tmp": "exec,mode=1777"},  # noqa: S108
            log_config=LogConfig(type="json-file", config={"max-size": "4m"}),
        )
        host |= self._privileges | {"CgroupnsMode": "private"}
        container = self.engine.api.create_container(
            tag,
            name=container_name(machine.id),
            hostname=machine.hostname.split(".")[0],
            labels={LABEL: "1", INSTANCE_LABEL: machine.id, "f1.name": machine.name},
            stop_signal="SIGRTMIN+3",
            tty=True,
            host_config=host,
        )
        self._reboots[machine.id] = machine.reboots
        self._power_on(machine, container["Id"])
        log.info("%s (%s) started as %s", machine.id, machine.name, machine.address)

    def _power_on(self, machine: Machine, container: str) -> None:
        self._halted.discard(machine.id)
        self.engine.api.start(container)
        self._plug(machine, container)
        self._seen_running.add(machine.id)

    def _plug(self, machine: Machine, container: str) -> None:
        network.plug(machine, self.engine.api.inspect_container(container)["State"]["Pid"])

    def _replug(self, machine: Machine, container: str) -> None:
        # The two lists `_next` was asked with are not of one moment: look again.
        if machine.link not in network.links():
            self._plug(machine, container)

    def _start(self, machine: Machine, container: str) -> None:
        code = self.engine.api.inspect_container(container)["State"]["ExitCode"]
        halted = machine.id in self._halted
        if machine.id in self._seen_running and not halted and code == POWERED_OFF:
            self._seen_running.discard(machine.id)
            log.info("%s switched itself off", machine.id)
            self.switched_off(machine.id)
            return
        self._power_on(machine, container)
        log.info("%s (%s) started again", machine.id, machine.name)

    def _halt(self, machine: Machine, container: str) -> None:
        self._halted.add(machine.id)
        self.engine.api.stop(container, timeout=STOP_TIMEOUT)

    def _stop(self, machine: Machine, container: str) -> None:
        self._halt(machine, container)
        log.info("%s (%s) stopped", machine.id, machine.name)

    def _reboot(self, machine: Machine, container: str) -> None:
        self._halt(machine, container)
        self._reboots[machine.id] = machine.reboots
        self._power_on(machine, container)
        log.info("%s (%s) rebooted", machine.id, machine.name)

    def _remove(self, instance: str, container: str) -> None:
        self._seen_running.discard(instance)
        self._halted.discard(instance)
        self._reboots.pop(instance, None)
        with suppress(docker.errors.NotFound):
            self.engine.api.remove_container(container, force=True, v=True)
        log.info("%s removed", instance)

    def console(self, instance: str) -> str:
        """The end of what the machine printed; empty if there is no such machine."""
        container = self.containers().get(instance)
        if container is None:
            return ""
        return bytes(self.engine.api.logs(container["Id"], tail=400)).decode(errors="replace")


def remove_all(engine: docker.DockerClient) -> list[str]:
    """Remove every container and volume that carries the lab's label; tell what there was."""
    removed = []
    for container in engine.api.containers(all=True, filters=OURS):
        engine.api.remove_container(container["Id"], force=True, v=True)
        removed.append(f"container {container['Names'][0].lstrip('/')}")
    for volume in engine.volumes.list(filters={"label": f"{LABEL}=1"}):
        volume.remove(force=True)
        removed.append(f"volume {volume.name}")
    return removed
