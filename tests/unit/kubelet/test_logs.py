"""Reading what the runtime wrote."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.kubelet import housekeeping, logs
from node.kubelet.logs import Wanted
from tests.unit.kubelet.pods import NOW

LINES = [
    b"2026-03-01T12:00:01.000000001Z stdout F one",
    b"2026-03-01T12:00:02.000000001Z stderr F two",
    b"2026-03-01T12:00:03.000000001Z stdout P thr",
    b"2026-03-01T12:00:03.000000002Z stdout F ee",
    b"2026-03-01T12:00:04.000000001Z stdout F four",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    return path


async def text(path: Path, wanted: Wanted) -> str:
    pieces = [piece async for piece in logs.read(path, wanted, lambda: False)]
    return b"".join(pieces).decode()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), "one\ntwo\nthree\nfour\n"),
        (Wanted(tail=0), ""),
        (Wanted(tail=1), "four\n"),
        (Wanted(tail=2), "three\nfour\n"),
        (Wanted(tail=99), "one\ntwo\nthree\nfour\n"),
        (Wanted(limit=5), "one\nt"),
        (Wanted(stream="Stderr"), "two\n"),
        (Wanted(stream="Stdout", tail=2), "three\nfour\n"),
        (Wanted(since=datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)), "three\nfour\n"),
        (
            Wanted(timestamps=True, tail=2),
            "2026-03-01T12:00:03.000000001Z three\n2026-03-01T12:00:04.000000001Z four\n",
        ),
    ],
)
async def test_a_log_is_selected_from(log: Path, wanted: Wanted, expected: str) -> None:
    assert await text(log, wanted) == expected


async def test_a_line_cut_short_by_a_power_cut_is_left_out(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"2026-03-01T12:0")
    assert (await text(log, Wanted())).endswith("four\n")


async def test_a_log_longer_than_a_block_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    with path.open("wb") as file:
        for number in range(20_000):
            file.write(b"2026-03-01T12:00:01.000000001Z stdout F line %d\n" % number)
    assert await text(path, Wanted(tail=3)) == "line 19997\nline 19998\nline 19999\n"
    assert len((await text(path, Wanted(tail=5_000))).splitlines()) == 5_000


async def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await text(tmp_path / "no.log", Wanted()) == ""


def _rotate(log: Path, text: bytes) -> None:
    log.rename(log.with_name("0.log.1"))
    log.write_bytes(text)


async def test_a_follower_goes_on_in_the_new_file_after_a_rotation(log: Path) -> None:
    alive = [True]
    reader = logs.read(log, Wanted(follow=True, tail=1), lambda: alive[0])
    assert await anext(reader) == b"four\n"
    _rotate(log, b"2026-03-01T12:00:05.000000001Z stdout F five\n")
    assert await anext(reader) == b"five\n"
    alive[0] = False
    with log.open("ab") as file:
        file.write(b"2026-03-01T12:00:06.000000001Z stdout F six\n")
    assert [piece async for piece in reader] == [b"six\n"]


def test_only_a_long_log_is_rotated_and_old_ones_are_packed(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"short")
    assert housekeeping.rotate(path, NOW) is False
    for minute in range(6):
        path.write_bytes(b"x" * (10 << 20))
        assert housekeeping.rotate(path, NOW.replace(minute=minute)) is True
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "0.log.20260301-120200.gz",
        "0.log.20260301-120300.gz",
        "0.log.20260301-120400.gz",
        "0.log.20260301-120500",
    ]
    assert len(gzip.decompress((tmp_path / names[0]).read_bytes())) == 10 << 20
