"""What keeps the children's memory shared: it must change nothing but that."""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from node.supervise import memory

# In a process of its own: what is made immortal stays so.
FORKED = """
import os, re, sys
from node.supervise import memory
import asyncio, email.message, json, ssl

def copied():
    with open("/proc/self/smaps_rollup") as rollup:
        return int(re.search(r"Private_Dirty: +(\\d+)", rollup.read())[1])

def child():
    before = copied()
    for module in list(sys.modules.values()):
        for value in vars(module).values():
            str(type(value))
    return copied() - before

def measured():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(child()).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))

before = measured()
memory.settle()
print(before, measured())
"""

LIVES_ON = """
import gc
import os
import re
import shutil
from node.supervise import memory

class Thing:
    pass

names = [f"name-{n}" for n in range(3)]
thing = Thing()
thing.names = names
def numbers():
    yield from range(3)
running = numbers()
next(running)
memory.settle()
thing.names.append("more")
del thing, names
gc.collect()
assert list(running) == [1, 2]
assert "name-" + "1" == f"name-{1}"
assert not gc.garbage
print("well")
"""


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_objects_are_reached_wherever_a_processor_puts_them() -> None:
    highest = 0xFFFF_FFFF_FFFF  # of arm64; x86-64 ends at half of it
    assert len(memory._counts()) > highest >> 2


def test_a_process_works_as_before_once_settled() -> None:
    assert _run(LIVES_ON) == "well"


@pytest.mark.skipif(not memory.has_immortal_objects(), reason="Python 3.12 and 3.13 alone")
def test_a_child_copies_little_of_a_settled_process() -> None:
    before, after = map(int, _run(FORKED).split())
    assert after < before / 2


def test_holes_are_filled_once() -> None:
    script = "from node.supervise.memory import fill_holes as f; a = f(); print(a, f())"
    first, second = map(int, _run(script).split())
    assert first > second


@pytest.mark.skipif(not memory.has_immortal_objects(), reason="Python 3.12 and 3.13 alone")
def test_what_an_object_refers_to_becomes_immortal_too() -> None:
    script = """
import sys
import tempfile
from pathlib import Path
from node.supervise import memory
text = "".join(["a", "b"])
def function(): return text
made = memory.make_immortal([function])
assert made > 3
assert sys.getrefcount(function.__code__.co_linetable) == sys.getrefcount(None)
print(sys.getrefcount(function) == sys.getrefcount(text) == sys.getrefcount(None))
"""
    assert _run(script) == "True"


def test_asking_for_immortal_objects_changes_nothing() -> None:
    count = sys.getrefcount(gc)
    memory.has_immortal_objects()
    assert sys.getrefcount(gc) == count


@pytest.mark.skipif(os.geteuid() != 0, reason="for root alone")
def test_a_program_gives_back_what_it_read_and_runs_on() -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,  # /tmp may be memory
        subprocess.Popen(
            [_copy_of_cat(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as cat,
    ):
        program = Path(folder) / "cat"
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write("one\n")
        assert cat.stdout.readline() == "one\n"
        before = _resident(cat.pid, program)
        memory.give_back(cat.pid)
        assert _resident(cat.pid, program) < before
        cat.stdin.write("two\n")
        assert cat.stdout.readline() == "two\n"
        cat.stdin.close()


def test_what_is_gone_has_nothing_to_give_back() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    memory.give_back(done.pid)


def _copy_of_cat(folder: str) -> str:
    """Nobody else maps it."""
    return shutil.copy2(shutil.which("cat") or "/bin/cat", f"{folder}/cat")


def _resident(pid: int, program: Path) -> int:
    """KiB of the program's own pages in memory."""
    found, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(program))
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found
