"""
Drains a node: one pass tells pods to go that may, and says who is still there and why.

Nothing is remembered between two passes: who is gone, on its way or held back by a
PodDisruptionBudget is what the API says. The pause between two passes grows with the time that
has gone by, so that a drain of an hour costs not many more requests than one of a minute.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from operators.client import ApiError, Client
from operators.upgrade import drainplan
from operators.upgrade.base import Drained
from operators.upgrade.drainplan import Options, Pod, named

AT_ONCE = 4  # evictions
_SOON, _LATE = 1.0, 15.0  # seconds between two looks at pods that are on their way
_HELD, _HELD_LONG = 5.0, 60.0  # and at pods that may not go: kubectl's 5 s at first
_STUCK = 30.0  # where a person has to do something
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """Of the request to let a pod go. ``why`` "": it goes, or is gone."""

    why: str = ""
    held: bool = False  # by a budget
    wait: float = 0.0  # seconds that the API asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    since: datetime
    now: datetime
    timeout: int  # seconds; 0: none

    @property
    def elapsed(self) -> float:
        return (self.now - self.since).total_seconds()

    @property
    def over(self) -> bool:
        return bool(self.timeout) and self.elapsed >= self.timeout

    def again(self, message: str, wait: float) -> Drained:
        """Not done; to be looked at after ``wait`` seconds, or when the time is over."""
        if self.over:
            return Drained(done=False, message=message, retry_at=None, failed=True)
        if self.timeout:
            wait = min(wait, self.timeout - self.elapsed)
        return Drained(done=False, message=message, retry_at=self.now + timedelta(seconds=wait))


class NodeDrains:
    """
    A :class:`~operators.upgrade.base.Drains`. It has no state.

    A pass raises :class:`~operators.client.ApiError` where the pods cannot be listed.
    """

    def __init__(self, client: Client, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now

    async def drain(self, node: str, options: Mapping[str, Any], *, since: datetime) -> Drained:
        try:
            told = drainplan.parse(options)
        except ValueError as err:
            return Drained(done=False, message=str(err), retry_at=None)
        pods = await self._pods(node, told)
        daemonsets = await self._daemonsets() if drainplan.of_daemonsets(pods) else frozenset()
        time = _Time(since=since, now=self._now(), timeout=told.timeout)
        chosen = drainplan.choose(pods, told, daemonsets, time.now)
        if chosen.refused:
            return time.again("; ".join(chosen.refused), _STUCK)
        left = (*chosen.go, *chosen.going)
        if not left:
            return Drained(done=True, message="", retry_at=None)
        if time.over:
            return time.again(_too_late(left, told), _STUCK)
        answers = await self._let_go(chosen.go, told)
        held = [(pod, a) for pod, a in zip(chosen.go, answers, strict=True) if a.why]
        if held:
            wait = max(*(a.wait for _, a in held), _between(_HELD, time.elapsed / 2, _HELD_LONG))
            return time.again(_who_is_held(held, wait), wait)
        wait = _between(_SOON, time.elapsed / 2, _LATE)
        return time.again(f"waits for pods to terminate: {_some(left)}", wait)

    async def _pods(self, node: str, told: Options) -> Sequence[Pod]:
        query = {"fieldSelector": f"spec.nodeName={node}", "labelSelector": told.query}
        listed = await self._client.get(f"/api/v1/pods?{urlencode(query)}")
        found: list[Pod] = listed.get("items") or []
        return found

    async def _daemonsets(self) -> frozenset[str]:
        found = await self._client.metadata("/apis/apps/v1/daemonsets", {})
        return frozenset(f"{metadata['namespace']}/{metadata['name']}" for metadata in found)

    async def _let_go(self, pods: Sequence[Pod], told: Options) -> list[_Answer]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(pod: Pod) -> _Answer:
            async with turn:
                return await (self._delete(pod, told) if told.delete else self._evict(pod, told))

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(one(pod)) for pod in pods]
        return [task.result() for task in asked]

    async def _evict(self, pod: Pod, told: Options) -> _Answer:
        metadata = pod["metadata"]
        # Another pod of the same name, on another node perhaps, is not meant.
        options: dict[str, Any] = {"preconditions": {"uid": metadata["uid"]}}
        if told.grace is not None:
            options["gracePeriodSeconds"] = told.grace
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": options,
        }
        try:
            await self._client.create(f"{_path(pod)}/eviction", body)
        except ApiError as err:
            return _answer(err)
        return _Answer()

    async def _delete(self, pod: Pod, told: Options) -> _Answer:
        query = "" if told.grace is None else f"?gracePeriodSeconds={told.grace}"
        try:
            await self._client.delete(f"{_path(pod)}{query}")
        except ApiError as err:
            return _answer(err)
        return _Answer()


def _path(pod: Pod) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _answer(err: ApiError) -> _Answer:
    if err.code == 404:
        return _Answer()
    causes = [str(cause.get("message")) for cause in err.details.get("causes") or ()]
    why = " ".join((str(err), *causes)) if err.code == 429 else str(err)
    wait = err.details.get("retryAfterSeconds") or 0
    return _Answer(
        why=why or f"the API answered {err.code}", held=err.code == 429, wait=float(wait)
    )


def _who_is_held(held: Sequence[tuple[Pod, _Answer]], wait: float) -> str:
    lines = []
    for pod, answer in held[:_SHOWN]:
        again = f" (will retry after {wait:.0f}s)" if answer.held else ""
        lines.append(f"error when evicting {_kubectls(pod)}{again}: {answer.why}")
    more = [f"and {len(held) - _SHOWN} more"] if len(held) > _SHOWN else []
    return "; ".join([*lines, *more])


def _too_late(left: Sequence[Pod], told: Options) -> str:
    first = f"error when evicting {_kubectls(left[0])}: global timeout reached: {told.timeout}s"
    return first + (f" (and {len(left) - 1} more)" if left[1:] else "")


def _kubectls(pod: Pod) -> str:
    return f'pods/"{pod["metadata"]["name"]}" -n "{pod["metadata"]["namespace"]}"'


def _some(pods: Sequence[Pod]) -> str:
    more = f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else ""
    return ", ".join(map(named, pods[:_SHOWN])) + more


def _between(low: float, value: float, high: float) -> float:
    return min(max(low, value), high)
