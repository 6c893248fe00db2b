"""
Volumes on nodes of another Kubernetes: helper pods make and remove them, as K3s's do.

A pod's end is an event, not asked for. Sizes are not enforced, and what needs more than a
script on the node is refused by name: growing, snapshots, clones.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from operators.client import ApiError, Client
from operators.localpath import helperplan, places
from operators.localpath.base import (
    UNENFORCED,
    Copied,
    Made,
    Object,
    Order,
    Place,
    Refused,
    Source,
    StorageError,
    Unfinished,
)
from operators.localpath.state import State, read


class HelperPods:
    """Its mutable state: who waits for which pod."""

    def __init__(self, client: Client, state: State, *, namespace: str) -> None:
        self._client = client
        self._state = state
        self._namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    def seen(self, pod: Mapping[str, Any]) -> None:
        """A pod with our label has changed."""
        phase = (pod.get("status") or {}).get("phase")
        future = self._waiting.get(pod["metadata"]["name"])
        if future and not future.done() and phase in {"Succeeded", "Failed"}:
            future.set_result(pod)

    async def make(self, order: Order) -> Made:
        body = helperplan.create(order, self._state.configuration, self._namespace)
        await self._run(body, "create")  # and it stays until finished, as a note
        return Made(enforced_by=UNENFORCED)

    async def finished(self, name: str) -> None:
        for pod in await self._pods(name):
            await self._delete(pod["metadata"]["name"])

    async def unfinished(self) -> Sequence[Unfinished]:
        return helperplan.begun(await self._pods())

    async def undo(self, name: str) -> None:
        for pod in await self._pods(name):
            metadata = pod["metadata"]
            if metadata["labels"].get(helperplan.ACTION) == "create":
                await self._remove_path(pod)
            await self._delete(metadata["name"])

    async def _remove_path(self, pod: Object) -> None:
        notes, node = pod["metadata"]["annotations"], pod["spec"].get("nodeName", "")
        path = PurePosixPath(notes[helperplan.PLACE])
        bases = self._state.configuration.bases(node)
        inside = [base for base in bases if path.is_relative_to(base) and str(path) != str(base)]
        if not inside:
            return
        folder = places.clean(str(path.relative_to(inside[0])))
        await self.remove(
            Place(
                name=notes[helperplan.VOLUME],
                node=node,
                base=inside[0],
                folder=folder,
                size=0,
                enforced_by=UNENFORCED,
                image=None,
            )
        )

    async def remove(self, place: Place) -> None:
        body = helperplan.delete(place, self._state.configuration, self._namespace)
        try:
            await self._run(body, "delete")
        finally:
            await self._delete(body["metadata"]["name"])

    async def grow(self, place: Place, size: int, overcommit: float) -> None:
        raise Refused("volumes that helper pods have made cannot grow")

    async def snapshot(self, place: Place, name: str) -> Copied:
        raise Refused("volumes that helper pods have made have no snapshots")

    async def remove_snapshot(self, name: str) -> None:
        """There is none."""

    async def find_snapshot(self, name: str, size: int) -> Source | None:
        return None

    async def _run(self, body: Object, action: str) -> None:
        name, patience = body["metadata"]["name"], self._state.configuration.patience
        loop = asyncio.get_running_loop()
        future = self._waiting[name] = loop.create_future()
        try:
            pod = await self._start(body)
            async with asyncio.timeout(patience):
                while not helperplan.outcome(pod, action):
                    pod = await asyncio.shield(future)
        except TimeoutError as err:
            await self._delete(name)
            raise StorageError(f"create process timeout after {patience} seconds") from err
        except StorageError:
            await self._delete(name)
            raise
        finally:
            self._waiting.pop(name, None)

    async def _start(self, body: Object) -> Mapping[str, Any]:
        """One that is there already was started by who was killed."""
        try:
            return await self._client.create(self._path, body)
        except ApiError as err:
            if err.code == 409:
                return await self._client.get(f"{self._path}/{body['metadata']['name']}")
            if 400 <= err.code < 500:
                raise Refused(f"helper pod: {err}") from err
            raise

    async def _pods(self, volume: str = "") -> list[Object]:
        selector = f"{helperplan.VOLUME}={volume[:63]}" if volume else helperplan.VOLUME
        listed = await self._client.get(self._path, {"labelSelector": selector})
        found: list[Object] = listed["items"]
        return found

    async def _delete(self, name: str) -> None:
        if await read(self._client, f"{self._path}/{name}") is None:
            return
        try:
            await self._client.delete(f"{self._path}/{name}")
        except ApiError as err:
            if err.code != 404:
                raise
