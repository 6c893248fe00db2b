"""
What was acknowledged is on the block device, not only in the kernel's memory.

The store lies on a filesystem in an image. The image, at an instant at which the
writer is stopped, is what a machine finds after a power cut: the kernel's
unwritten pages are not in it.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.store.base import StoreError
from controlplane.store.sqlite import SqliteStore
from tests.host.store.judge import Ledger, WriterServer, check, copy_to, learn

CUTS = 25

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@contextlib.contextmanager
def mounted(image: Path, directory: Path, *, options: str = "loop") -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    run("mount", "-o", options, str(image), str(directory))
    try:
        yield directory
    finally:
        run("umount", str(directory))


@contextlib.contextmanager
def stopping(writer: WriterServer, ledger: Ledger) -> Iterator[None]:
    """A writer that lives on keeps the filesystem from being unmounted."""
    try:
        yield
    finally:
        if writer.pid:
            writer.kill(ledger)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def test_a_power_cut_keeps_what_was_acknowledged(writer: WriterServer, tmp_path: Path) -> None:
    image, instant = tmp_path / "disk", tmp_path / "instant"
    image.write_bytes(b"")
    os.truncate(image, 24 << 20)
    run("mkfs.ext4", "-q", str(image))
    chance = random.Random(3)
    ledger = Ledger()
    # The filesystem's own commits are put off, so that only syncs reach the image.
    live = tmp_path / "live"
    with mounted(image, live, options="loop,commit=600"), stopping(writer, ledger):
        for round_ in range(CUTS):
            writer.start(live / "db" / "state.db", round_, ledger)
            writer.hear_for(chance.uniform(0.02, 0.3), ledger)
            os.kill(writer.pid, signal.SIGSTOP)
            writer.hear_until("stopped", ledger)
            at_stop = ledger.copy()
            shutil.copy(image, instant)
            with mounted(instant, tmp_path / "after") as after:
                # Before the first acknowledgement there may be no file at all.
                assert (after / "db" / "state.db").exists() or not at_stop.acknowledged
                asyncio.run(check(after / "db" / "state.db", at_stop))
            writer.kill(ledger)
            asyncio.run(learn(copy_to(live / "db" / "state.db", tmp_path / "copy"), ledger))
    assert ledger.acknowledgements > CUTS


async def test_a_full_filesystem_fails_writes_until_there_is_space(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    await asyncio.to_thread(run, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory))
    try:
        ballast = directory / "ballast"
        ballast.write_bytes(bytes(300_000))
        store = await SqliteStore.open(directory / "state.db")
        written = 0
        with pytest.raises(StoreError, match="no space left"):  # noqa: PT012 - at some write
            for written in range(1000):
                await store.create(f"/{written}", bytes(3000))
        assert written > 10
        assert (await store.range("")).revision == written
        ballast.unlink()
        assert await store.create("/after", b"") == written + 1
        await store.close()
        store = await SqliteStore.open(directory / "state.db")
        assert store.statistics().keys == written + 1
        await store.close()
    finally:
        await asyncio.to_thread(run, "umount", str(directory))


async def test_a_read_only_filesystem_is_refused_with_its_cause(tmp_path: Path) -> None:
    directory = tmp_path / "read-only"
    directory.mkdir()
    await asyncio.to_thread(run, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(directory))
    try:
        with pytest.raises(StoreError, match="Read-only file system: its directory must"):
            await SqliteStore.open(directory / "state.db")
    finally:
        await asyncio.to_thread(run, "umount", str(directory))
