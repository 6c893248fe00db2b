"""A clock that is set while the node runs: what was written before still means what it meant."""

import asyncio
import ctypes
import errno
import os
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.client.clock import WallClock, open_timer, was_set
from controlplane.objects.moment import (
    BUILD,
    Moment,
    elapsed,
    is_over,
    is_sure,
    left,
    trusts_dates,
)

NOW = datetime(2027, 5, 1, tzinfo=UTC)
DAY, HOUR, MINUTE, SECOND = (
    timedelta(days=1),
    timedelta(hours=1),
    timedelta(minutes=1),
    timedelta(seconds=1),
)


class Machine:
    """Its clock, which anybody may set, and the one that nobody can."""

    def __init__(self, wall: datetime, floor: datetime = BUILD) -> None:
        self.wall, self.steady = wall.timestamp(), 100.0
        self.clock = WallClock(
            floor=floor.timestamp(), wall=lambda: self.wall, steady=lambda: self.steady
        )

    def passes(self, span: timedelta) -> Moment:
        self.wall += span.total_seconds()
        self.steady += span.total_seconds()
        return self.clock.now()

    def set(self, to: datetime) -> Moment:
        self.wall = to.timestamp()
        return self.clock.now()


def test_a_clock_that_nobody_sets_is_the_machines() -> None:
    machine = Machine(NOW)
    assert machine.passes(HOUR) == NOW + HOUR
    assert machine.clock.now().steps == ()
    assert is_sure(machine.clock.now())


def test_a_clock_below_its_floor_goes_on_from_the_floor() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    begun = machine.clock.now()
    assert begun == BUILD
    assert not is_sure(begun)
    assert machine.passes(HOUR) == BUILD + HOUR


@pytest.mark.parametrize(
    "true", [NOW, NOW + 1000 * DAY, BUILD + HOUR], ids=["soon", "years", "barely"]
)
def test_time_that_passed_is_known_over_the_jump_from_1970(true: datetime) -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    began = machine.clock.now()
    machine.passes(30 * MINUTE)
    assert elapsed(began, machine.set(true)) == 30 * MINUTE
    assert elapsed(began, machine.passes(5 * MINUTE)) == 35 * MINUTE
    assert is_sure(machine.clock.now())
    assert machine.clock.now() == true + 5 * MINUTE


@pytest.mark.parametrize("ahead", [10 * HOUR, 3 * 365 * DAY])
def test_time_that_passed_is_known_when_a_clock_is_set_back(ahead: timedelta) -> None:
    machine = Machine(NOW + ahead)
    began = machine.clock.now()
    machine.passes(20 * MINUTE)
    assert elapsed(began, machine.set(NOW)) == 20 * MINUTE
    later = machine.passes(MINUTE)
    assert elapsed(began, later) == 21 * MINUTE
    assert elapsed(NOW, later) == MINUTE  # written after the jump


def test_time_that_passed_is_known_over_several_jumps() -> None:
    machine = Machine(datetime(2012, 3, 4, tzinfo=UTC))
    first = machine.passes(MINUTE)
    machine.set(NOW + 1000 * DAY)
    second = machine.passes(MINUTE)
    machine.set(NOW)
    third = machine.passes(MINUTE)
    last = machine.passes(MINUTE)
    assert [elapsed(at, last) for at in (first, second, third)] == [
        3 * MINUTE,
        2 * MINUTE,
        MINUTE,
    ]


def test_what_an_earlier_start_wrote_is_taken_as_it_is() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    now = machine.set(NOW)
    assert elapsed(BUILD - 10 * DAY, now) == NOW - (BUILD - 10 * DAY)


def test_a_second_that_was_cut_off_belongs_to_its_clock() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    machine.passes(timedelta(seconds=0.7))
    began = machine.clock.now().replace(microsecond=0)
    now = machine.set(NOW)
    assert elapsed(began, now) < 2 * SECOND
    stamped = machine.clock.now().replace(microsecond=0)
    assert elapsed(stamped, machine.passes(MINUTE)) < MINUTE + 2 * SECOND


def test_a_clock_that_is_slewed_makes_no_step() -> None:
    machine = Machine(NOW)
    for _ in range(10):
        machine.wall += 4.0
        machine.passes(HOUR)
    assert machine.clock.now().steps == ()
    assert machine.clock.now() == NOW + 10 * HOUR + 40 * SECOND


def test_what_is_left_of_a_span_ends_when_it_really_ends() -> None:
    machine = Machine(BUILD)
    began = machine.clock.now()
    now = machine.set(NOW)
    assert left(began, HOUR, now) == HOUR
    assert left(began, HOUR, machine.passes(2 * HOUR)) == timedelta(0)


def test_a_wait_that_would_take_years_is_over_or_begins_anew() -> None:
    now = Machine(NOW).clock.now()
    assert left(NOW + 900 * DAY, HOUR, now) == timedelta(0)
    assert left(NOW + 900 * DAY, HOUR, now, ahead=HOUR) == HOUR


def test_an_end_that_was_jumped_over_comes_as_much_later() -> None:
    machine = Machine(BUILD)
    end = BUILD + 10 * DAY
    now = machine.set(NOW)
    assert not is_over(end, now)
    assert is_over(end, machine.passes(11 * DAY))
    assert is_over(BUILD - DAY, now)
    assert not is_over(NOW + DAY, now)


def test_dates_of_others_count_only_once_the_time_is_known() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    assert not trusts_dates(machine.clock.now())
    assert not trusts_dates(machine.set(NOW))
    assert trusts_dates(Machine(NOW).clock.now())
    assert trusts_dates(NOW)


def test_who_is_to_be_told_is_told_once_and_by_how_much() -> None:
    machine = Machine(NOW)
    heard: list[timedelta] = []
    machine.clock.on_step.append(heard.append)
    machine.set(NOW + DAY)
    machine.passes(MINUTE)
    assert heard == [DAY]


def test_a_daemon_that_is_started_again_knows_what_the_one_before_knew() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    began = machine.passes(MINUTE)
    machine.set(NOW)
    again = WallClock(wall=lambda: machine.wall, steady=lambda: machine.steady)
    again.resume(machine.clock.state())
    machine.passes(HOUR)
    assert elapsed(began, again.now()) == HOUR


def test_a_clock_that_was_set_while_no_daemon_ran_is_found_out() -> None:
    machine = Machine(NOW)
    began, state = machine.clock.now(), machine.clock.state()
    machine.passes(MINUTE)
    machine.wall += DAY.total_seconds()
    again = WallClock(wall=lambda: machine.wall, steady=lambda: machine.steady)
    again.resume(state)
    assert elapsed(began, again.now()) == MINUTE


@pytest.mark.parametrize("state", [{}, {"offset": "x"}, {"steps": 1}, {"steps": [[1, 2]]}])
def test_what_is_no_state_is_refused_and_changes_nothing(state: dict[str, object]) -> None:
    machine = Machine(NOW)
    with pytest.raises((KeyError, TypeError, ValueError)):
        machine.clock.resume(state)
    assert machine.clock.now() == NOW


def test_the_kernels_timer_is_quiet_while_nobody_sets_the_clock() -> None:
    timer = open_timer()
    try:
        assert not was_set(timer)
    finally:
        os.close(timer)


def test_a_timer_that_was_cancelled_says_so_and_is_made_ready_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timer = open_timer()

    def read(_handle: int, _size: int) -> bytes:
        raise OSError(errno.ECANCELED, "cancelled")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "read", read)
            assert was_set(timer)
        assert not was_set(timer)
    finally:
        os.close(timer)


async def test_a_loop_hears_of_a_clock_that_was_set() -> None:
    """The kernel's part is played by a pipe: nobody may set this machine's clock."""
    machine, heard = Machine(NOW), asyncio.Event()
    machine.clock.on_step.append(lambda _by: heard.set())
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, machine.clock.heard, ours)
    try:
        machine.wall += DAY.total_seconds()
        os.write(theirs, b"8 bytes!")
        await asyncio.wait_for(heard.wait(), 5)
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)


def test_the_c_library_is_asked_where_python_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "timerfd_create", raising=False)
    monkeypatch.delattr(os, "timerfd_settime", raising=False)
    timer = open_timer()
    try:
        setting = ctypes.create_string_buffer(32)
        assert ctypes.CDLL(None).timerfd_gettime(timer, setting) == 0
        assert any(setting.raw)  # it is armed
    finally:
        os.close(timer)
