"""
The user-data of a machine: ``salt/cloud/user-data.yaml`` with ``first-boot.py`` inside, or a
template of the profile's own, which is given the same: ``platform id role master_ip job
first_boot``. A machine is known only if it announces itself, so another template runs
``first_boot`` with ``job`` as well.

cloud-config: https://cloudinit.readthedocs.io/en/latest/explanation/format.html
"""

import gzip
import logging
from typing import Any

import aws
import firstcontact
import jinja2
import knobs

CLOUD = knobs.ROOT / "salt" / "cloud"
# EC2 API, RunInstances: the limit of user-data before base64.
LIMIT = 16384

# At debug level botocore writes whole requests: this text, and the signed URLs that it holds.
logging.getLogger("botocore").setLevel(logging.INFO)


def master_name(platform: dict[str, Any]) -> str:
    """Return the name of the machine that carries the Salt master."""
    return f"{platform['name']}-master"


def render(
    platform: dict[str, Any],
    name: str,
    role: str,
    environment: dict[str, str],
    template: str | None = None,
) -> str | bytes:
    """
    Return the user-data of the machine ``name`` with the ``role`` master or worker.

    ``environment`` is where the Salt environment is: ``{"url", "sha256"}``; ``template`` is a text
    instead of the platform's own. What does not fit as it is comes gzipped (cloud-init unpacks
    it). Raises CloudError if the template does not render, or EC2 would refuse it as too long.
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
    source = "#cloud-config\n" + _read("user-data.yaml") if template is None else template
    try:
        text = jinja.from_string(source).render(
            platform=platform,
            id=name,
            role=role,
            master_ip=platform["network"]["master_ip"],
            job=job,
            first_boot=_read("first-boot.py"),
        )
    except jinja2.TemplateError as error:
        raise aws.CloudError(f"the user-data of {name} does not render: {error}") from error
    return fitted(name, text)


def fitted(name: str, text: str) -> str | bytes:
    """Return ``text``, gzipped if it is too long as it is; too long still is a CloudError."""
    if len(text.encode()) <= LIMIT:
        return text
    # Without the time, the same text is the same request.
    packed = gzip.compress(text.encode(), mtime=0)
    if len(packed) > LIMIT:
        raise aws.CloudError(
            f"the user-data of {name} has {len(text.encode())} bytes, {len(packed)} gzipped; EC2 "
            f"takes {LIMIT}: shorten the profile's user_data, or use credentials with a shorter "
            "session token"
        )
    return packed


def _read(name: str) -> str:
    return (CLOUD / name).read_text(encoding="utf-8")
