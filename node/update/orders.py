"""
What a person says to the updater at ``<run>/update.sock``: a line of JSON, and lines back.

``{"install": {"url": …, "stage": …, …}}`` asks for an update (the form of a request), ``{"order":
"commit"}`` and ``{"order": "back"}`` are about what runs. The answers are ``{"phase", "message",
"percent", …}`` while it goes on, and ``{"error": …}`` or ``{"done": …}`` at the end.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from node.update import request as requests
from node.update.request import Request
from node.update.state import Phase, Records, State

_NEVER_MIND = "nothing is being updated, and nothing is on trial"


class Ordered(Protocol):
    """What is wanted of :class:`node.update.run.Updater`."""

    records: Records
    asked: Request | None
    order: str
    listeners: list[Callable[[State | None, int], None]]


@dataclass(frozen=True, slots=True)
class Told:
    """One word about an update that goes on; ``state`` None: it was cancelled."""

    state: State | None
    percent: int


async def answer(
    updater: Ordered,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    begin: Callable[[], None],
) -> None:
    """``begin`` wakes the updater. Raises ValueError for what is no question."""
    line = await reader.readline()
    if not line:
        return  # somebody looked whether we are there
    question = json.loads(line)
    told: asyncio.Queue[Told] = asyncio.Queue()

    def listen(state: State | None, percent: int) -> None:
        told.put_nowait(Told(state, percent))

    state = await asyncio.to_thread(updater.records.load)
    updater.listeners.append(listen)
    try:
        if "install" in question:
            problem = _install(updater, state, question["install"])
        else:
            problem = _order(updater, state, str(question.get("order", "")))
        if problem:
            return await _say(writer, {"error": problem})
        begin()
        await _follow(writer, told)
    finally:
        updater.listeners.remove(listen)


def _install(updater: Ordered, state: State | None, given: Mapping[str, Any]) -> str:
    """ "": it was taken on."""
    request = requests.from_json(given)
    is_active = updater.asked is not None or (state is not None and not state.has_ended)
    if is_active and (state is None or not _continues(state, request)):
        phase = state.phase.value if state is not None else Phase.DOWNLOADING.value
        return f"another update is on its way ({phase}): see `pinnace update status`"
    updater.asked = request
    return ""


def _continues(state: State, request: Request) -> bool:
    """Whether it is what waits to be switched to, asked for by a person as well."""
    waits = state.phase is Phase.INSTALLED and not state.request.plan
    return waits and request.stage == "switch" and request.url == state.request.url


def _order(updater: Ordered, state: State | None, order: str) -> str:
    if order not in ("commit", "back"):
        return f"{order!r} is no order"
    is_active = state is not None and not state.has_ended
    if not is_active:
        return _NEVER_MIND
    if order == "commit" and state is not None and state.phase is not Phase.TRIAL:
        return f"nothing is on trial: the update is {state.phase.value}"
    updater.order = order
    return ""


async def _follow(writer: asyncio.StreamWriter, told: "asyncio.Queue[Told]") -> None:
    while True:
        word = await told.get()
        if word.state is None:
            return await _say(writer, {"done": "Cancelled"})
        state = word.state
        line: dict[str, Any] = {
            "version": state.request.version,
            "phase": state.phase.value,
            "message": state.message,
            "percent": word.percent,
        }
        is_waiting = state.phase is Phase.INSTALLED and state.has_looked
        is_last = state.has_ended or state.phase is Phase.SWITCHING or state.step == "back"
        if is_last or (is_waiting and state.request.stage == "install"):
            return await _say(writer, line | {"done": state.phase.value})
        await _say(writer, line)


async def _say(writer: asyncio.StreamWriter, what: Mapping[str, Any]) -> None:
    writer.write(json.dumps(what).encode() + b"\n")
    await writer.drain()
