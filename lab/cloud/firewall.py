"""Security groups and the gateways' address translation as an nftables table.

`render` is a pure function of plain data; `apply` loads its result in one transaction, so
that there is never a moment without rules. It runs in the router's network namespace.

What AWS documents and this follows: rules only allow; replies to a tracked connection pass
whatever the groups say; a machine in several groups gets the sum of their rules; a rule that
names a group means the private addresses of its members; the metadata and DNS addresses are
outside of security groups; the source address of a machine is checked. Where packets go is
`ways`; what a machine sends through another is judged by what may leave the one and, by its
destination port, by what the other lets in.
"""

import subprocess

from lab.cloud.config import (
    HOST_ADDRESS,
    METADATA_ADDRESS,
    PUBLIC,
    RESOLVER_ADDRESS,
    ROUTER_ADDRESS,
)
from lab.cloud.model import Group, Igw, Machine, Rule, View
from lab.cloud.names import ROUTER, UPLINK

TABLE = "f1_lab"
DEADLINE = 10  # seconds for nft

_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp"}


class FirewallError(RuntimeError):
    """nft refused the rules; the message holds its words."""


def _service(rule: Rule) -> str:
    """The protocol half of an nft match; empty for all traffic."""
    protocol = _NUMBERS.get(rule.protocol, rule.protocol)
    low, high = rule.from_port, rule.to_port
    if protocol in ("-1", "all"):
        return ""
    if protocol == "icmp":
        if low is None or low == -1:
            return "ip protocol icmp"
        code = "" if high is None or high == -1 else f" icmp code {high}"
        return f"icmp type {low}{code}"
    if protocol in ("tcp", "udp"):
        if low is None or high is None or low == -1 or (low, high) == (0, 65535):
            return f"meta l4proto {protocol}"
        return f"{protocol} dport {low if low == high else f'{low}-{high}'}"
    return f"meta l4proto {protocol}"


def _peers(rule: Rule, members: dict[str, list[Machine]], side: str) -> str | None:
    """The address half of an nft match; empty for anyone, None for nobody."""
    if any(n.prefixlen == 0 for n in rule.networks):
        return ""
    networks = [str(n) for n in rule.networks]
    networks += [f"{m.address}/32" for group in rule.groups for m in members.get(group, [])]
    if not networks:
        return None
    return f"ip {side} {{ {', '.join(sorted(set(networks)))} }}"


def _allows(groups: list[Group], direction: str, members: dict[str, list[Machine]]) -> list[str]:
    side = "saddr" if direction == "ingress" else "daddr"
    lines = []
    for group in groups:
        for rule in getattr(group, direction):
            peers = _peers(rule, members, side)
            if peers is not None:
                lines.append(" ".join(f"{peers} {_service(rule)} accept".split()))
    return sorted(set(lines))


def _chain(name: str, lines: list[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {name} {{\n{body}  }}\n"


def _map(pairs: list[str]) -> str:
    return f"{{ {', '.join(pairs)} }}"


def render(view: View, s3_port: int) -> str:
    """The whole table as nft input; equal input gives equal output.

    Args:
        view: what the API says.
        s3_port: the TCP port at which the machines reach S3.
    """
    machines = sorted((m for m in view.machines if m.running), key=lambda m: m.id)
    groups = {g.id: g for g in view.groups}
    members: dict[str, list[Machine]] = {}
    for machine in machines:
        for group in machine.groups:
            members.setdefault(group, []).append(machine)
    public = [m for m in machines if m.public and isinstance(m.way, Igw)]
    out = [m for m in machines if m.outside]
    by_endpoint = [m for m in machines if m.s3]
    s3 = f"ip daddr {HOST_ADDRESS} tcp dport {s3_port}"

    checked = [f'"{m.link}" . {m.address}' for m in machines if m.source_check]
    unchecked = [f'"{m.link}"' for m in machines if not m.source_check]
    spoof = ['iifname "lo" accept', f'iifname "{UPLINK}" ip saddr {PUBLIC} drop']
    spoof.append(f'iifname "{UPLINK}" accept')
    if unchecked:
        spoof.append(f"iifname {_map(unchecked)} accept")
    if checked:
        spoof.append(f"iifname . ip saddr {_map(checked)} accept")
    spoof.append("drop")

    inbound = [f"{m.public} : {m.address}" for m in public]
    outbound = [f"{m.address} : {m.outside}" for m in out]
    dnat = []
    if inbound:
        # Who has no way to the internet does not reach its addresses from within either.
        callers = [f'"{UPLINK}"', *(f'"{m.link}"' for m in out)]
        dnat = [f"iifname {_map(callers)} dnat to ip daddr map {_map(inbound)}"]
    snat = []
    if by_endpoint:
        # An endpoint has no public address: S3 sees the router.
        callers = [f"{m.address}" for m in by_endpoint]
        snat = [f'oifname "{UPLINK}" ip saddr {_map(callers)} {s3} snat to {ROUTER_ADDRESS}']
    if outbound:
        snat += [
            f'oifname "{UPLINK}" snat to ip saddr map {_map(outbound)}',
            # A machine that calls another by its public address goes out and comes back.
            f"ct original ip daddr {PUBLIC} snat to ip saddr map {_map(outbound)}",
        ]

    outs = [f'"{m.link}" : jump out-{m.link}' for m in machines]
    ins = [f'"{m.link}" : jump in-{m.link}' for m in machines]
    links = [f'"{m.link}"' for m in machines]
    networks = {
        str(n): [f'"{x.link}"' for x in machines if n in x.vpc_networks]
        for m in machines
        for n in m.vpc_networks
    }
    # Out to the internet only by one's own way, in only to an address that was translated. Asked
    # of every packet, so that a connection ends with its way.
    uplink = []
    for group_of, what in ((out, ""), (by_endpoint, f"{s3} ")):
        if group_of:
            pairs = [f'"{m.link}" . {m.address}' for m in group_of]
            uplink.append(f"iifname . ip saddr {_map(pairs)} {what}return")
    uplink.append("drop")
    forward = [f'oifname "{UPLINK}" jump uplink']
    forward += ["ct state established,related accept", "ct state invalid drop"]
    forward.append(f'iifname "{UPLINK}" ct status & dnat == 0 drop')
    # Private addresses are reached only within one VPC.
    for network, own in sorted(networks.items()):
        forward.append(
            f"iifname != {_map([*own, chr(34) + UPLINK + chr(34)])} ip daddr {network} "
            f"ct status & dnat == 0 drop"
        )
    if machines:
        forward.append(f"iifname vmap {_map(outs)}")
        # Reached by what may leave (chains return on allow); then who is called decides.
        forward.append(f"oifname vmap {_map(ins)}")
        forward.append(f'oifname "{UPLINK}" accept')
    forward.append("drop")

    local = [
        "ct state established,related accept",
        'iifname "lo" accept',
        "ip protocol icmp accept",
    ]
    if links:
        local += [
            f"iifname {_map(links)} ip daddr {METADATA_ADDRESS} tcp dport 80 accept",
            f"iifname {_map(links)} ip daddr {RESOLVER_ADDRESS} meta l4proto {{ tcp, udp }} "
            "th dport 53 accept",
        ]
    local.append("drop")

    text = f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n"
    hook = "type filter hook"
    text += _chain("antispoof", [f"{hook} prerouting priority raw; policy accept;", *spoof])
    text += _chain("public-in", ["type nat hook prerouting priority dstnat; policy accept;", *dnat])
    text += _chain(
        "public-out", ["type nat hook postrouting priority srcnat; policy accept;", *snat]
    )
    for machine in machines:
        held = [groups[g] for g in machine.groups if g in groups]
        leaving = [
            a.replace(" accept", " return") if a != "accept" else "return"
            for a in _allows(held, "egress", members)
        ]
        text += _chain(f"out-{machine.link}", [*leaving, "drop"])
        text += _chain(f"in-{machine.link}", [*_allows(held, "ingress", members), "drop"])
    text += _chain("uplink", uplink)
    text += _chain("forward", [f"{hook} forward priority filter; policy drop;", *forward])
    text += _chain("input", [f"{hook} input priority filter; policy drop;", *local])
    return text + "}\n"


def apply(rules: str) -> None:
    """Load a rendered table into the router's namespace, all or nothing.

    Raises:
        FirewallError: nft refused it or did not answer in time.
    """
    command = ["ip", "netns", "exec", ROUTER, "nft", "-f", "-"]
    try:
        done = subprocess.run(
            command, input=rules, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"nft did not end within {DEADLINE} s") from error
    if done.returncode:
        raise FirewallError(done.stderr.strip()[-600:])
