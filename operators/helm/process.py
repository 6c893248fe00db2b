"""
Run a program for a bounded time, in a folder of its own; on a small board one at a time.

Helm takes 90 MiB while it works, and gives them back by ending.
"""

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from operators.helm.base import HelmError

LOG = logging.getLogger(__name__)
LONGEST_MESSAGE = 2000  # characters of stderr in an error
GIB = 2**30
MOST_AT_ONCE = 4


class Runner:
    """
    ``environment`` is all that the programs see, beside a HOME that is removed after.

    ``folder`` is where these are made; nobody else uses it. None: among all temporary files.
    """

    def __init__(
        self, environment: Mapping[str, str], *, folder: Path | None = None, at_once: int = 1
    ) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self._slots = asyncio.Semaphore(at_once)

    async def begin(self) -> None:
        """Remove what a process left that was killed in the middle of its work."""
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            await asyncio.to_thread(self._folder.mkdir, 0o700, parents=True, exist_ok=True)

    async def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float,
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> tuple[int, str, str]:
        """
        Exit code, stdout, stderr. ``files`` are written to the working folder first.
        ``environment`` comes on top of the one that all programs have.

        Raises :class:`HelmError` when the time is over, or the program cannot be started.
        """
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="helm-", dir=self._folder) as folder:
                home = Path(folder)
                await asyncio.to_thread(_write, home, files or {})
                names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME", "TMPDIR")
                seen = self._environment | dict(environment or {}) | dict.fromkeys(names, folder)
                process = await _start(argv, home, seen)
                return await _finish(process, stdin, seconds)


def slots(memory: Path, limit: Path) -> int:
    """
    How many may run at once here: one below 1 GiB of memory, one more for each GiB, four at most.

    ``memory``: /proc/meminfo; ``limit``: memory.max of the control group, where there is one.
    """
    found = GIB // 2
    with suppress(OSError, StopIteration, ValueError):
        lines = memory.read_text().splitlines()
        total = next(line for line in lines if line.startswith("MemTotal:"))
        found = int(total.split()[1]) * 1024
    with suppress(OSError, ValueError):  # "max": no limit
        found = min(found, int(limit.read_text()))
    return min(1 + found // GIB, MOST_AT_ONCE)


async def _start(
    argv: Sequence[str], home: Path, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
    except OSError as err:
        raise HelmError("HelmNotFound", f"cannot start {argv[0]}: {err}") from err


async def _finish(
    process: asyncio.subprocess.Process, stdin: bytes, seconds: float
) -> tuple[int, str, str]:
    try:
        async with asyncio.timeout(seconds):
            out, errors = await process.communicate(stdin)
    except TimeoutError as err:
        raise HelmError("TimedOut", f"Helm did not end within {seconds:.0f} s") from err
    finally:
        await _end(process)
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def _write(home: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (home / name).write_bytes(content)
        (home / name).chmod(0o600)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The whole session, so that what a program started does not outlive it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def last_words(text: str) -> str:
    """The end of what a program printed: the error, where there is one."""
    return text.strip()[-LONGEST_MESSAGE:] or "Helm gave no reason"
