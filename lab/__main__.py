"""
The lab around one run of the platform; `make` calls it.

    python -m lab prepare    build, start the cloud, tell the product where it is
    python -m lab ready      what to open and what to type
    python -m lab status     the cloud's own view
    python -m lab logs       the cloud's last log lines
    python -m lab down       remove the lab and everything that was made in it
"""

import argparse
import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from salt.exceptions import SaltException
from salt.utils.dictupdate import merge_recurse

from lab import build, cloud, site
from lab.build import publish
from lab.build.families import k3s_version
from lab.cloud.config import home
from lab.k3s import pack

ROOT = Path(__file__).resolve().parents[1]
# The product's own rules for knobs and for who may run.
sys.path.insert(0, str(ROOT / "salt" / "ext" / "utils"))
import knobs_check  # noqa: E402
import lock  # noqa: E402

STATE = ROOT / ".state"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

# Names an older Kubernetes to begin with (`v1.36.2`): what an upgrade upgrades.
OLDER = "F1_LAB_KUBERNETES"

# By hand, in the lab: `. .state/env` and then any Salt command of the README.
ENVIRONMENT = """\
export PATH={root}/.venv/bin:$PATH PYTHONWARNINGS=ignore
export AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab
unset AWS_SESSION_TOKEN AWS_PROFILE
"""


def stage(name: str, text: str, act: Callable[[], Any]) -> Any:
    """Draw one stage as the product draws its own; return what ``act`` returns."""
    print(f"  ▸ {name:<10} {text}", flush=True)
    began = time.monotonic()
    done = act()
    print(f"  ✓ {name:<10} {time.monotonic() - began:7.1f} s", flush=True)
    return done


def prepare() -> None:
    """Everything the lab does before the product's road begins."""
    _alone("prepare")
    problems = _machine() + _knobs() + cloud.preflight(site.doors()) + build.preflight()
    if problems:
        raise SystemExit("\n".join(["nothing was touched; put this right first:", *problems]))
    STATE.mkdir(mode=0o700, exist_ok=True)
    _claim()
    manifest = stage("build", "Kubernetes, Traefik and more from Go modules (cached)", build.build)
    files = home() / "files"
    artifacts = lay_out(manifest, files)
    config = site.cloud(manifest, files)
    stage("cloud", "Docker engine, machine image, EC2 API, network", lambda: cloud.start(config))
    own_domain()
    stage("images", "base images in the registry", lambda: fill_registry(manifest))
    local = {
        "platform": site.knobs(),
        "versions": site.versions(manifest, artifacts, ARCH[platform.machine()]),
    }
    (STATE / "pillar").mkdir(exist_ok=True)
    text = yaml.safe_dump(local, sort_keys=False)
    (STATE / "pillar" / "local.sls").write_text(f"# Written by `python -m lab prepare`.\n{text}")
    (STATE / "env").write_text(ENVIRONMENT.format(root=ROOT))


def _alone(command: str) -> None:
    """Keep out of the way of an `up` that is under way; see salt/ext/utils/lock.py."""
    if STATE.exists():
        try:
            lock.hold(STATE / "lock", f"python -m lab {command}")
        except SaltException as error:
            raise SystemExit(f"lab: {error}") from None


def _claim() -> None:
    """
    Make the one lab of this machine this checkout's.

    What the operator remembers (keys, known hosts) lies in the checkout; without it the machines
    of a lab are strangers. The remains of another checkout's lab are removed, a running one not.
    """
    owner = home() / "owner"
    if home().exists() and (not owner.exists() or owner.read_text() != str(STATE)):
        if cloud.status()["running"]:
            whose = owner.read_text() if owner.exists() else "somebody"
            raise SystemExit(f"lab: the lab of {whose} runs on this machine; `make down` it first")
        print("  the remains of an earlier lab are removed")
        cloud.down()
    if not home().exists():
        shutil.rmtree(STATE, ignore_errors=True)
        STATE.mkdir(mode=0o700)
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    owner.write_text(str(STATE))


def _machine() -> list[str]:
    if platform.machine() in ARCH:
        return []
    return [f"processor: {platform.machine()} is not supported; use {' or '.join(ARCH)}"]


def _knobs() -> list[str]:
    """
    What is wrong with the operator's knobs. The product checks them too, with the whole pillar; but
    that is after the builds.
    """
    pillar: dict[str, Any] = {}
    for name in ("platform", "versions", "app", "site"):
        text = (ROOT / "salt" / "pillar" / f"{name}.sls").read_text()
        pillar = merge_recurse(pillar, yaml.safe_load(text) or {})
    return list(knobs_check.problems(merge_recurse(pillar, {"platform": site.knobs()})))


def lay_out(manifest: build.Manifest, files: Path) -> dict[str, dict[str, str]]:
    """
    Fill the folder ``files`` with what machines download; return ``{k3s, airgap}``, each with its
    ``url`` and ``sha256``; ``k3s`` with its ``version``, too.
    """
    files.mkdir(parents=True, exist_ok=True)
    version, programs = manifest.k3s_version, manifest.k3s_bin_dir()
    if older := os.environ.get(OLDER):
        version, programs = k3s_version(older), build.kubernetes(older)
    k3s = pack.pack(version, programs)
    name = f"k3s-{version.partition('+')[0]}"
    (files / name).write_bytes(k3s)
    airgap = manifest.airgap()
    target = files / airgap.path.name
    if not target.exists() or not target.samefile(airgap.path):
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(airgap.path)
        except OSError:  # another file system
            shutil.copyfile(airgap.path, target)
    url = site.doors().files_url
    return {
        "k3s": {
            "version": version,
            "url": f"{url}/{name}",
            "sha256": hashlib.sha256(k3s).hexdigest(),
        },
        "airgap": {"url": f"{url}/{target.name}", "sha256": airgap.sha256},
    }


def own_domain() -> None:
    """Make the zone that an operator on AWS owns before the first ``up``."""
    route53 = site.client("route53")
    known = {zone["Name"] for zone in route53.list_hosted_zones()["HostedZones"]}
    if f"{site.ZONE}." not in known:
        route53.create_hosted_zone(Name=site.ZONE, CallerReference=site.ZONE)


def fill_registry(manifest: build.Manifest) -> None:
    """Push what the lab's "Docker Hub" offers, under the digests that the pillar pins."""
    for name in ("traefik", "redis", "python"):
        image = manifest.image(name)
        digest = publish.push(image.path, site.REGISTRY, image.name.partition("/")[2], image.tag)
        if digest != image.digest:
            raise SystemExit(f"registry: {image.name} is {digest} there and {image.digest} here")


def ready() -> None:
    """Say what to open and what to type."""
    print(
        f"""
  the page      https://{site.BROWSER}:{site.PAGE}   (its certificate is its own: accept it)
  artifacts     built here from source; K3s is a stand-in (README, "What is real")

  make status   what runs
  make plan     what `up` would change
  make down     remove it all"""
    )


def status() -> None:
    """Print the cloud's own view."""
    print(yaml.safe_dump({"lab": cloud.status()}, sort_keys=False), end="")


def logs() -> None:
    """Print the last lines of every log of the lab."""
    for file in sorted((home() / "log").glob("*")):
        print(f"== {file}")
        print("\n".join(file.read_text(errors="replace").splitlines()[-20:]))


def down() -> None:
    """Remove the lab and everything that was made in it, the operator's memory of it too."""
    _alone("down")
    report = cloud.down()
    for thing in report["removed"]:
        print(f"  removed  {thing}")
    for thing in report["foreign"]:
        print(f"  left     {thing}: it is not the lab's")
    shutil.rmtree(STATE, ignore_errors=True)


def main() -> None:
    """Run the command named on the command line."""
    commands = {f.__name__: f for f in (prepare, ready, status, logs, down)}
    parser = argparse.ArgumentParser(prog="lab", description=(__doc__ or "").splitlines()[1])
    parser.add_argument("command", choices=commands)
    try:
        commands[parser.parse_args().command]()
    except (build.BuildError, cloud.LabError) as error:
        sys.exit(f"lab: {error}")
    except KeyboardInterrupt:
        sys.exit("lab: interrupted; `make up` goes on from here, `make down` removes it")


if __name__ == "__main__":
    main()
