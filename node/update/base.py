"""
The contract between an update and where versions are kept.

A machine has two slots. One runs; the other can be written, and then be started **once**, on
trial: whatever happens then (a panic, a hang, a power cut, a check that fails), the next start
is the old slot again, unless :meth:`Slots.commit` was called meanwhile. Who decides about all
of this is :mod:`node.update.plan`; a ``Slots`` only does what it is told, and each of
its methods leaves the machine in one of the two states it names, wherever the power is cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.update.version import Version


class RefusedError(Exception):
    """
    This version may not be installed, and trying again does not help.

    ``reason`` is one of: BadSignature, WrongBoard, Downgrade, SameVersion, Truncated, Tampered,
    NotABundle, FailedBefore, TooLarge, NoSlots. The text is one line for the user.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InstallError(Exception):
    """It did not work this time (no space, no network, an I/O error): it may be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    name: str  # "a" | "b"
    version: Version | None  # None: empty, or written only in part
    bad: bool  # was tried and left, or is being written


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a verified bundle says of itself; its signature was checked."""

    version: Version
    board: str  # "x86-64", "rpi-arm64"; of packages: the architecture, "package-amd64"
    size: int  # bytes of the file
    path: Path


class Slots(Protocol):
    @property
    def board(self) -> str: ...

    async def running(self) -> Slot: ...

    async def other(self) -> Slot: ...

    async def on_trial(self) -> bool:
        """Whether this start is the one try of the running slot, not committed yet."""
        ...

    async def check(self, bundle: Path) -> Bundle:
        """
        Verify signature, completeness and board of a bundle, without writing.

        Raises :class:`RefusedError` (BadSignature, WrongBoard, Truncated, Tampered, NotABundle).
        """
        ...

    async def install(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        """
        Write the bundle into the other slot, which is bad until that is complete.

        ``progress`` is told percents. The payload is verified as it is read.
        Raises :class:`RefusedError` or :class:`InstallError`; the running slot is untouched.
        """
        ...

    async def try_once(self) -> None:
        """
        The next start, and only that one, is the other slot. On disk when this returns.

        A Raspberry Pi only carries it through :meth:`restart`: a start that comes otherwise (a
        power cut before it) is one of the running slot.
        """
        ...

    async def cancel_try(self) -> None:
        """The next start is the running slot, as it was before :meth:`try_once`."""
        ...

    async def commit(self) -> None:
        """The running slot is the one to start from now on. On disk when this returns."""
        ...

    async def mark_bad(self) -> None:
        """The other slot must never be started (it was tried and left)."""
        ...

    async def restart(self) -> None:
        """Start what was chosen: a reboot, or of packages a restart of the service."""
        ...
