"""
Whether the objects of a release are still as the release made them.

The question is put to the API: applying the manifest once more, without doing it,
gives what would be there; what differs from what is there has drifted. Defaults,
admission and fields of other owners are the API's business that way, not ours.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from operators.config import Config
from operators.helm.base import HelmError, Target
from operators.helm.process import Runner, last_words
from operators.helm.status import Said
from operators.helm.wanted import Drift

CHECK_SECONDS = 300
TOLD = 8  # objects that are named in a message
PATHS = 4  # and places in each of them
_MISSING = object()
# Kept by the API, not by whoever applies.
_KEPT = frozenset({"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"})

Object = Mapping[str, Any]


class Checker(Protocol):
    async def check(self, target: Target, revision: int, asked: Drift) -> Said:
        """The condition ``Drifted``: True, False, or Unknown where nobody could tell."""
        ...


class LiveChecker:
    """A :class:`Checker` that asks in a process of its own: the answers may be large."""

    def __init__(self, config: Config, runner: Runner) -> None:
        self._config = config
        self._runner = runner

    async def check(self, target: Target, revision: int, asked: Drift) -> Said:
        request = {
            "kubeconfig": str(self._config.kubeconfig),
            "target": asdict(target),
            "revision": revision,
            "ignore": [dict(rule) for rule in asked.ignore],
        }
        try:
            code, out, errors = await self._runner.run(
                [self._config.python, "-m", "operators.helm.live"],
                seconds=CHECK_SECONDS,
                stdin=json.dumps(request).encode(),
            )
        except HelmError as err:
            return "Unknown", "CheckFailed", str(err)
        try:
            answer = json.loads(out)
        except ValueError:
            return "Unknown", "CheckFailed", f"ended with code {code}: {last_words(errors)}"
        if "error" in answer:
            return "Unknown", "CheckFailed", str(answer["error"])
        return said(answer["drift"])


def said(found: Sequence[Sequence[Any]]) -> Said:
    """``found``: of each object that drifted its name and the places, or what is wrong with it."""
    if not found:
        return "False", "InSync", ""
    parts = [_told(name, places) for name, places in found[:TOLD]]
    if len(found) > TOLD:
        parts.append(f"and {len(found) - TOLD} more")
    return "True", "Drifted", "; ".join(parts)


def _told(name: str, places: Sequence[str]) -> str:
    more = f" and {len(places) - PATHS} more" if len(places) > PATHS else ""
    return f"{name}: {', '.join(places[:PATHS])}{more}"


def places(live: Object, wanted: Object) -> list[str]:
    """Where these two objects differ, as JSON pointers; values are not told, they may be secret."""
    return list(_places(_compared(live), _compared(wanted), ""))


def left_over(name: Object, found: Sequence[str], rules: Sequence[Object]) -> list[str]:
    """
    What of ``found`` no rule says to ignore. ``name``: kind and name of the object.

    A rule is ``{kind, name, paths}``; what it leaves out fits everything.
    """
    fitting = [rule for rule in rules if _fits(rule, name)]
    if any(not rule.get("paths") for rule in fitting):
        return []
    prefixes = [path.rstrip("/") for rule in fitting for path in rule["paths"]]
    return [place for place in found if not any(_within(place, prefix) for prefix in prefixes)]


def _fits(rule: Object, name: Object) -> bool:
    return all(not rule.get(field) or rule[field] == name.get(field) for field in ("kind", "name"))


def _within(place: str, prefix: str) -> bool:
    return place == prefix or place.startswith(f"{prefix}/")


def _compared(thing: Object) -> Object:
    metadata = {key: value for key, value in thing["metadata"].items() if key not in _KEPT}
    return {**thing, "metadata": metadata, "status": None}


def _places(live: Any, wanted: Any, path: str) -> Iterator[str]:
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*live, *wanted}):
            below = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            yield from _places(live.get(key, _MISSING), wanted.get(key, _MISSING), below)
    elif isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        for index, (one, other) in enumerate(zip(live, wanted, strict=True)):
            yield from _places(one, other, f"{path}/{index}")
    elif live is _MISSING or wanted is _MISSING or live != wanted:
        yield path
