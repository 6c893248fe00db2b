"""
Keep shared what the children share.

A forked child shares every page with the daemon until one of them writes to
it. Most of those writes are not meant: a new object takes a hole between old
ones, and CPython counts references within the objects. So the holes are filled
before the first fork, after which what is new lies together on new pages, and
where Python knows immortal objects (3.12 and 3.13, PEP 683) all that was loaded
becomes immortal: it lives as long as the process anyhow. Measured for the whole
node: 6 MiB less for the holes, 14 for the counts.

Nothing here is needed for a node to work: what this machine's C library or
Python does not have is left out.
"""

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_THP_DISABLE = 41
SYS_PROCESS_MADVISE = 440  # on every architecture
MADV_PAGEOUT = 21
_LARGEST_HOLE = 120 * 1024  # what is larger lies in a mapping of its own (M_MMAP_THRESHOLD)
_SMALLEST_HOLE = 24
_ADDRESSES = 1 << 56  # more than any processor gives to a process: x86-64 2^47, arm64 2^48 or 2^52
# They run, and end, whatever else does.
_RUNNING = frozenset({FrameType, GeneratorType, CoroutineType, AsyncGeneratorType})


def settle() -> None:
    """Call it once, after all modules are loaded and before the first fork."""
    gc.collect()
    if has_immortal_objects():
        make_immortal(gc.get_objects())
    with contextlib.suppress(AttributeError):  # another C library than glibc
        fill_holes()
    gc.freeze()


def small_pages(*, on: bool) -> None:
    """
    Whether this process, and what it starts, uses no huge pages.

    A huge page makes 2 MiB of each small mapping, and children share none of it.
    """
    LIBC.prctl(PR_SET_THP_DISABLE, int(on), 0, 0, 0)


def give_back(pid: int) -> None:
    """
    Take from memory what a program needed only to start: pages of files, none of its data.

    It reads again from the file what it needs later. Of containerd, 6 MiB of 29 are
    needed at rest. What other processes use too stays. Linux 5.10 or later as root;
    elsewhere, nothing happens.
    """
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text()
        process = os.pidfd_open(pid)
        try:
            for first, end in re.findall(r"^(\w+)-(\w+) r-.p .* /.*", maps, re.MULTILINE):
                start = int(first, 16)
                span = (ctypes.c_size_t * 2)(start, int(end, 16) - start)  # struct iovec
                LIBC.syscall(
                    SYS_PROCESS_MADVISE,
                    process,
                    ctypes.byref(span),
                    ctypes.c_size_t(1),
                    MADV_PAGEOUT,
                    0,
                )
        finally:
            os.close(process)


def has_immortal_objects() -> bool:
    return (
        sys.implementation.name == "cpython"
        and (3, 12) <= sys.version_info[:2] <= (3, 13)
        and sys.maxsize > 1 << 32
        and _counts()[id(None) >> 2] == _immortal()
    )


def make_immortal(objects: Iterable[Any]) -> int:
    """These, and all they refer to: never freed, and so never written to. How many there were."""
    counts, immortal, done = _counts(), _immortal(), 0
    layer = list(objects)
    while layer:
        fresh = []
        for thing in layer:
            at = id(thing) >> 2
            if counts[at] != immortal and type(thing) not in _RUNNING:
                counts[at] = immortal
                fresh.append(thing)
        done += len(fresh)
        layer = gc.get_referents(*fresh)
        layer += (part for thing in fresh if type(thing) is CodeType for part in _parts(thing))
    return done


def _parts(code: CodeType) -> Iterator[object]:
    """What a code object refers to, which the collector is not told."""
    yield from (code.co_consts, code.co_names, code.co_name, code.co_qualname)
    yield from (code.co_filename, code.co_linetable, code.co_exceptiontable)


def _counts() -> memoryview:
    """The memory of this process in words of 32 bits: an object begins with its count."""
    everything = (ctypes.c_ubyte * _ADDRESSES).from_address(0)
    return memoryview(everything).cast("B").cast("I")


def _immortal() -> int:
    return sys.getrefcount(None) & 0xFFFFFFFF


def fill_holes() -> int:
    """
    Take every free piece of the heap, for good; how many bytes that were.

    The pieces are in memory already and not written to. Raises AttributeError
    where the C library has no heap of this sort.
    """
    malloc, free, sbrk = LIBC.malloc, LIBC.free, LIBC.sbrk
    malloc.restype = sbrk.restype = ctypes.c_void_p
    malloc.argtypes, free.argtypes, sbrk.argtypes = (
        [ctypes.c_size_t],
        [ctypes.c_void_p],
        [ctypes.c_ssize_t],
    )
    LIBC.malloc_trim(0)
    end, taken, size = sbrk(0), 0, _LARGEST_HOLE
    while size >= _SMALLEST_HOLE:
        piece = malloc(size)
        if piece < end:
            taken += size
        else:  # beyond the old end: no hole of this size is left
            free(piece)
            size -= max(16, size // 16)
    LIBC.malloc_trim(0)
    return taken
