"""
How far an update has come, on disk: read at each start, replaced atomically before each step.

A file that cannot be read never stops the node: it is put aside under another name, and said.
Another version of Pinnace may have written it, so that unknown fields are no error.
"""

import contextlib
import enum
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from node.host.files import sync_directory, write_atomic
from node.update import request as requests
from node.update.request import Request

LOG = logging.getLogger(__name__)
HISTORY = 20  # updates remembered
_SHORT = 2000  # characters of a message: it ends in an annotation


class Phase(enum.StrEnum):
    """As in the report; the last four are ends."""

    DOWNLOADING = "Downloading"
    INSTALLING = "Installing"
    INSTALLED = "Installed"
    SWITCHING = "Switching"
    TRIAL = "Trial"
    COMMITTED = "Committed"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"
    FAILED = "Failed"


ENDS = frozenset({Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED, Phase.FAILED})


class Step(enum.StrEnum):
    """Where within a phase: what is begun, and may have been done or not."""

    NONE = ""
    CHECKED = "checked"  # Installing: the bundle is good, and is being written
    STOP = "stop"  # Switching: the node is being stopped; after that the snapshot is made
    TRY = "try"  # Switching: there is a snapshot; the other slot is being chosen
    TRIED = "tried"  # Switching: it was chosen, and the machine is being restarted
    CANCEL = "cancel"  # Switching: it did not work, and the choice is being taken back
    BACK = "back"  # Trial: it will be left; the machine is being restarted
    LEFT = "left"  # Trial: it was left; the snapshot is being restored
    MARK = "mark"  # Trial: it was restored; the version is being remembered as failed


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    request: Request
    phase: Phase
    step: Step = Step.NONE
    reason: str = ""  # of an end: a CamelCase word
    message: str = ""  # one line
    times: Mapping[str, str] = field(default_factory=dict)  # phase → when it began
    from_version: str = ""
    from_slot: str = ""
    to_slot: str = ""
    healthy: tuple[str, ...] = ()  # what must be healthy again: it was before
    has_looked: bool = False  # at that
    attempts: int = 0  # how often the other slot was chosen
    snapshot: str = ""  # name of the file; "": none was made
    schema: int = 0  # of the datastore in the snapshot
    boot: str = ""  # boot id when the other slot was chosen, later: of the trial
    since: float = 0.0  # uptime at which the trial began, seconds
    kept: str = ""  # folder of what the trial wrote
    kept_count: int = 0

    @property
    def has_ended(self) -> bool:
        return self.phase in ENDS

    def at(self, phase: Phase, now: datetime, **more: Any) -> "State":
        """In the next phase, with nothing begun in it."""
        times = self.times if phase in self.times else {**self.times, phase.value: stamp(now)}
        values = {"step": Step.NONE, "message": "", "reason": "", "times": times} | more
        values["message"] = values["message"][:_SHORT]
        return replace(self, phase=phase, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A version that was tried and left."""

    at: str
    reason: str


def stamp(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


class Records:
    """The files of updates in ``<data>/update``. All of it blocks on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_file = folder / "state.json"
        self.failed_file = folder / "failed.json"
        self.history_file = folder / "history.json"
        self.fallback_file = folder / "snapshot" / "state.json"  # beside what it speaks of

    def load(self) -> State | None:
        """
        None where no update was ever begun, or nothing is known of it any more.

        A damaged file during a switch is made up for by the one beside the snapshot: where the
        old version runs again, the trial was left.
        """
        found, is_damaged = self._read(self.state_file)
        state = self._parsed(self.state_file, found) if found is not None else None
        if state is not None or not (is_damaged or found is not None):
            return state
        found, _ = self._read(self.fallback_file)
        return self._parsed(self.fallback_file, found) if found is not None else None

    def save(self, state: State | None) -> None:
        """On disk when it returns."""
        if state is None:
            self.state_file.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                sync_directory(self.folder)
            return
        self._write(self.state_file, to_json(state))
        if state.snapshot and not state.has_ended and self.fallback_file.parent.is_dir():
            assumed = replace(state, phase=Phase.SWITCHING, step=Step.TRIED, boot="")
            if not self.fallback_file.exists():
                self._write(self.fallback_file, to_json(assumed))

    def failed(self) -> dict[str, Failure]:
        """By version."""
        found, _ = self._read(self.failed_file)
        out = {}
        for name, value in (found if isinstance(found, Mapping) else {}).items():
            with contextlib.suppress(KeyError, TypeError):
                out[name] = Failure(at=str(value["at"]), reason=str(value["reason"]))
        return out

    def remember_failed(self, version: str, failure: Failure) -> None:
        known = {**self.failed(), version: failure}
        self._write(
            self.failed_file, {v: {"at": f.at, "reason": f.reason} for v, f in known.items()}
        )

    def forget_failed(self, version: str) -> bool:
        """False: it was not remembered."""
        known = self.failed()
        if known.pop(version, None) is None:
            return False
        self._write(
            self.failed_file, {v: {"at": f.at, "reason": f.reason} for v, f in known.items()}
        )
        return True

    def history(self) -> list[dict[str, str]]:
        """The newest last."""
        found, _ = self._read(self.history_file)
        return [dict(item) for item in found] if isinstance(found, list) else []

    def add_history(self, state: State, now: datetime) -> None:
        entry = {
            "version": state.request.version,
            "from": state.from_version,
            "phase": state.phase.value,
            "plan": state.request.plan,
            "message": state.message,
            "at": stamp(now),
        }
        self._write(self.history_file, [*self.history(), entry][-HISTORY:])

    def _write(self, path: Path, content: Any) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, json.dumps(content, indent=1) + "\n", mode=0o600)

    def _read(self, path: Path) -> tuple[Any, bool]:
        """(content, or None where there is none; whether it was there and damaged)."""
        try:
            found = json.loads(path.read_bytes())
            if found is None:
                raise ValueError("it says nothing")
            return found, False
        except FileNotFoundError:
            return None, False
        except (OSError, ValueError) as err:
            self._put_aside(path, str(err))
            return None, True

    def _parsed(self, path: Path, found: Any) -> State | None:
        try:
            return from_json(found)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            self._put_aside(path, str(err))
            return None

    def _put_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + ".unreadable")
        with contextlib.suppress(OSError):
            path.replace(aside)
        LOG.error("%s cannot be read (%s): it is %s now; the node goes on", path, why, aside.name)


def to_json(state: State) -> dict[str, Any]:
    out: dict[str, Any] = {"format": 1, "request": requests.to_json(state.request)}
    for item in fields(state):
        value = getattr(state, item.name)
        if item.name != "request":
            out[item.name] = list(value) if isinstance(value, tuple) else value
    return out


def from_json(found: Mapping[str, Any]) -> State:
    """Raises KeyError, TypeError or ValueError where it is no state."""
    known = {item.name for item in fields(State)} - {"request", "phase", "step", "healthy"}
    values = {name: found[name] for name in known & found.keys()}
    for name, kind in (("has_looked", bool), ("attempts", int), ("schema", int)):
        if not isinstance(values.get(name, kind()), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    healthy: Sequence[str] = found.get("healthy", ())
    values["since"] = float(values.get("since", 0.0))
    values["times"] = {str(k): str(v) for k, v in dict(values.get("times", {})).items()}
    return State(
        request=requests.from_json(found["request"]),
        phase=Phase(found["phase"]),
        step=Step(found.get("step", "")),
        healthy=tuple(str(name) for name in healthy),
        **values,
    )
