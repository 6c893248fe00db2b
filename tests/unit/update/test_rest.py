"""What an idle node looks at: whether anything of an update is left to do, and nothing more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.update.request import Request
from node.update.rest import (
    UNTOLD,
    VOID,
    is_answered,
    mark_void,
    needs_one_alone,
    needs_the_agent,
)
from node.update.state import ENDS, Phase, Records, State


@pytest.mark.parametrize("phase", list(Phase))
def test_who_is_needed_by_phase(tmp_path: Path, phase: Phase) -> None:
    Records(tmp_path).save(State(request=Request(version="v1.36.4"), phase=phase))
    assert needs_one_alone(tmp_path) == (phase in (Phase.SWITCHING, Phase.TRIAL))
    assert needs_the_agent(tmp_path) == (phase not in ENDS)
    (tmp_path / UNTOLD).touch()
    assert needs_the_agent(tmp_path)


def test_without_an_update_nobody_is_needed(tmp_path: Path) -> None:
    assert not needs_one_alone(tmp_path)
    assert not needs_the_agent(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_state_that_cannot_be_read_is_looked_at_by_both(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert needs_one_alone(tmp_path)
    assert needs_the_agent(tmp_path)


def test_a_report_answers_the_request_that_it_repeats_and_only_at_its_end() -> None:
    request = {"uid": "u", "version": "v1.36.4", "plan": "p"}
    report = {"uid": "u", "version": "v1.36.4", "attempt": 1, "rollback": False}
    ended = json.dumps(report | {"phase": "Committed"})
    assert is_answered(json.dumps(request), ended)
    assert not is_answered(json.dumps(request), json.dumps(report | {"phase": "Trial"}))
    assert not is_answered(json.dumps(request | {"attempt": 2}), ended)
    assert not is_answered(json.dumps(request | {"rollback": True}), ended)
    assert not is_answered(json.dumps(request), "")
    assert not is_answered("{", ended)


def test_only_the_old_slot_makes_a_snapshot_void(tmp_path: Path) -> None:
    state = State(request=Request(version="v1.36.4"), phase=Phase.TRIAL, from_slot="a", to_slot="b")
    Records(tmp_path).save(state)
    mark_void(tmp_path, "b")
    assert not (tmp_path / VOID).exists()
    mark_void(tmp_path, "a")
    assert (tmp_path / VOID).exists()


def test_an_idle_agent_loads_two_modules_of_updates() -> None:
    code = "import node.run, sys; print(*sorted(m for m in sys.modules if 'node.update.' in m))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["node.update.rest", "node.update.watch"]
