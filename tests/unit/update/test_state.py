"""The files of an update: replaced whole, and never a reason for a node not to start."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.update.request import Request, from_json, parse, to_json
from node.update.state import HISTORY, Failure, Phase, Records, State, Step

NOW = datetime(2026, 11, 24, 14, tzinfo=UTC)
STATE = State(
    request=Request(version="v1.36.4+pinnace1", plan="fleet", uid="u", url="https://x/y", size=7),
    phase=Phase.TRIAL,
    step=Step.BACK,
    message="it is not healthy",
    times={"Downloading": "2026-11-24T14:00:00Z"},
    from_version="v1.36.3+pinnace1",
    from_slot="a",
    to_slot="b",
    healthy=("Deployment/traefik",),
    has_looked=True,
    snapshot="one",
    schema=1,
    since=12.5,
)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "update")


def test_without_an_update_there_is_no_state(records: Records) -> None:
    assert records.load() is None
    assert records.failed() == {}
    assert records.history() == []
    assert not records.folder.exists()


def test_a_state_is_read_as_it_was_written(records: Records) -> None:
    records.save(STATE)
    assert records.load() == STATE
    assert records.state_file.stat().st_mode & 0o777 == 0o600
    records.save(None)
    assert records.load() is None


def test_fields_of_a_newer_version_are_left_alone(records: Records) -> None:
    records.save(STATE)
    found = json.loads(records.state_file.read_text())
    found["request"]["later"] = found["later"] = {"a": 1}
    records.state_file.write_text(json.dumps(found))
    assert records.load() == STATE


@pytest.mark.parametrize(
    "content",
    [b"", b'{"format": 1, "requ', b"\x00\xff" * 90, b"[]", b'{"phase": "Trial"}', b"null"],
    ids=["empty", "cut off", "garbage", "no object", "half", "null"],
)
def test_a_file_that_cannot_be_read_is_put_aside_and_said(
    records: Records, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    records.save(STATE)
    records.state_file.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert records.load() is None
    assert not records.state_file.exists()
    assert records.state_file.with_name("state.json.unreadable").read_bytes() == content
    assert "cannot be read" in caplog.text


def test_a_damaged_state_amid_a_switch_is_made_up_for(records: Records) -> None:
    records.fallback_file.parent.mkdir(parents=True)
    records.save(replace(STATE, phase=Phase.SWITCHING, step=Step.TRY))
    records.state_file.write_bytes(b"\x00" * 512)
    found = records.load()
    assert found is not None
    # As if the switch had been made: where the old slot runs, that was the trial.
    assert (found.phase, found.step, found.snapshot) == (Phase.SWITCHING, Step.TRIED, "one")
    assert found.boot == ""


def test_what_stands_beside_an_old_snapshot_is_not_mistaken_for_a_state(records: Records) -> None:
    records.fallback_file.parent.mkdir(parents=True)
    records.save(replace(STATE, phase=Phase.SWITCHING, step=Step.TRY))
    records.save(None)
    assert records.load() is None


def test_versions_that_failed_are_remembered_until_they_are_forgotten(records: Records) -> None:
    failure = Failure(at="2026-11-24T14:00:00Z", reason="node pi is not Ready")
    records.remember_failed("v1.36.4+pinnace1", failure)
    records.remember_failed("v1.36.5+pinnace1", failure)
    assert records.failed()["v1.36.4+pinnace1"] == failure
    assert records.forget_failed("v1.36.4+pinnace1")
    assert not records.forget_failed("v1.36.4+pinnace1")
    assert list(records.failed()) == ["v1.36.5+pinnace1"]


def test_the_history_keeps_the_last_ones(records: Records) -> None:
    for number in range(HISTORY + 3):
        records.add_history(replace(STATE, message=str(number)), NOW)
    found = records.history()
    assert len(found) == HISTORY
    assert found[-1]["message"] == str(HISTORY + 2)
    assert found[-1]["at"] == "2026-11-24T14:00:00Z"


# -- requests


def test_a_request_is_read_as_a_plan_writes_it() -> None:
    text = json.dumps(
        {
            "plan": "fleet",
            "uid": "u",
            "version": "v1.36.4+pinnace1",
            "attempt": 2,
            "url": "https://x/y.raucb",
            "sha256": "AB",
            "size": 10,
            "stage": "install",
            "soakSeconds": 5,
            "deadlineSeconds": 700,
            "checks": True,
            "verdict": "failed",
            "verdictMessage": "HTTP web",
            "retryFailed": True,
            "rollback": False,
        }
    )
    found = parse(text)
    assert (found.attempt, found.sha256, found.stage) == (2, "ab", "install")
    assert (found.soak_seconds, found.deadline_seconds) == (5, 700)
    assert (found.checks, found.verdict, found.verdict_message) == (True, "failed", "HTTP web")
    assert found.key == ("u", "v1.36.4+pinnace1", 2, False)
    assert from_json(to_json(found)) == found


def test_a_deadline_is_later_than_the_soak_time() -> None:
    text = '{"plan": "p", "version": "v1.36.4", "soakSeconds": 3600}'
    assert parse(text).deadline_seconds > 3600


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "no JSON object"),
        ('{"plan": "p"}', "names no version"),
        ('{"plan": "p", "version": "latest"}', "is no version"),
        ('{"plan": "p", "version": "v1.36.4", "attempt": "2"}', "attempt is '2'"),
        ('{"plan": "p", "version": "v1.36.4", "checks": 1}', "checks is 1"),
        ('{"plan": "p", "version": "v1.36.4", "stage": "later"}', "stage is 'later'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
