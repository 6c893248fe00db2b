"""The time that a node begins with: from its image, its package, or its last write."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.clock import WallClock
from controlplane.objects.moment import BUILD
from node.appliance import release
from node.supervise import clock

BUILT = BUILD.timestamp()
DAY = 86400.0
Begin = Callable[..., tuple[Any, list[float]]]


@pytest.mark.parametrize(
    ("wall", "seen", "may_be_right", "floor"),
    [
        pytest.param(BUILT + DAY, BUILT + 9 * DAY, True, BUILT, id="a clock of its own"),
        pytest.param(BUILT + DAY, BUILT + 9 * DAY, False, BUILT + 9 * DAY, id="none of its own"),
        pytest.param(5.0, BUILT + 9 * DAY, True, BUILT + 9 * DAY, id="1970 with a battery"),
        pytest.param(5.0, 0.0, True, BUILT, id="1970 at the first start"),
        pytest.param(5.0, BUILT - DAY, False, BUILT, id="seen before this was built"),
    ],
)
def test_the_floor_is_the_latest_time_that_is_known(
    wall: float, seen: float, *, may_be_right: bool, floor: float
) -> None:
    found = clock.floor_of(wall, built=BUILT, seen=seen, may_be_right=may_be_right)
    assert found == floor


def test_what_the_datastore_wrote_last_is_what_was_seen_last(tmp_path: Path) -> None:
    assert clock.last_seen(tmp_path) == 0
    (tmp_path / "server" / "db").mkdir(parents=True)
    for number, name in enumerate(clock.WRITTEN):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (BUILT, BUILT + number))
    assert clock.last_seen(tmp_path) == BUILT + len(clock.WRITTEN) - 1


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begin on a machine; the clock, and what its own was set to."""
    (tmp_path / "run").mkdir()

    def start(
        *, wall: float, image: bool = False, rtc: bool = False, allowed: bool = False
    ) -> tuple[Any, list[float]]:
        machine, told = [wall], []

        def settime(_clock: int, seconds: float) -> None:
            told.append(seconds)
            machine[0] = seconds

        image_release = release.Release(
            version="v1.36.3+pinnace1", board="x86-64", epoch=int(BUILT + 30 * DAY)
        )
        monkeypatch.setattr(release, "read", lambda: image_release if image else None)
        monkeypatch.setattr(clock, "RTC", tmp_path if rtc else tmp_path / "none")
        monkeypatch.setattr(clock, "SYNCHRONIZED", tmp_path / "none")
        monkeypatch.setattr(clock, "WallClock", clocks(machine))
        monkeypatch.setattr(time, "time", lambda: machine[0])
        monkeypatch.setattr(time, "clock_settime", settime)
        settings = {
            "data-dir": str(tmp_path),
            "run-dir": str(tmp_path / "run"),
            "set-clock": allowed,
        }
        made: Any = clock.begin(settings)
        made.machine = machine
        return made, told

    return start


def clocks(machine: list[float]) -> Callable[..., Any]:
    class Clock(WallClock):
        machine: list[float]

        def __init__(self, *, floor: float, sure: bool) -> None:
            super().__init__(floor=floor, sure=sure, wall=lambda: machine[0], steady=lambda: 7.0)

    return Clock


def test_an_appliance_without_a_battery_sets_its_clock_forward(begin: Begin) -> None:
    made, told = begin(wall=5.0, image=True)
    assert told == [BUILT + 30 * DAY]
    assert made.now().timestamp() == BUILT + 30 * DAY
    assert not made.now().sure


def test_a_plain_machine_keeps_its_clock_and_its_objects_are_not_of_1970(begin: Begin) -> None:
    made, told = begin(wall=5.0)
    assert told == []
    assert made.now() == BUILD
    assert not made.now().sure


def test_a_plain_machine_is_set_where_that_was_allowed(begin: Begin) -> None:
    assert begin(wall=5.0, allowed=True)[1] == [BUILT]


def test_an_appliance_goes_on_from_where_it_stopped(begin: Begin, tmp_path: Path) -> None:
    made, _ = begin(wall=BUILT + 90 * DAY, image=True, rtc=True)
    clock.end(made, tmp_path)
    _, told = begin(wall=BUILT + 40 * DAY, image=True)
    assert told == [BUILT + 90 * DAY]


def test_a_clock_with_a_battery_is_believed(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / clock.LAST_SEEN).touch()
    os.utime(tmp_path / clock.LAST_SEEN, (0, BUILT + 1000 * DAY))
    made, told = begin(wall=BUILT + 40 * DAY, image=True, rtc=True)
    assert told == []
    assert made.now().sure


def test_a_clock_that_was_ahead_is_not_the_floor_of_the_next_start(
    begin: Begin, tmp_path: Path
) -> None:
    made, _ = begin(wall=BUILT + 1000 * DAY)
    clock.end(made, tmp_path)
    made.machine[0] = BUILT + 5 * DAY
    made.check()
    assert clock.last_seen(tmp_path) == BUILT + 5 * DAY


def test_what_happened_to_the_clock_is_kept_until_the_machine_stops(
    begin: Begin, tmp_path: Path
) -> None:
    made, _ = begin(wall=5.0)
    made.machine[0] = BUILT + 5 * DAY
    made.check()
    kept = json.loads((tmp_path / "run" / clock.STATE).read_text())
    assert kept["steps"] == [[BUILT, BUILT, BUILT + 5 * DAY]]
    again, _ = begin(wall=BUILT + 5 * DAY)
    assert len(again.now().steps) == 1


def test_a_state_that_cannot_be_read_is_no_obstacle(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "run" / clock.STATE).write_text("{half")
    made, _ = begin(wall=BUILT + DAY)
    assert made.now() == datetime.fromtimestamp(BUILT, UTC) + timedelta(days=1)
