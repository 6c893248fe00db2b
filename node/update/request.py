"""
What an update is asked to do: by a plan through an annotation on the Node, or by a person here.

The form is that of ``upgrade.pinnace.dev/request`` (operators/upgrade/base.py), parsed once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.update import version

REQUEST = "upgrade.pinnace.dev/request"
REPORT = "upgrade.pinnace.dev/report"
DEFAULT_SOAK, DEFAULT_DEADLINE = 60, 900
_LEEWAY = 10  # seconds from healthy to the deadline, besides the soak time

Key = tuple[str, str, int, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    version: str  # "": whatever the bundle is (asked for by a person)
    plan: str = ""  # "": a person
    uid: str = ""
    attempt: int = 1
    url: str = ""  # https://…, file://… or an absolute path
    sha256: str = ""  # hex; "": not said
    size: int = 0  # bytes; 0: not said
    stage: str = "switch"  # "install": and no further
    soak_seconds: int = DEFAULT_SOAK
    deadline_seconds: int = DEFAULT_DEADLINE  # of a trial, from its start to its commit
    checks: bool = False  # the verdict must be "passed" as well
    verdict: str = ""  # "passed" | "failed"
    verdict_message: str = ""
    retry_failed: bool = False
    rollback: bool = False  # leave ``version``, which runs, for the other slot
    without_snapshot: bool = False  # also where the datastore cannot be copied

    @property
    def key(self) -> Key:
        """Two requests with the same key are the same request, perhaps at another stage."""
        return self.uid, self.version, self.attempt, self.rollback


_WORDS = {"stage": ("install", "switch"), "verdict": ("", "passed", "failed")}


def parse(text: str) -> Request:
    """Raises ValueError, one line for whoever wrote it."""
    try:
        found = json.loads(text)
    except ValueError as err:
        raise ValueError(f"the annotation {REQUEST} is not JSON: {err}") from err
    if not isinstance(found, Mapping):
        raise ValueError(f"the annotation {REQUEST} is no JSON object")
    return from_json(found)


def from_json(found: Mapping[str, Any]) -> Request:
    """Fields that are not known are left alone: a newer version may have written them."""
    text, number, flag = (
        _reader(found, str, ""),
        _reader(found, int, 0),
        _reader(found, bool, False),
    )
    made = Request(
        version=text("version"),
        plan=text("plan"),
        uid=text("uid"),
        attempt=number("attempt", 1),
        url=text("url"),
        sha256=text("sha256").lower(),
        size=number("size"),
        stage=text("stage", "switch"),
        soak_seconds=(soak := max(0, number("soakSeconds", DEFAULT_SOAK))),
        deadline_seconds=max(number("deadlineSeconds", DEFAULT_DEADLINE), soak + _LEEWAY),
        checks=flag("checks"),
        verdict=text("verdict"),
        verdict_message=text("verdictMessage"),
        retry_failed=flag("retryFailed"),
        rollback=flag("rollback"),
        without_snapshot=flag("withoutSnapshot"),
    )
    for name, words in _WORDS.items():
        if getattr(made, name) not in words:
            raise ValueError(f"{name} is {getattr(made, name)!r}, and may be {' or '.join(words)}")
    if made.version:
        version.parse(made.version)
    elif made.plan:
        raise ValueError("the request names no version")
    return made


def _reader(found: Mapping[str, Any], kind: type, default: Any) -> Any:
    def read(name: str, otherwise: Any = default) -> Any:
        value = found.get(name, otherwise)
        if value is None:
            return otherwise
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{name} is {value!r}, which is no {kind.__name__}")
        return value

    return read


def to_json(request: Request) -> dict[str, Any]:
    """As short as it can be: what has its default is left out."""
    names = {
        "soak_seconds": "soakSeconds",
        "deadline_seconds": "deadlineSeconds",
        "verdict_message": "verdictMessage",
        "retry_failed": "retryFailed",
        "without_snapshot": "withoutSnapshot",
    }
    default = Request(version="")
    fields = Request.__dataclass_fields__
    values = {name: getattr(request, name) for name in fields}
    return {
        names.get(name, name): value
        for name, value in values.items()
        if value != getattr(default, name) or name == "version"
    }
