"""
The user-data of a machine: ``salt/cloud/user-data.yaml`` with ``first-boot.py`` inside.

cloud-config: https://cloudinit.readthedocs.io/en/latest/explanation/format.html
"""

from typing import Any

import aws
import firstcontact
import jinja2
import knobs

CLOUD = knobs.ROOT / "salt" / "cloud"
# EC2 API, RunInstances: the limit of user-data before base64.
LIMIT = 16384


def master_name(platform: dict[str, Any]) -> str:
    """Return the name of the machine that carries the Salt master."""
    return f"{platform['name']}-master"


def render(platform: dict[str, Any], name: str, role: str, environment: dict[str, str]) -> str:
    """
    Return the user-data of the machine ``name`` with the ``role`` master or worker.

    ``environment`` is where the Salt environment is: ``{"url", "sha256"}``.
    Raises CloudError if EC2 would refuse it as too long.
    """
    job: dict[str, Any] = {
        "id": name,
        "role": role,
        "announce_url": firstcontact.announce_url(platform, name),
        "environment": environment,
    }
    if role == "worker":
        master = master_name(platform)
        known = firstcontact.known(platform, master)
        if known:
            job["master_pub"] = known["master_pub"]
        else:
            job["known_url"] = firstcontact.known_url(platform, master)
    jinja = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        line_statement_prefix="##",
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - this is YAML
    )
    text = "#cloud-config\n" + jinja.from_string(_read("user-data.yaml")).render(
        id=name,
        role=role,
        master_ip=platform["network"]["master_ip"],
        job=job,
        first_boot=_read("first-boot.py"),
    )
    if len(text.encode()) > LIMIT:
        raise aws.CloudError(
            f"the user-data of {name} has {len(text.encode())} bytes, EC2 takes {LIMIT}; "
            "use credentials with a shorter session token"
        )
    return text


def _read(name: str) -> str:
    return (CLOUD / name).read_text(encoding="utf-8")
