"""
Released volumes are removed, with their data, where their policy says Delete.

The PersistentVolume stays until the data is gone. On a node that is gone there is nothing
left to remove, and the object goes.
"""

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from operators.client import ApiError, Client
from operators.localpath import places, plan
from operators.localpath.base import FINALIZER, Object, Refused, Storage, StorageError, Volume
from operators.localpath.state import (
    NODES,
    VOLUMES,
    State,
    own_labels,
    read,
    read_claim,
    read_volume,
)
from operators.localpath.tell import Teller

LOG = logging.getLogger(__name__)
_TRIES = 8


class Volumes:
    """``changed``: called when there is more room than before."""

    def __init__(
        self,
        client: Client,
        storage: Storage,
        state: State,
        *,
        tell: Teller,
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._storage = storage
        self._state = state
        self._tell = tell
        self._changed = changed

    async def reconcile(self, name: str) -> None:
        body = await read_volume(self._client, name)
        volume = plan.volume_of(body) if body else None
        if body is None or volume is None:
            self._state.elsewhere.discard(name)
            return
        node = await self._node_of(volume)
        wanted = plan.wanted_finalizers(volume)
        if wanted is not None and (not self._state.native or node == self._state.node):
            await self._set_finalizers(volume, wanted)
        if plan.wants_removal(volume):
            await self._remove(body, volume, node)

    async def _node_of(self, volume: Volume) -> str:
        """The node whose work it is; "" if that node is gone."""
        if not self._state.native:
            return volume.node or volume.affinity[1]
        if self._state.configuration.is_shared(volume.class_name):
            return self._state.node  # whoever is first; the others find nothing
        labels = await own_labels(self._client, self._state)
        if plan.lies_on(volume, self._state.node, labels):
            return self._state.node
        return volume.node or volume.affinity[1]

    async def _remove(self, body: Object, volume: Volume, node: str) -> None:
        mine = not self._state.native or node == self._state.node
        gone = bool(node) and await read(self._client, f"{NODES}/{node}") is None
        if not mine and not gone:
            self._state.elsewhere.add(volume.name)
            return
        self._state.elsewhere.discard(volume.name)
        try:
            if not gone and not await self._is_shared(volume):
                shared = self._state.configuration.is_shared(volume.class_name)
                place = places.locate(volume, self._bases(node), node=node, shared=shared)
                await self._storage.remove(place)
        except (Refused, StorageError, OSError) as err:
            message = f"failed to delete volume {volume.name}: {err}"
            await self._tell.warn(body, "VolumeFailedDelete", message)
            if isinstance(err, Refused):
                return
            raise
        await self._forget(volume)
        self._changed()

    def _bases(self, node: str) -> list[Path]:
        return self._state.configuration.bases(node)

    async def _is_shared(self, volume: Volume) -> bool:
        """Does another volume lie in the same folder, as an unsafe pattern may want it?"""
        if PurePosixPath(volume.path).name.startswith(f"{volume.name}_"):
            return False
        listed = await self._client.get(VOLUMES)
        others = [plan.volume_of(item) for item in listed["items"]]
        return any(
            other.path == volume.path and other.name != volume.name
            for other in others
            if other is not None
        )

    async def _forget(self, volume: Volume) -> None:
        try:
            await self._client.delete(f"{VOLUMES}/{volume.name}")
        except ApiError as err:
            if err.code != 404:
                raise
        for _ in range(_TRIES):  # others take their finalizers off at the same time
            body = await read_volume(self._client, volume.name)
            left = plan.volume_of(body) if body else None
            if left is None or left.uid != volume.uid or FINALIZER not in left.finalizers:
                return
            kept = [name for name in left.finalizers if name != FINALIZER]
            if await self._set_finalizers(left, kept):
                return

    async def _set_finalizers(self, volume: Volume, wanted: list[str]) -> bool:
        """False: it has changed since it was read."""
        metadata = {"finalizers": wanted or None, "resourceVersion": volume.version}
        try:
            await self._client.merge(f"{VOLUMES}/{volume.name}", {"metadata": metadata})
        except ApiError as err:
            if err.code not in {404, 409}:
                raise
            return err.code == 404
        return True

    async def clear_up(self) -> None:
        """Volumes that were begun, and that neither a claim nor a PersistentVolume wants."""
        for begun in await self._storage.unfinished():
            if await read_volume(self._client, begun.name):
                await self._storage.finished(begun.name)
                continue
            claim = await read_claim(self._client, begun.claim)
            if claim and claim["metadata"]["uid"] == begun.uid and plan.wants_volume(claim):
                continue  # its own look goes on with it
            await self._storage.undo(begun.name)
            self._changed()
