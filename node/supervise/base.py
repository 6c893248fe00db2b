"""
What a supervised child is: how it is started, and what must be ready before.

Two sorts. A forked child shares the modules that the daemon loaded: its
``main(settings, ready)`` is called by name. An executed one is another
program; it says that it is ready by systemd's notification protocol.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    name: str
    module: str  # its ``main(settings, ready) -> int`` is called
    settings: Mapping[str, Any]
    after: tuple[str, ...] = ()  # children that must have been ready once


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    name: str
    argv: tuple[str, ...]
    log: Path  # where its output goes
    environment: Mapping[str, str] = field(default_factory=dict)  # besides the daemon's own
    after: tuple[str, ...] = ()


Service = Forked | Executed


class Phase(enum.Enum):
    WAITING = enum.auto()  # never started, or dead and waiting for its next start
    STARTING = enum.auto()
    READY = enum.auto()
    STOPPING = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the supervisor knows of one child; times are monotonic seconds."""

    service: Service
    phase: Phase = Phase.WAITING
    since: float = 0.0  # when the phase began
    was_ready: bool = False  # at least once in the life of the daemon
    failures: int = 0  # deaths in a row without a long enough life between
    heard: float = 0.0  # the last sign of life
    asked: float | None = None  # the unanswered sign of life that was asked for first
