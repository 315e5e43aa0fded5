"""Security groups as nftables: what is allowed, and that nft takes it."""

import os
import subprocess
from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.cloud import firewall
from lab.cloud.model import Group, Igw, Nat, Through, View
from tests.unit.cloud.builders import ANYONE, machine, rule, view

OPEN = Group("sg-1", (rule("-1", networks=(ANYONE,)),), (rule("-1", networks=(ANYONE,)),))


def rendered(seen: View) -> str:
    return firewall.render(seen, 9000)


def chain(text: str, name: str) -> list[str]:
    body = text.split(f"chain {name} {{\n")[1].split("  }\n")[0]
    return [line.strip() for line in body.splitlines()]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (rule("tcp", 22, networks=(ANYONE,)), "tcp dport 22 accept"),
        (rule("tcp", 80, 443, networks=(ANYONE,)), "tcp dport 80-443 accept"),
        (rule("tcp", 0, 65535, networks=(ANYONE,)), "meta l4proto tcp accept"),
        (
            rule("udp", 8472, networks=(IPv4Network("10.20.0.0/16"),)),
            "ip saddr { 10.20.0.0/16 } udp dport 8472 accept",
        ),
        (rule("icmp", -1, networks=(ANYONE,)), "ip protocol icmp accept"),
        (rule("icmp", 8, -1, networks=(ANYONE,)), "icmp type 8 accept"),
        (rule("icmp", 3, 4, networks=(ANYONE,)), "icmp type 3 icmp code 4 accept"),
        (rule("-1", networks=(ANYONE,)), "accept"),
        (rule("50", networks=(ANYONE,)), "meta l4proto 50 accept"),
        (rule("6", 443, networks=(ANYONE,)), "tcp dport 443 accept"),
    ],
)
def test_a_permission_becomes_one_match(allowed, expected):
    one = machine(1)
    text = rendered(view([one], Group("sg-1", ingress=(allowed,))))
    assert chain(text, f"in-{one.link}") == [expected, "drop"]


def test_a_rule_that_names_a_group_means_its_members_addresses():
    one, two, three = machine(1), machine(2, groups=("sg-2",)), machine(3, groups=("sg-3",))
    allowed = rule("tcp", 6443, groups=("sg-2",))
    text = rendered(
        view([one, two, three], Group("sg-1", ingress=(allowed,)), Group("sg-2"), Group("sg-3"))
    )
    assert chain(text, f"in-{one.link}") == [
        "ip saddr { 10.20.1.12/32 } tcp dport 6443 accept",
        "drop",
    ]


def test_a_group_without_members_allows_nobody():
    one = machine(1)
    allowed = rule("tcp", 6443, groups=("sg-none",))
    text = rendered(view([one], Group("sg-1", ingress=(allowed,))))
    assert chain(text, f"in-{one.link}") == ["drop"]


def test_several_groups_add_up_and_a_stopped_machine_is_no_member():
    one = machine(1, groups=("sg-1", "sg-2"))
    off = machine(2, groups=("sg-2",), state="stopped")
    text = rendered(
        view(
            [one, off],
            Group("sg-1", (rule("tcp", 22, networks=(ANYONE,)),)),
            Group("sg-2", (rule("tcp", 80, groups=("sg-2",)),)),
        )
    )
    assert chain(text, f"in-{one.link}") == [
        "ip saddr { 10.20.1.11/32 } tcp dport 80 accept",
        "tcp dport 22 accept",
        "drop",
    ]
    assert off.link not in text


def test_what_may_leave_is_then_asked_of_who_is_called():
    one = machine(1)
    text = rendered(view([one], Group("sg-1", egress=(rule("-1", networks=(ANYONE,)),))))
    assert chain(text, f"out-{one.link}") == ["return", "drop"]
    assert chain(text, f"in-{one.link}") == ["drop"]


@pytest.mark.parametrize(
    ("way", "public"),
    [(Igw(), None), (None, "198.19.0.10"), (Through("i-2"), "198.19.0.10")],
)
def test_no_public_address_or_no_gateway_means_no_internet(way, public):
    one = machine(1, way=way, public=IPv4Address(public) if public else None)
    text = rendered(view([one], OPEN))
    assert chain(text, "uplink") == ["drop"]
    assert 'oifname "f1-up" jump uplink' in chain(text, "forward")[1]
    assert "dnat to" not in text
    assert "snat to" not in text


def test_a_way_out_that_ends_ends_its_connections_too():
    """It is asked of every packet, before what is established passes."""
    lines = chain(rendered(view([machine(1)], OPEN)), "forward")
    assert lines.index('oifname "f1-up" jump uplink') < lines.index(
        "ct state established,related accept"
    )


def test_a_nat_gateway_lets_out_and_nobody_in():
    one = machine(1, way=Nat(IPv4Address("198.19.0.20")))
    text = rendered(view([one], OPEN))
    assert chain(text, "uplink") == [
        f'iifname . ip saddr {{ "{one.link}" . 10.20.1.11 }} return',
        "drop",
    ]
    assert any(
        "snat to ip saddr map { 10.20.1.11 : 198.19.0.20 }" in x for x in chain(text, "public-out")
    )
    assert "dnat to" not in text


def test_the_endpoint_of_s3_is_a_way_to_s3_alone():
    one = machine(1, s3=True)
    text = rendered(view([one], OPEN))
    assert chain(text, "uplink") == [
        f'iifname . ip saddr {{ "{one.link}" . 10.20.1.11 }} '
        "ip daddr 198.18.0.1 tcp dport 9000 return",
        "drop",
    ]
    assert chain(text, "public-out")[1:] == [
        'oifname "f1-up" ip saddr { 10.20.1.11 } ip daddr 198.18.0.1 tcp dport 9000 '
        "snat to 198.18.0.254"
    ]


def test_a_public_address_is_reached_from_within_only_with_a_way_out():
    one = machine(1, way=Igw(), public=IPv4Address("198.19.0.10"))
    other, inner = machine(2, way=Nat(IPv4Address("198.19.0.20"))), machine(3)
    (line,) = chain(rendered(view([one, other, inner], OPEN)), "public-in")[1:]
    assert line.startswith(f'iifname {{ "f1-up", "{one.link}", "{other.link}" }} dnat')


def test_a_public_address_is_translated_both_ways():
    one = machine(1, way=Igw(), public=IPv4Address("198.19.0.10"))
    text = rendered(view([one], OPEN))
    assert any(
        "dnat to ip daddr map { 198.19.0.10 : 10.20.1.11 }" in x for x in chain(text, "public-in")
    )
    assert any(
        "snat to ip saddr map { 10.20.1.11 : 198.19.0.10 }" in x for x in chain(text, "public-out")
    )


def test_the_source_address_is_checked_unless_switched_off():
    one, router = machine(1), machine(2, source_check=False)
    lines = chain(rendered(view([one, router], OPEN)), "antispoof")
    assert f'iifname . ip saddr {{ "{one.link}" . 10.20.1.11 }} accept' in lines
    assert f'iifname {{ "{router.link}" }} accept' in lines
    assert lines[-1] == "drop"


def test_machines_of_two_networks_do_not_see_each_other():
    one = machine(1)
    other = machine(
        2,
        address=IPv4Address("10.30.1.5"),
        subnet=IPv4Network("10.30.1.0/24"),
        vpc_networks=(IPv4Network("10.30.0.0/16"),),
    )
    lines = chain(rendered(view([one, other], OPEN)), "forward")
    assert any(f'iifname != {{ "{one.link}", "f1-up" }} ip daddr 10.20.0.0/16' in x for x in lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="nft needs root even to check")
def test_nft_takes_it():
    machines = [
        machine(n, way=Igw(), s3=n == 3, public=IPv4Address(f"198.19.0.{n}"), source_check=n != 2)
        for n in range(1, 4)
    ]
    busy = Group(
        "sg-1",
        (
            rule("tcp", 22, networks=(ANYONE,)),
            rule("udp", 1, 9, networks=(ANYONE,)),
            rule("icmp", 8, -1, networks=(ANYONE,)),
            rule("icmp", 3, 4, networks=(ANYONE,)),
            rule("50", networks=(ANYONE,)),
            rule("tcp", 6443, groups=("sg-1",)),
        ),
        (rule("-1", networks=(ANYONE,)), rule("tcp", 443, networks=(IPv4Network("1.1.1.0/24"),))),
    )
    for given in (view([]), view(machines, busy), view(machines[:1])):
        done = subprocess.run(
            ["unshare", "-n", "nft", "-f", "-"],
            input=rendered(given),
            text=True,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
