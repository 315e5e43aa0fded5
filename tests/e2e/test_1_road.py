"""From outside: the domain resolves, the page answers, a vote counts once, no more is open."""

import re
import subprocess
from collections import Counter

import pytest
from voter import CANARY

pytestmark = pytest.mark.e2e


def test_three_machines_and_three_ready_nodes(platform):
    assert sorted(platform.machines()) == ["f1-master", "f1-worker-1", "f1-worker-2"]
    nodes = platform.kubectl("get", "nodes")["items"]
    ready = {
        node["metadata"]["name"]: node["metadata"]["labels"].get("f1.vote/role")
        for node in nodes
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
    }
    assert ready == {"f1-master": "server", "f1-worker-1": "worker", "f1-worker-2": "worker"}


def test_redis_is_on_the_master_and_the_app_on_the_workers(platform):
    pods = platform.kubectl("-n", "f1", "get", "pods")["items"]
    where = Counter(
        (pod["metadata"]["labels"]["app.kubernetes.io/name"], pod["spec"]["nodeName"])
        for pod in pods
        if pod["status"]["phase"] == "Running"
    )
    assert where == {
        ("redis", "f1-master"): 1,
        ("vote", "f1-worker-1"): 1,
        ("vote", "f1-worker-2"): 1,
    }
    images = [pod["spec"]["containers"][0]["image"] for pod in pods]
    assert all("@sha256:" in image for image in images), images


def test_every_service_is_clusterip(platform):
    services = platform.kubectl("get", "services", "-A")["items"]
    assert {s["spec"]["type"] for s in services} == {"ClusterIP"}


def test_the_voter_resolves_the_domain_to_the_masters_address(platform):
    master = platform.machines()["f1-master"]["PublicIpAddress"]
    assert platform.voter("resolve") == [[master]]


def test_the_page_speaks_french_and_english(platform):
    (fr_status, fr), (en_status, en) = platform.voter("page:fr", "page:en")
    assert (fr_status, en_status) == (200, 200)
    assert re.search(r'<html[^>]* lang="fr"', fr)
    assert re.search(r'<html[^>]* lang="en"', en)


def test_a_vote_is_counted_once_and_redis_agrees(platform):
    first, second = sorted(platform.voter("tally")[0])[:2]
    before, _, once, _, twice, _, moved = platform.voter(
        "tally", f"vote:{first}", "tally", f"vote:{first}", "tally", f"vote:{second}", "tally"
    )
    assert once[first] == before[first] + 1
    assert twice == once, "the same voter, the same choice: still one vote"
    assert moved[first] == before[first]
    assert moved[second] == before[second] + 1
    held = Counter[str]()
    for bucket in platform.redis("--scan", "--pattern", f"'poll:{CANARY}:votes:*'"):
        held.update(platform.redis_hash(bucket).values())
    tally = platform.redis_hash(f"poll:{CANARY}:tally")
    assert dict(held) == {k: int(v) for k, v in tally.items() if int(v)}
    assert dict(held) == {k: v for k, v in moved.items() if v}


def test_a_withdrawn_vote_is_gone(platform):
    choice = sorted(platform.voter("tally")[0])[0]
    before, _, after, _, gone = platform.voter(
        "tally", f"vote:{choice}", "tally", "withdraw", "tally"
    )
    assert after[choice] == before[choice] + 1
    assert gone == before


@pytest.mark.timeout(400)
def test_nothing_but_80_and_443_of_the_master_answers(platform):
    """A SYN to each of the 65,535 TCP ports of each machine, public and private address."""
    machines = platform.machines()
    addresses = {
        address: name
        for name, m in machines.items()
        for address in (m.get("PublicIpAddress"), m["PrivateIpAddress"])
        if address
    }
    scan = [
        "nmap",
        "-n",
        "-Pn",
        "-sS",
        "-p-",
        "-T5",
        "--min-rate",
        "12000",
        "--max-retries",
        "1",
        "-oG",
        "-",
    ]
    runs = {
        address: subprocess.Popen(
            ["ip", "netns", "exec", "f1-outside", *scan, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for address in addresses
    }
    answers: dict[str, set[tuple[int, str]]] = {}
    for address, run in runs.items():
        out, err = run.communicate(timeout=380)
        assert run.returncode == 0, err
        found = re.findall(r"(\d+)/(open|closed)/tcp", out)
        answers[address] = {(int(port), state) for port, state in found}
    public = machines["f1-master"]["PublicIpAddress"]
    assert answers.pop(public) == {(80, "open"), (443, "open")}
    assert {a: found for a, found in answers.items() if found} == {}
