"""
Hears what a writer says and judges whether a store has all that was acknowledged.
"""

import contextlib
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.store.base import Store
from controlplane.store.sqlite import SqliteStore
from tests.host.store.writer import VOLATILE, value_of


@dataclass(slots=True)
class Ledger:
    """
    What the writer said; ``open`` are its writes without an acknowledgement.

    What became of these is learned when the writer is dead. It holds from when the next one has
    opened the store: until then a power cut may still undo what nobody has seen.
    """

    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)  # key → revision, number
    open: dict[str, tuple[str, int]] = field(default_factory=dict)  # task → key, number
    highest: int = 0
    highest_durable: int = 0
    acknowledgements: int = 0
    learned: dict[str, tuple[int, int] | None] = field(default_factory=dict)  # None: it is gone

    def hear(self, line: str) -> None:
        match line.split():
            case ["open", revision]:
                assert int(revision) >= self.highest, "revisions went back"
                self.settle()
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

    def settle(self) -> None:
        for key, found in self.learned.items():
            self.acknowledged.pop(key, None)
            if found is not None:
                self.acknowledged[key] = found
                self.highest_durable = max(self.highest_durable, found[0])
        self.open.clear()
        self.learned.clear()

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


async def learn(path: Path, ledger: Ledger) -> None:
    """What became of the writes in flight; once more if another writer died before it opened."""
    store = await SqliteStore.open(path)
    try:
        found = {item.key: item for item in (await store.range("/core/pods/")).items}
    finally:
        await store.close()
    ledger.learned.clear()
    for key, number in ledger.open.values():
        if key.startswith(VOLATILE):
            continue
        item = found.get(key)
        if item is None:
            ledger.learned[key] = None
        elif item.revision != ledger.acknowledged.get(key, (0, 0))[0]:
            ledger.learned[key] = item.revision, number
