"""
Writes to a store until it is killed, and says what was acknowledged.

A server process that forks one writer for each line on its standard input
(``<database> <seed>``), because importing takes longer than a writer lives. Each
line on standard output is written in one piece: ``pid <n>``; ``try <task> <key>
<number>`` before a write is handed to the store, ``ack <task> <revision>`` after
its coroutine returned; ``stopped`` and ``dead`` when the writer is.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from controlplane.store.base import Store
from controlplane.store.sqlite import SqliteStore

TASKS = 4
KEYS_OF_A_TASK = 3
VOLATILE = "/core/events/"


def value_of(number: int) -> bytes:
    """What a write with that number writes: 30 bytes to 6 kB."""
    return b"%020d" % number + bytes([number % 251]) * (10 if number % 3 else number * 37 % 6000)


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def write(store: Store, task: int, numbers: random.Random) -> None:
    """One write at a time; number 0 is a deletion."""
    found = (await store.range(f"/core/pods/{task}/")).items
    revisions = {item.key: item.revision for item in found}
    while True:
        name = numbers.randrange(KEYS_OF_A_TASK + 1)
        volatile = name == KEYS_OF_A_TASK
        key = f"{VOLATILE}{task}/x" if volatile else f"/core/pods/{task}/{name}"
        number = numbers.randrange(1, 10**9)
        if key in revisions and numbers.random() < 0.2:
            number = 0
        say(f"try {task} {key} {number}")
        if number == 0:
            revision = await store.delete(key, expected=revisions.pop(key))
        elif key in revisions:
            revision = await store.update(key, value_of(number), expected=revisions[key])
        else:
            revision = await store.create(key, value_of(number), volatile=volatile)
        if number:
            revisions[key] = revision
        say(f"ack {task} {revision}")


async def compact(store: Store) -> None:
    while True:
        await store.create("/compactions/x", b"")
        found = await store.get("/compactions/x")
        assert found is not None
        await store.compact(max(1, found.revision - 40))
        await store.delete("/compactions/x", expected=found.revision)
        await asyncio.sleep(0.01)  # leaves room for the others, waits for nothing


async def main(path: Path, seed: int) -> None:
    store = await SqliteStore.open(path)
    say(f"open {store.statistics().revision}")
    for item in (await store.range("/compactions/")).items:
        await store.delete(item.key, expected=item.revision)
    async with asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(write(store, task, random.Random(seed * TASKS + task)))
        group.create_task(compact(store))


def serve() -> None:
    for line in sys.stdin:
        path, seed = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(main(Path(path), int(seed)))
            os._exit(1)
        say(f"pid {pid}")
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            say("stopped")
        say(f"dead {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve()
