"""
What was acknowledged survives the death of the process and of the machine.

The death of a process keeps what the kernel has; so the death of the machine is
simulated: of the files of a writer that is stopped at some instant, all that
SQLite has not synced by then is torn up, sector by sector.
"""

import asyncio
import contextlib
import os
import random
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.store.base import Store
from controlplane.store.sqlite import SqliteStore
from tests.host.store.writer import VOLATILE, value_of

ROOT = Path(__file__).parents[3]
KILLS = 200
CUTS = 60
TEARS_OF_A_CUT = 3
SECTOR = 512
WAL_HEADER = 32
FRAME_HEADER = 24

pytestmark = pytest.mark.timeout(180)


@dataclass(slots=True)
class Ledger:
    """What the writer said; ``open`` are its writes without an acknowledgement."""

    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)  # key → revision, number
    open: dict[str, tuple[str, int]] = field(default_factory=dict)  # task → key, number
    highest: int = 0
    highest_durable: int = 0
    acknowledgements: int = 0

    def hear(self, line: str) -> None:
        match line.split():
            case ["open", revision]:
                assert int(revision) >= self.highest, "revisions went back"
            case ["try", task, key, number]:
                self.open[task] = key, int(number)
            case ["ack", task, revision]:
                self.acknowledge(task, int(revision))
            case _:
                pass  # of the writer server, not of the writer

    def acknowledge(self, task: str, revision: int) -> None:
        key, number = self.open.pop(task)
        self.acknowledgements += 1
        self.highest = max(self.highest, revision)
        if not key.startswith(VOLATILE):
            self.highest_durable = max(self.highest_durable, revision)
            self.acknowledged[key] = revision, number

    def copy(self) -> "Ledger":
        return Ledger(dict(self.acknowledged), dict(self.open), self.highest, self.highest_durable)


class WriterServer:
    """The other end of writer.py."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self.input = process.stdin
        self.output = process.stdout.fileno()
        self.rest = b""
        self.pid = 0

    def start(self, path: Path, seed: int, ledger: Ledger) -> None:
        self.input.write(f"{path} {seed}\n".encode())
        self.input.flush()
        self.hear_until("pid", ledger)

    def hear_for(self, seconds: float, ledger: Ledger) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for line in self.lines(left):
                assert not line.startswith("dead"), line
                ledger.hear(line)

    def hear_until(self, word: str, ledger: Ledger) -> str:
        """The acknowledgements written before ``word`` have all been heard then."""
        while True:
            heard = ""
            for line in self.lines(20):
                if line.startswith("pid"):
                    self.pid = int(line.split()[1])
                ledger.hear(line)
                if line.startswith(word):
                    heard = line
            if heard:
                return heard

    def lines(self, seconds: float) -> list[str]:
        if not select.select([self.output], [], [], seconds)[0]:
            return []
        content = os.read(self.output, 1 << 20)
        assert content, "the writer server has died"
        *lines, self.rest = (self.rest + content).split(b"\n")
        return [line.decode() for line in lines]

    def kill(self, ledger: Ledger) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.hear_until("dead", ledger) == f"dead {-signal.SIGKILL}"
        self.pid = 0


@pytest.fixture
def writer() -> Iterator[WriterServer]:
    command = [sys.executable, "-m", "tests.host.store.writer"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        server = WriterServer(process)
        yield server
        if server.pid:
            os.kill(server.pid, signal.SIGKILL)


def files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(path.name + "-wal")


def copy_to(path: Path, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name in files(path):
        if name.exists():
            shutil.copy(name, directory / name.name)
    return directory / path.name


async def check(path: Path, ledger: Ledger) -> None:
    """The store opens, has all that was acknowledged, of the rest all or nothing each."""
    store = await SqliteStore.open(path)
    try:
        await check_content(store, ledger)
        # And it can be written to.
        assert await store.create("/check", b"") > ledger.highest
    finally:
        await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def check_content(store: Store, ledger: Ledger) -> None:
    assert store.statistics().revision >= ledger.highest_durable
    found = {item.key: item for item in (await store.range("/core/pods/")).items}
    in_flight = dict(ledger.open.values())
    for key in {*ledger.acknowledged, *found, *in_flight}:
        if key.startswith(VOLATILE):
            continue
        item = found.get(key)
        revision, number = ledger.acknowledged.get(key, (0, 0))
        if item is None:
            assert number == 0 or in_flight.get(key) == 0, f"{key} is lost"
        elif item.revision == revision:
            assert item.value == value_of(number), f"{key} has changed"
        else:
            assert key in in_flight, f"{key} went from {revision} to {item.revision}"
            assert item.revision > revision
            assert item.value == value_of(in_flight[key]), f"{key} was written in part"


async def settle(path: Path, ledger: Ledger) -> None:
    """Learn what became of the writes in flight."""
    store = await SqliteStore.open(path)
    try:
        found = {item.key: item for item in (await store.range("/core/pods/")).items}
    finally:
        await store.close()
    for key, number in ledger.open.values():
        if key.startswith(VOLATILE):
            continue
        item = found.get(key)
        if item is None:
            ledger.acknowledged.pop(key, None)
        elif item.revision != ledger.acknowledged.get(key, (0, 0))[0]:
            ledger.acknowledged[key] = item.revision, number
    ledger.open.clear()


def test_no_kill_loses_an_acknowledged_write(writer: WriterServer, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    chance = random.Random(1)
    ledger = Ledger()
    for round_ in range(KILLS):
        writer.start(path, round_, ledger)
        writer.hear_for(chance.uniform(0.0, 0.15), ledger)
        writer.kill(ledger)
        # The copy is checked, so that the next writer finds the files as they were left.
        if path.exists():
            copy = copy_to(path, tmp_path / "copy")
            asyncio.run(check(copy, ledger))
            asyncio.run(settle(copy, ledger))
    assert ledger.acknowledgements > KILLS


def test_no_power_cut_loses_an_acknowledged_write(writer: WriterServer, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    chance = random.Random(2)
    ledger = Ledger()
    torn = 0
    for round_ in range(CUTS):
        writer.start(path, round_, ledger)
        writer.hear_for(chance.uniform(0.05, 0.3), ledger)
        os.kill(writer.pid, signal.SIGSTOP)
        writer.hear_until("stopped", ledger)
        if path.exists():
            at_stop = ledger.copy()
            instant = copy_to(path, tmp_path / "instant")
            for _ in range(TEARS_OF_A_CUT):
                copy = copy_to(instant, tmp_path / "torn")
                torn += tear(copy, at_stop, chance)
                asyncio.run(check(copy, at_stop))
        writer.kill(ledger)
        if path.exists():
            asyncio.run(settle(copy_to(path, tmp_path / "copy"), ledger))
    assert torn > CUTS


def tear(path: Path, ledger: Ledger, chance: random.Random) -> int:
    """
    Damage what was not synced at the power cut; returns how many sectors.

    SQLite syncs each commit before it begins the next, so that in the log only
    the last one may be unsynced. Into the database pages come by checkpoints;
    until the log begins anew, each of them is also in the synced part of the log.
    """
    database, log = files(path)
    content = bytearray(log.read_bytes()) if log.exists() else bytearray()
    if len(content) < WAL_HEADER:
        return 0
    pages, end = synced(path, bytes(content), ledger)
    torn = scramble(content, end, chance)
    log.write_bytes(content[: chance.choice((len(content), chance.randint(end, len(content))))])
    main = bytearray(database.read_bytes())
    size = page_size(bytes(content))
    for page in pages:
        if page * size <= len(main) and chance.random() < 0.5:
            part = bytearray(main[(page - 1) * size : page * size])
            torn += scramble(part, 0, chance)
            main[(page - 1) * size : page * size] = part
    database.write_bytes(main)
    return torn


def scramble(content: bytearray, start: int, chance: random.Random) -> int:
    """Each sector from ``start`` on stays, was never written, or was written in part."""
    torn = 0
    for position in range(start, len(content), SECTOR):
        length = min(SECTOR, len(content) - position)
        damage = chance.randrange(3)
        if damage:
            sector = bytes(length) if damage == 1 else chance.randbytes(length)
            content[position : position + length] = sector
            torn += 1
    return torn


def page_size(log: bytes) -> int:
    return int(struct.unpack(">I", log[8:12])[0])


def synced(path: Path, log: bytes, ledger: Ledger) -> tuple[set[int], int]:
    """Pages in the synced part of the log, and where it ends."""
    commits: list[tuple[int, set[int]]] = [(WAL_HEADER, set())]
    pages: set[int] = set()
    frame = FRAME_HEADER + page_size(log)
    position = WAL_HEADER
    while log[position + 8 : position + 16] == log[16:24] and position + frame <= len(log):
        page, commit = struct.unpack(">II", log[position : position + 8])
        position += frame
        pages.add(page)
        if commit:
            commits.append((position, set(pages)))
    end, pages = commits[-1]
    # Frames of a next transaction, or an acknowledgement, prove the last commit synced.
    if position > end or len(commits) == 1:
        return pages, end
    before, pages_before = commits[-2]
    if newest_revision(path, log[:before]) >= ledger.highest_durable:
        return pages_before, before
    return pages, end


def newest_revision(path: Path, log: bytes) -> int:
    """In the database with a shorter log."""
    copy = copy_to(path, path.parent.with_name("shorter"))
    files(copy)[1].write_bytes(log)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return 0
        return int(connection.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()[0])
