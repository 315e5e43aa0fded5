"""Which way a machine's packets go: the rules, and that the kernel has exactly these."""

import os
from ipaddress import IPv4Address

import pytest
from pyroute2 import NetNS, netns

from lab.cloud import ways
from lab.cloud.model import Igw, Nat, Through
from lab.cloud.ways import Rule
from tests.unit.cloud.builders import machine, view

ALL = Rule(100, table=ways.MACHINES)


def test_whoever_goes_by_a_gateway_needs_no_rule():
    machines = [machine(1, way=Igw(), s3=True), machine(2, way=Nat(IPv4Address("198.19.0.20")))]
    assert ways.rules(view(machines), 9000) == {ALL}


def test_without_a_way_there_is_the_vpc_and_s3_if_it_has_the_endpoint():
    one, two = machine(1), machine(2, s3=True)
    assert ways.rules(view([one, two]), 9000) == {
        ALL,
        Rule(300, one.link, "10.20.0.0/16"),
        Rule(500, one.link),
        Rule(200, two.link, "198.18.0.1/32", 9000, 254),
        Rule(300, two.link, "10.20.0.0/16"),
        Rule(500, two.link),
    }


def test_a_machine_takes_others_packets_while_it_runs_unchecked():
    def through(**values):
        router = machine(1, way=Igw(), **values)
        worker = machine(2, way=Through(router.id))
        made = ways.rules(view([router, worker]), 9000)
        return Rule(400, worker.link, table=ways.table(router.id)) in made

    assert through(source_check=False)
    assert not through()
    assert not through(source_check=False, state="stopped")
    lost = machine(3, way=Through("i-00000000000000009"))
    itself = machine(4, source_check=False)
    itself = machine(4, source_check=False, way=Through(itself.id))
    assert not any(rule.priority == 400 for rule in ways.rules(view([lost, itself]), 9000))


def test_every_machine_has_a_table_of_its_own():
    tables = [ways.table(f"i-{n:017x}") for n in (1, 2, 255, 256)]
    assert len(set(tables)) == 4
    assert min(tables) > 255  # none of the kernel's own


@pytest.mark.skipif(os.geteuid() != 0, reason="policy rules need root")
def test_the_kernel_has_exactly_these(monkeypatch):
    name = f"f1-test-{os.getpid()}"
    monkeypatch.setattr(ways, "ROUTER", name)

    def present():
        with NetNS(name) as space:
            found = {ways._read(message) for message in space.get_rules(family=2)}
        return {rule for rule in found if 100 <= rule.priority <= 500}

    router = machine(1, way=Igw(), source_check=False)
    worker = machine(2, way=Through(router.id), s3=True)
    netns.create(name)
    try:
        for machines in ([router, worker], [router], [worker, machine(3)], []):
            wanted = ways.rules(view(machines), 9000)
            ways.apply(wanted)
            assert present() == wanted
            ways.apply(wanted)
            assert present() == wanted
    finally:
        netns.remove(name)
