"""
The steps of an update, what came of them, and the decisions that name them: values alone.

:mod:`node.update.plan` decides on them; the agent performs some (:mod:`node.update.apply`), and
whoever is alone on the machine the others (:mod:`node.update.recover`).
"""

from dataclasses import dataclass
from typing import Any

from node.update.state import State

# Steps. The agent's:


@dataclass(frozen=True, slots=True)
class Download:
    pass


@dataclass(frozen=True, slots=True)
class Check:
    pass


@dataclass(frozen=True, slots=True)
class Install:
    pass


@dataclass(frozen=True, slots=True)
class Look:
    """At what is healthy before anything is drained or stopped: it must be so again."""


@dataclass(frozen=True, slots=True)
class StopNode:
    """Ask the daemon to end all children and to go on alone."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Who was alone came to no end, and the node works again: what was begun is void."""


@dataclass(frozen=True, slots=True)
class Commit:
    pass


@dataclass(frozen=True, slots=True)
class Cancel:
    """The request was taken away: forget what was fetched for it."""


@dataclass(frozen=True, slots=True)
class Report:
    """Nothing to do but to say so."""


@dataclass(frozen=True, slots=True)
class Wait:
    until: float | None = None  # uptime; None: until something happens


# Steps of the one who is alone:


@dataclass(frozen=True, slots=True)
class Snapshot:
    pass


@dataclass(frozen=True, slots=True)
class TryOnce:
    """``/etc`` and ``/var`` are copied for the other slot before it is chosen."""


@dataclass(frozen=True, slots=True)
class CancelTry:
    pass


@dataclass(frozen=True, slots=True)
class Restart:
    pass


@dataclass(frozen=True, slots=True)
class Restore:
    """Keep what the trial wrote, and put the snapshot in its place."""


@dataclass(frozen=True, slots=True)
class MarkFailed:
    version: str  # "": remember none (a rollback that did not work out)


@dataclass(frozen=True, slots=True)
class Start:
    """Nothing is left to do before the children are started."""


AgentStep = (
    Download
    | Check
    | Install
    | Look
    | StopNode
    | GiveUp
    | Restart
    | Commit
    | Cancel
    | Report
    | Wait
)
LoneStep = Snapshot | TryOnce | CancelTry | Restart | Restore | MarkFailed | Start


@dataclass(frozen=True, slots=True)
class Decision:
    state: State | None  # to be on disk before the step; None: no file
    step: AgentStep


@dataclass(frozen=True, slots=True)
class LoneDecision:
    state: State | None
    step: LoneStep


@dataclass(frozen=True, slots=True)
class Done:
    """A step was performed; ``value`` by step, see :func:`after`."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """``reason`` of a refusal; "": it may be tried again."""

    message: str
    reason: str = ""


Outcome = Done | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A snapshot that was made."""

    name: str
    schema: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of a trial's writes."""

    count: int  # objects that were written
    note: str = ""  # what the user should know of it
