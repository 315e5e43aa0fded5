"""
What the lab tells the product: a pillar, and nothing else.

`knobs` and `versions` are all in which the lab differs from AWS. `cloud` is what the lab's cloud
is told.
"""

import dataclasses
from pathlib import Path
from typing import Any

import boto3

from lab.build import Manifest
from lab.cloud.config import HOST_ADDRESS, Config, Image, Process, Publish, cache

ZONE = "f1.test"
DOMAIN = f"vote.{ZONE}"
BROWSER = "f1.localhost"  # browsers lead every *.localhost to this machine
REGISTRY_PORT = 5000
REGISTRY = f"http://127.0.0.1:{REGISTRY_PORT}"
PAGE = 8443


def doors() -> Config:
    """Return the configuration as far as it is known before anything is built: its ports."""
    return Config(
        publish=[
            Publish(listen=f"127.0.0.1:{PAGE}", machine="f1-master", port=443),
            Publish(listen="127.0.0.1:8080", machine="f1-master", port=80),
        ],
    )


def client(service: str) -> Any:
    """Return a boto3 client of the lab's API."""
    # The stubs know boto3.client only by literal service names.
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=doors().api_url,
        region_name=doors().region,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106 - the lab's API takes any
    )


def cloud(manifest: Manifest, files: Path) -> Config:
    """
    Return the configuration of the lab's cloud.

    ``files`` is the folder that `artifacts` filled; machines read it as they would a download
    server. K3s's heavy programs are part of the machine image, read-only.
    """
    # All versions of them, one built later too.
    programs = str(manifest.k3s_bin_dir().parent)
    return dataclasses.replace(
        doors(),
        files=str(files),
        images=[
            Image(
                mounts={programs: programs},
                # No overlay on overlay: containerd and the kubelet need a real file system.
                volumes=["/var/lib/rancher", "/var/lib/kubelet"],
            )
        ],
        processes=[
            _registry(manifest, "registry", f"127.0.0.1:{REGISTRY_PORT}"),
            _registry(manifest, "registry-nodes", f"{HOST_ADDRESS}:{REGISTRY_PORT}"),
        ],
    )


def _registry(manifest: Manifest, name: str, address: str) -> Process:
    """
    One door of the registry: Docker pushes in plain HTTP to loopback only, machines pull from
    the lab's internet. Both doors lead to the same storage.
    """
    config = cache() / "registry" / f"{name}.yml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {config.parent}/data}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    return Process(
        name=name,
        argv=[str(manifest.binary("registry", "registry")), "serve", str(config)],
        ready_url=f"http://{address}/v2/",
    )


def knobs() -> dict[str, Any]:
    """Return the knobs in which the lab differs: where the cloud is and how it is reached."""
    config = doors()
    return {
        "domain": DOMAIN,
        "aliases": [BROWSER],
        "aws": {
            "region": config.region,
            "zones": [f"{config.region}a", f"{config.region}b"],
            "endpoint_url": config.api_url,
            "s3_endpoint_url": config.s3_url,
        },
        "image": {"id": config.images[0].ami},
        # Machines find the file server and the registry at ports of their own.
        "network": {"egress_ports": [80, 443, config.files_port, REGISTRY_PORT]},
        "operator": {"cidrs": [f"{HOST_ADDRESS}/32"]},
        "dns": {"zone": ZONE},
        "registry": {
            "push": f"127.0.0.1:{REGISTRY_PORT}/f1/vote",
            "pull": "docker.io/f1/vote",
            "mirrors": {
                "docker.io": {"endpoint": [f"http://{HOST_ADDRESS}:{REGISTRY_PORT}"]},
            },
        },
        "proof": {"url": f"https://127.0.0.1:{PAGE}", "verify_tls": False},
    }


def versions(manifest: Manifest, artifacts: dict[str, dict[str, str]], arch: str) -> dict[str, Any]:
    """
    Return the lock of what was built here.

    ``artifacts`` maps ``k3s`` (with its ``version``) and ``airgap`` to their ``{url, sha256}``;
    ``arch`` is Debian's name of this machine's architecture.
    """
    images = {}
    for name in ("traefik", "redis", "python"):
        image = manifest.image(name)
        images[name] = {"name": image.name, "tag": image.tag, "digest": image.digest}
    # The operator's Docker engine knows no mirror: it is told the registry itself.
    repository = images["python"]["name"].partition("/")[2]
    images["python"]["name"] = f"127.0.0.1:{REGISTRY_PORT}/{repository}"
    return {
        "k3s": {
            "version": artifacts["k3s"]["version"],
            arch: {key: artifacts["k3s"][key] for key in ("url", "sha256")},
            "airgap": {arch: artifacts["airgap"]},
        },
        "images": images,
    }
