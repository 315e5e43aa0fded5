"""
What things cost a month in USD, by the dated table ``salt/cloud/prices.yaml``.

A price that is not in the table is None, which is shown as ``unknown`` and never as nothing.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "cloud" / "prices.yaml"
UNKNOWN = "unknown"

# What the platform holds besides machines: the image's root volume (Debian's has 8 GiB), and the
# Salt environment with all announcements in the bucket.
ROOT_GB = 8
BUCKET_GB = 1

_table: dict[str, Any] = {}


def table() -> dict[str, Any]:
    """Return the whole table, read once a process."""
    if not _table:
        _table.update(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    return _table


def shown(usd: float | None) -> float | str:
    """Return a monthly price as it is shown: USD with cents, or ``unknown``."""
    return UNKNOWN if usd is None else round(usd, 2)


def _region(platform: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = table()["regions"].get(platform["aws"]["region"], {})
    return found


def _times(price: float | None, number: float) -> float | None:
    return None if price is None else price * number


def size_hour(platform: dict[str, Any], size: str) -> float | None:
    """Return the price of an hour of a machine of ``size``."""
    price: float | None = _region(platform).get("sizes", {}).get(size)
    return price


def size(platform: dict[str, Any], name: str) -> float | None:
    """Return the monthly price of a machine of the size ``name``, without volume and address."""
    return _times(size_hour(platform, name), table()["hours"])


def volume(platform: dict[str, Any], kind: str, gb: int) -> float | None:
    """Return the monthly price of a volume of ``gb``, further IOPS and throughput not counted."""
    return _times(_region(platform).get("volumes", {}).get(kind), gb)


def snapshot(platform: dict[str, Any], gb: float) -> float | None:
    """Return the monthly price of a snapshot that holds ``gb``."""
    return _times(_region(platform).get("snapshot"), gb)


def address(platform: dict[str, Any]) -> float | None:
    """Return the monthly price of a public IPv4 address, used or not."""
    return _times(_region(platform).get("address"), table()["hours"])


def nat_gateway(platform: dict[str, Any]) -> float | None:
    """Return the monthly price of a NAT gateway, without its address and what goes through it."""
    return _times(_region(platform).get("nat_gateway"), table()["hours"])


def nat_gateway_gb(platform: dict[str, Any]) -> float | None:
    """Return the price of a GB that goes through a NAT gateway."""
    price: float | None = _region(platform).get("nat_gateway_gb")
    return price


def sized(platform: dict[str, Any], which: str) -> dict[str, Any]:
    """Return the knobs ``platform`` with the sizes of a platform of the table: small, large …"""
    made = copy.deepcopy(platform)
    sizes = table()["platforms"][which]
    made["master"]["size"] = sizes["master"]
    made["workers"].update(size=sizes["workers"], count=sizes["count"])
    return made


def monthly(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return what the platform of these knobs costs a month while it runs: ``lines`` of
    ``{what, usd_month}``, their ``usd_month``, what it leaves out, and how old the prices are.
    """
    count, network = platform["workers"]["count"], platform["network"]
    region = _region(platform)
    through_nat = network["egress"] == "nat-gateway"
    addresses = 1 + (count if network["egress"] == "public" else 0) + int(through_nat)
    master, workers = platform["master"]["size"], platform["workers"]["size"]
    lines: list[tuple[str, float | None]] = [
        (f"master {master}", size(platform, master)),
        (f"{count} × worker {workers}", _times(size(platform, workers), count)),
        (
            f"{1 + count} × volume of {ROOT_GB} GB (gp3)",
            _times(volume(platform, "gp3", ROOT_GB), 1 + count),
        ),
        (f"{addresses} × public IPv4 address", _times(address(platform), addresses)),
        (f"bucket, {BUCKET_GB} GB at most", _times(region.get("bucket"), BUCKET_GB)),
    ]
    left_out = ["traffic to the internet", "CPU credits beyond those earned"]
    if through_nat:
        lines.append(("NAT gateway", nat_gateway(platform)))
        a_gb = nat_gateway_gb(platform)
        left_out.append(f"what goes through the NAT gateway ({a_gb or UNKNOWN} a GB)")
    if platform["dns"]["zone"]:
        lines.append(("Route 53 zone", region.get("zone")))
    known = [usd for _, usd in lines if usd is not None]
    return {
        "lines": [{"what": what, "usd_month": shown(usd)} for what, usd in lines],
        "usd_month": shown(sum(known) if len(known) == len(lines) else None),
        "left_out": left_out,
        "source": f"{table()['source']}, {platform['aws']['region']}, known {table()['known']}",
    }
