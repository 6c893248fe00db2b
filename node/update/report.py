"""
Tell the plan how far this node is: the report annotation on its own Node, and events.

A word of its own for each phase goes at once, percents go every ten seconds at most. Whoever
cannot be told is told later.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.client.base import Client, Object, Unreachable
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import NODES
from node.update.plan import Facts
from node.update.request import REPORT, Request
from node.update.state import ENDS, Phase, State

LOG = logging.getLogger(__name__)
PROGRESS_EVERY = 10.0  # seconds
_RETRY = 2.0
_MOST_MESSAGE = 1500
_IDENTITY = ("plan", "uid", "version", "attempt", "rollback")
_WARNINGS = (Phase.ROLLED_BACK, Phase.REFUSED, Phase.FAILED)
Record = Callable[[Object, str, str, str], None]


def report(state: State, facts: Facts | None, *, percent: int) -> dict[str, Any]:
    """The annotation's content, see operators/upgrade/base.py; facts None: there are no slots."""
    request, health = state.request, facts.health if facts is not None else None
    made = {
        "plan": request.plan,
        "uid": request.uid,
        "version": request.version,
        "attempt": request.attempt,
        "phase": state.phase.value,
        "reason": state.reason,
        "message": state.message[:_MOST_MESSAGE],
        "percent": percent,
        "times": dict(state.times),
        "running": str(facts.running.version or "") if facts is not None else "",
        "slot": facts.running.name if facts is not None else "",
        "healthy": health is not None and health.is_ok,
        "rollback": request.rollback,
        "failed": sorted(facts.failed) if facts is not None else [],
    }
    if state.phase is Phase.TRIAL and health is not None and not state.message:
        made["message"] = health.message[:_MOST_MESSAGE]
    if state.kept_count:
        made["kept"] = {"folder": state.kept, "count": state.kept_count}
    return made


def complaint(request: str, message: str) -> dict[str, Any]:
    """What is said of a request that cannot be understood, to whoever wrote it."""
    try:
        found = json.loads(request)
        told = {name: found[name] for name in _IDENTITY if name in found}
    except (ValueError, TypeError):
        told = {}
    plan = {"plan": "?", "uid": "", "version": "", "attempt": 1, "rollback": False}
    ended = {"phase": Phase.REFUSED.value, "reason": "InvalidRequest", "message": message}
    return plan | told | ended


def beside(said: Mapping[str, Any] | None, made: Mapping[str, Any]) -> dict[str, Any]:
    """
    What a plan is told of an update that it did not ask for: what runs now.

    Its own request stays answered as it was.
    """
    if said is None or not said.get("plan"):
        return dict(made)
    return {**said, **{name: made[name] for name in ("running", "slot", "failed")}}


class Reporter:
    """Its mutable state: what is to be said, and what was said last."""

    def __init__(self, client: Client, node_name: str, record: Record) -> None:
        self._client = client
        self._node_name = node_name
        self._record = record
        self._wanted: Mapping[str, Any] | None = None
        self._said: Mapping[str, Any] | None = None
        self._dirty = asyncio.Event()
        self._clean = asyncio.Event()
        self._clean.set()

    def begin(self, node: Object | None) -> None:
        """Learn what was said before this process began."""
        annotations = ((node or {}).get("metadata") or {}).get("annotations") or {}
        try:
            said = json.loads(annotations.get(REPORT, "null"))
        except ValueError:
            said = {}  # whatever it was, it is replaced
        self._said = self._wanted = said if isinstance(said, Mapping) else None

    def has_answered(self, request: Request) -> bool:
        """Whether that request came to its end, whatever was done on this machine since."""
        said = self._wanted or {}
        key = tuple(said.get(name) for name in ("uid", "version", "attempt", "rollback"))
        return key == request.key and said.get("phase") in ENDS

    def say(self, wanted: Mapping[str, Any] | None) -> None:
        """None: there is nothing to say, and the annotation goes."""
        if wanted is not None and not wanted["plan"]:
            wanted = beside(self._wanted, wanted)
        self._wanted = wanted
        if wanted != self._said:
            self._clean.clear()
            self._dirty.set()

    async def said(self, seconds: float | None, *, unless: asyncio.Event | None = None) -> bool:
        """Whether all was said, within so many seconds or before something else happens."""
        waits = [asyncio.ensure_future(self._clean.wait())]
        if unless is not None:
            waits.append(asyncio.ensure_future(unless.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._clean.is_set()

    async def run(self) -> None:
        """Without end."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            wanted = self._wanted
            if wanted == self._said:
                self._clean.set()
                continue
            try:
                await self._write(wanted)
            except (StatusError, Unreachable, OSError) as err:
                LOG.debug("the report was not written: %s", err)
                self._dirty.set()
                await asyncio.sleep(_RETRY)
                continue
            if self._wanted == self._said:
                self._clean.set()
            else:
                self._dirty.set()
            await self._calm()

    async def _calm(self) -> None:
        """Until there is more to say than a percent."""
        try:
            async with asyncio.timeout(PROGRESS_EVERY):
                while _without_percent(self._wanted) == _without_percent(self._said):
                    await self._dirty.wait()
                    self._dirty.clear()
        except TimeoutError:
            pass
        self._dirty.set()

    async def _write(self, wanted: Mapping[str, Any] | None) -> None:
        text = None if wanted is None else json.dumps(wanted, separators=(",", ":"))
        body = {"metadata": {"annotations": {REPORT: text}}}
        node = await self._client.patch(NODES, "", self._node_name, body=body)
        before, self._said = self._said, wanted
        if wanted is not None and wanted["phase"] != (before or {}).get("phase"):
            kind = "Warning" if wanted["phase"] in _WARNINGS else "Normal"
            about = wanted["version"] or "another version"
            message = f"update to {about}: {wanted['message'] or wanted['phase']}"
            self._record(node, kind, f"Update{wanted['phase']}", message)


def _without_percent(said: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if said is None else {k: v for k, v in said.items() if k != "percent"}
