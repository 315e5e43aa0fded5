"""salt-cloud's answer as text, and the exit code that it deserves."""

import pytest
import salt.config
import salt.loader

from tests.conftest import ROOT


@pytest.fixture
def shown():
    opts = salt.config.master_config(None)
    opts["outputter_dirs"] = [str(ROOT / "salt/ext/outputters")]
    opts["color"] = False
    opts["output"] = "machines"
    return salt.loader.outputters(opts)["machines"]


def test_what_went_well_is_text(shown):
    text = shown({"f1-master": {"state": "running", "Error": ""}})
    assert "f1-master" in text
    assert "running" in text


@pytest.mark.parametrize(
    "answer",
    [
        {"f1-worker-1": {"Error": "no capacity"}, "f1-worker-2": {"state": "running"}},
        {"aws": {"ec2": {"f1-worker-1": {"Error": "no capacity"}}}},
        {"Not Found": ["f1-worker-7 no capacity"], "Not Actioned/Not Running": ["f1-worker-7"]},
    ],
    ids=["a map", "an action", "nobody of that name"],
)
def test_a_failed_machine_ends_the_command_with_1_after_its_text(shown, answer, capsys):
    with pytest.raises(SystemExit) as end:
        shown(answer)
    assert end.value.code == 1
    assert "no capacity" in capsys.readouterr().out
