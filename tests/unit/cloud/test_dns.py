"""Names: answers from the zones, and only from them."""

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from lab.cloud.dns import Resolver, private_zone
from tests.unit.cloud.builders import machine, view

ZONES = {
    "example.org.": {
        ("vote.example.org.", "A"): (60, ("198.19.0.10", "198.19.0.11")),
        ("www.example.org.", "CNAME"): (300, ("vote.example.org",)),
        ("example.org.", "MX"): (60, ("10 mail.example.org.",)),
        ("example.org.", "TXT"): (60, ('"v=spf1 -all"',)),
    }
}


def ask(name, kind="A", zones=ZONES, forward=()):
    query = DNSRecord.question(name, kind)
    return DNSRecord.parse(Resolver(lambda: zones, list(forward)).resolve(query.pack()))


def test_every_address_of_a_name_in_any_case():
    reply = ask("Vote.Example.ORG")
    assert sorted(str(r.rdata) for r in reply.rr) == ["198.19.0.10", "198.19.0.11"]
    assert reply.rr[0].ttl == 60
    assert reply.header.aa


def test_an_alias_is_followed():
    reply = ask("www.example.org")
    assert [QTYPE[r.rtype] for r in reply.rr] == ["CNAME", "A", "A"]


@pytest.mark.parametrize(
    ("kind", "value"), [("MX", "10 mail.example.org."), ("TXT", '"v=spf1 -all"')]
)
def test_other_types(kind, value):
    assert str(ask("example.org", kind).rr[0].rdata) == value


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("nobody.example.org", "A", RCODE.NXDOMAIN),
        ("vote.example.org", "AAAA", RCODE.NOERROR),  # the name is there, the type is not
        ("elsewhere.test", "A", RCODE.NXDOMAIN),
        ("badexample.org", "A", RCODE.NXDOMAIN),
    ],
)
def test_what_is_not_there(name, kind, code):
    reply = ask(name, kind)
    assert (reply.header.rcode, reply.rr) == (code, [])


def test_private_names_are_the_machines_alone():
    zones = private_zone(view([machine(1)]))
    assert str(ask(machine(1).hostname, zones=zones).rr[0].rdata) == "10.20.1.11"
    assert ask(machine(1).hostname).header.rcode == RCODE.NXDOMAIN


def test_a_dead_resolver_is_a_failure_not_a_missing_name():
    reply = ask("elsewhere.test", forward=["127.0.0.1"])  # nothing listens there, or not DNS
    assert reply.header.rcode == RCODE.SERVFAIL


def test_rubbish_gets_no_answer():
    resolver = Resolver(lambda: ZONES, [])
    assert resolver.resolve(b"\0\1") is None
    assert resolver.resolve(DNSRecord.question("a.test").reply().pack()) is None
