"""
Key pairs with which SSH lets an operator in; EC2 holds their public halves only.

A key pair is ours by the tag ``f1:platform``. The platform's own, which has its name, is made and
kept by ``orch.network``. Requests and answers: EC2 API reference.
"""

import re
from pathlib import Path
from typing import Any

import aws
import vpc

# What EC2 takes (ImportKeyPair): OpenSSH's format, RSA or Ed25519.
_PUBLIC = re.compile(r"(ssh-(?:rsa|ed25519) [A-Za-z0-9+/]+={0,3})(?: [^\n]*)?\n?")


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item["KeyPairId"],
        "name": item["KeyName"],
        "type": item.get("KeyType"),
        "fingerprint": item.get("KeyFingerprint"),
        "public": (item.get("PublicKey") or "").strip(),
    }


def _all(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = aws.call(platform, "ec2", "describe_key_pairs", IncludePublicKey=True)["KeyPairs"]
    return {item["KeyName"]: item for item in found}


def _is_ours(platform: dict[str, Any], item: dict[str, Any]) -> bool:
    return vpc.is_ours(platform, item) or item["KeyName"] == platform["name"]


def keypairs(platform: dict[str, Any]) -> dict[str, Any]:
    """Return our key pairs by name."""
    found = _all(platform)
    return {name: _shown(item) for name, item in found.items() if _is_ours(platform, item)}


def show(platform: dict[str, Any], key: str) -> dict[str, Any]:
    """Return our key pair ``key``, or raise CloudError with those that there are."""
    found = keypairs(platform)
    if key not in found:
        have = ", ".join(sorted(found)) or "none"
        raise aws.CloudError(f"no key pair of {platform['name']} is named {key}; there are: {have}")
    shown: dict[str, Any] = found[key]
    return shown


def import_(platform: dict[str, Any], key: str, file: str) -> dict[str, Any]:
    """Make sure that there is the key pair ``key`` with the public key in ``file``."""
    _not_own(platform, key)
    if not key.startswith(f"{platform['name']}-"):
        raise aws.CloudError(
            f"a key pair of the platform has a name that begins so: {platform['name']}-, not {key}"
        )
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise aws.CloudError(f"{file} cannot be read: {type(error).__name__}") from error
    public = _PUBLIC.fullmatch(text)
    if public is None:
        # Its content may be the private half: it is not shown.
        raise aws.CloudError(
            f"{file} is no public RSA or Ed25519 key of OpenSSH (such as id_*.pub)"
        )
    there = _all(platform).get(key)
    if there:
        same = (there.get("PublicKey") or "").strip().startswith(public.group(1))
        if not _is_ours(platform, there) or not same:
            whose = "another key" if _is_ours(platform, there) else "somebody else's"
            raise aws.CloudError(f"the key pair {key} is there and is {whose}: not replaced")
        return {**_shown(there), "changed": False}
    aws.call(
        platform,
        "ec2",
        "import_key_pair",
        KeyName=key,
        PublicKeyMaterial=public.group(1).encode(),
        TagSpecifications=[{"ResourceType": "key-pair", "Tags": aws.tags(platform, key)}],
    )
    return {**show(platform, key), "changed": True}


def delete(platform: dict[str, Any], key: str) -> dict[str, Any]:
    """Delete the key pair ``key`` of ours; machines keep what they have. None is no error."""
    _not_own(platform, key)
    there = _all(platform).get(key)
    if there is None:
        return {"name": key, "changed": False, "note": "no such key pair is there"}
    vpc.refuse_strangers(platform, there, key)
    aws.call(platform, "ec2", "delete_key_pair", KeyName=key)
    return {"name": key, "changed": True}


def _not_own(platform: dict[str, Any], key: str) -> None:
    if key == platform["name"]:
        raise aws.CloudError(
            f"{key} is the platform's own key pair: `make up` and `make down` look after it"
        )
