from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.window import Window, parse


def window(days: str, start: str, end: str, zone: str = "UTC") -> Window:
    return parse({"days": days.split(), "startTime": start, "endTime": end, "timeZone": zone})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


WORK = window("mo tue WEDNESDAY 4 fri", "9am", "17:00", "America/Los_Angeles")
NIGHT = window("mo tu we th fr", "11pm", "05:00:00")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2019-03-31T17:00", False),  # a Sunday
        ("2019-04-04T07:49", False),
        ("2019-04-04T15:59:59", False),
        ("2019-04-04T16:00", True),
        ("2019-04-05T00:00:00.999999", True),  # 17:00 there: the end is included
        ("2019-04-05T00:00:01", False),
        ("2019-12-05T16:30", False),  # 8:30 in winter
        ("2019-12-05T17:00", True),
    ],
)
def test_a_window_has_the_hours_of_its_zone(when: str, expected: bool) -> None:
    assert WORK.open(at(when)) is expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2019-04-01T00:00", True),  # Monday, although the window began on a Sunday
        ("2019-04-01T05:00", True),
        ("2019-04-01T05:01", False),
        ("2019-04-01T22:59", False),
        ("2019-04-01T23:00", True),
        ("2019-04-02T00:00", True),
        ("2019-04-05T23:59:59", True),
        ("2019-04-06T00:00", False),  # Saturday
    ],
)
def test_over_midnight_the_day_is_the_one_on_the_clock(when: str, expected: bool) -> None:
    assert NIGHT.open(at(when)) is expected


@pytest.mark.parametrize(
    ("chosen", "now", "expected"),
    [
        pytest.param(NIGHT, "2019-04-02T01:00", "2019-04-02T01:00", id="open"),
        pytest.param(NIGHT, "2019-04-02T12:00", "2019-04-02T23:00", id="tonight"),
        pytest.param(NIGHT, "2019-04-06T12:00", "2019-04-08T00:00", id="midnight-of-monday"),
        pytest.param(WORK, "2019-04-05T20:00", "2019-04-05T20:00", id="here-at-noon"),
        pytest.param(WORK, "2019-04-06T01:00", "2019-04-08T16:00", id="after-the-weekend"),
        pytest.param(
            window("mo", "09:00", "10:00"), "2019-04-01T10:30", "2019-04-08T09:00", id="next-week"
        ),
        pytest.param(
            window("mo tu we th fr sa su", "22:00", "21:59:59"),
            "2019-04-01T21:59:59.5",
            "2019-04-01T21:59:59.5",
            id="always",
        ),
    ],
)
def test_the_next_opening_is_known(chosen: Window, now: str, expected: str) -> None:
    assert chosen.next_opening(at(now)) == at(expected)


def test_what_summer_time_skips_comes_later_that_day() -> None:
    skipped = window("su", "02:15", "02:45", "Europe/Berlin")
    # 2:00 became 3:00 on this day.
    assert skipped.next_opening(at("2024-03-31T00:00")) == at("2024-03-31T01:15")
    assert skipped.open(at("2024-03-31T01:30"))
    assert not skipped.open(at("2024-03-31T02:00"))


def test_what_the_clock_shows_twice_opens_once() -> None:
    twice = window("su", "02:15", "02:45", "Europe/Berlin")
    assert twice.open(at("2024-10-27T00:30"))
    assert not twice.open(at("2024-10-27T01:30"))
    assert twice.next_opening(at("2024-10-27T01:00")) == at("2024-11-03T01:15")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Santiago", "Africa/Cairo"])
@pytest.mark.parametrize(("start", "end"), [("00:30", "03:00"), ("23:30", "00:10")])
def test_there_is_nothing_open_before_the_next_opening(zone: str, start: str, end: str) -> None:
    chosen = window("sa su", start, end, zone)
    now, step = at("2024-03-25T00:00"), timedelta(minutes=10)
    while now < at("2024-04-29T00:00"):
        opening = chosen.next_opening(now)
        assert chosen.open(opening)
        while now < opening:
            assert not chosen.open(now)
            now += step
        now += step


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"days": []}, "at least one"),
        ({"days": None}, "at least one"),
        ({"days": ["someday"]}, "'someday'"),
        ({"days": ["7"]}, "'7'"),
        ({"startTime": ""}, "startTime: ''"),
        ({"startTime": "25:00"}, "startTime: '25:00'"),
        ({"endTime": "13pm"}, "endTime: '13pm'"),
        ({"endTime": "9:5"}, "endTime: '9:5'"),
        ({"timeZone": "Nowhere/City"}, "timeZone: 'Nowhere/City'"),
        ({"timeZone": "../etc"}, "timeZone: '../etc'"),
        ({"timeZone": "Europe"}, "timeZone: 'Europe'"),
    ],
)
def test_what_is_no_window_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    given = {"days": ["mo"], "startTime": "1:00", "endTime": "2:00", "timeZone": "UTC"}
    with pytest.raises(ValueError, match=words):
        parse(given | change)


def test_a_day_may_be_a_number_and_the_zone_is_utc() -> None:
    chosen = parse({"days": [0], "startTime": "12am", "endTime": "12:30pm"})
    assert chosen.open(at("2024-01-07T00:00"))
    assert chosen.open(at("2024-01-07T12:30"))
    assert not chosen.open(at("2024-01-08T12:30"))
