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
import signal
import sqlite3
import struct
from pathlib import Path

import pytest

from tests.host.store.judge import Ledger, WriterServer, check, copy_to, files, learn

KILLS = 200
CUTS = 60
TEARS_OF_A_CUT = 3
SECTOR = 512
WAL_HEADER = 32
FRAME_HEADER = 24

pytestmark = pytest.mark.timeout(180)


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
            asyncio.run(learn(copy, ledger))
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
            asyncio.run(learn(copy_to(path, tmp_path / "copy"), ledger))
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
