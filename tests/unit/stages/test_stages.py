"""Stage events and the summary at the end."""

import json

import pytest

from tests.conftest import ROOT, load_ext


@pytest.fixture(scope="module")
def summary():
    import salt.config
    import salt.loader

    opts = dict(salt.config.DEFAULT_MASTER_OPTS) | {
        "outputter_dirs": [str(ROOT / "salt/ext/outputters")],
        "utils_dirs": [str(ROOT / "salt/ext/utils")],
        "extension_modules": "",
    }
    return salt.loader.outputters(opts)["summary"]


@pytest.fixture
def events(monkeypatch, tmp_path):
    monkeypatch.setenv("F1_EVENTS", str(tmp_path / "events.jsonl"))
    return load_ext("utils/events.py")


def test_a_stage_is_written_and_drawn(events, tmp_path, capsys):
    events.begin("network", "VPC, subnet")
    ended = events.end("network", "")
    assert ended["seconds"] >= 0
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(e["kind"], e["stage"]) for e in written] == [("begin", "network"), ("end", "network")]
    assert events.read(tmp_path / "events.jsonl") == written
    drawn = capsys.readouterr().err.splitlines()
    assert drawn[0].startswith("  ▸ network")
    assert drawn[1].startswith("  ✓ network")


def test_an_end_without_a_begin_has_no_seconds(events):
    assert events.end("machines", "")["seconds"] is None


def test_without_a_file_it_is_only_drawn(events, monkeypatch, capsys):
    monkeypatch.delenv("F1_EVENTS")
    events.begin("proof", "one vote")
    assert "one vote" in capsys.readouterr().err


def state(result=True, changes=None, comment=""):
    return {"result": result, "changes": changes or {}, "comment": comment}


def test_the_summary_counts_nested_states_once(summary):
    data = {
        "data": {
            "op_master": {
                "salt_|-cluster_|-cluster_|-state": state(
                    changes={
                        "ret": {
                            "f1-master": {
                                "file_|-/etc/a_|-/etc/a_|-managed": state(changes={"diff": "new"}),
                                "file_|-/etc/b_|-/etc/b_|-managed": state(),
                            }
                        }
                    }
                ),
                "test_|-x_|-x_|-nop": state(),
            }
        },
        "retcode": 0,
    }
    text = summary(data)
    assert "3 states, 1 changed, 0 failed" in text
    assert "/etc/a: diff" in text


def test_the_summary_names_the_cause_and_not_its_echoes(summary):
    data = {
        "data": {
            "op_master": {
                "boto_|-vpc_|-f1_|-present": state(result=False, comment="AuthFailure: no"),
                "boto_|-igw_|-f1_|-present": state(
                    result=False, comment="One or more requisite failed: orch.network.vpc"
                ),
            }
        }
    }
    text = summary(data)
    assert "vpc: AuthFailure: no" in text
    assert "igw" not in text
    assert "2 failed" in text


def test_a_plan_says_would(summary):
    data = {"data": {"m": {"file_|-a_|-a_|-managed": state(result=None, changes={"diff": "x"})}}}
    assert "1 would change" in summary(data)


def test_an_error_text_is_shown_as_it_is(summary):
    assert summary("Exception occurred in runner") == "Exception occurred in runner"
