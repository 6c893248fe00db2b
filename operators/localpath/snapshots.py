"""
VolumeSnapshots of volumes on this node: taken, bound, given to new claims by name, removed.

A snapshot is taken before its objects say so, and found again by its name, so a look that was
killed between two steps goes on where it stopped.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from operators.client import ApiError, Client
from operators.localpath import places, plan
from operators.localpath import snapshotplan as wanted
from operators.localpath.base import (
    PROVISIONER,
    Copied,
    Object,
    Place,
    Refused,
    Storage,
    StorageError,
)
from operators.localpath.state import NODES, State, own_labels, read, read_claim, read_volume
from operators.localpath.tell import Teller


class Snapshots:
    """``changed``: called when there is less or more room than before."""

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

    async def reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        path = f"{wanted.GROUP}/namespaces/{namespace}/volumesnapshots/{name}"
        snapshot = await self._read(path, "VolumeSnapshot")
        if snapshot is None or not wanted.wants_look(snapshot):
            return
        if wanted.is_deleting(snapshot):
            await self._let_go(snapshot)
            return
        try:
            await self._bind(snapshot)
        except (Refused, StorageError, OSError) as err:
            await self._fail(snapshot, f"Failed to create snapshot: {err}")
            if not isinstance(err, Refused):
                raise

    async def _bind(self, snapshot: Object) -> None:
        if "volumeSnapshotContentName" in snapshot["spec"]["source"]:
            await self._take_existing(snapshot)
        else:
            await self._take_new(snapshot)

    # New ones

    async def _take_new(self, snapshot: Object) -> None:
        place = await self._place(snapshot)
        if place is None:
            return
        listed = await self._client.get(wanted.CLASSES)
        chosen = wanted.choose_class(snapshot, listed["items"])
        if chosen is None:
            return
        body = wanted.content(snapshot, chosen, volume=place.name, node=self._state.node)
        content = await self._content(body)
        await self._protect(snapshot)
        await self._name_class(snapshot, chosen)
        key = wanted.key_of(snapshot)
        await self._tell.normal(
            snapshot,
            "CreatingSnapshot",
            f"Waiting for a snapshot {key} to be created by the CSI driver.",
        )
        name = wanted.kept_name(snapshot)
        copied = await self._storage.snapshot(place, name)
        await self._ready(snapshot, content, (name, copied), place.size)
        if not copied.consistent:
            await self._tell.normal(
                snapshot,
                "CrashConsistent",
                "Files that were written to meanwhile may be there in part: the volume has no"
                " image that could be copied as it was at one moment.",
            )

    async def _place(self, snapshot: Object) -> Place | None:
        """The volume to be copied; None: it is another node's, or another driver's."""
        namespace = snapshot["metadata"]["namespace"]
        name = snapshot["spec"]["source"]["persistentVolumeClaimName"]
        claim = await read_claim(self._client, f"{namespace}/{name}")
        if claim is None:
            if await self._is_of_our_class(snapshot):
                raise StorageError(f"cannot get claim from snapshot: {namespace}/{name} not found")
            return None
        if (claim.get("status") or {}).get("phase") != "Bound":
            if plan.is_for_us(claim):
                raise StorageError(f"the PVC {name} is not yet bound to a PV, will not attempt it")
            return None
        body = await read_volume(self._client, claim["spec"]["volumeName"])
        volume = plan.volume_of(body) if body else None
        if volume is None:
            return None
        if not self._state.native:
            raise Refused("volumes that helper pods have made have no snapshots")
        labels = await own_labels(self._client, self._state)
        if not plan.lies_on(volume, self._state.node, labels):
            return None
        return places.locate(volume, self._state.bases(), node=self._state.node, shared=False)

    async def _is_of_our_class(self, snapshot: Object) -> bool:
        """Where there is no claim, only the class tells whose the snapshot is."""
        listed = await self._client.get(wanted.CLASSES)
        try:
            return wanted.choose_class(snapshot, listed["items"]) is not None
        except StorageError:
            return False

    async def _content(self, body: Object) -> Object:
        path = f"{wanted.CONTENTS}/{body['metadata']['name']}"
        try:
            made = await self._client.create(wanted.CONTENTS, body)
        except ApiError as err:
            if err.code != 409:
                raise
            made = await self._client.get(path)
        return {**made, "apiVersion": wanted.API_VERSION, "kind": "VolumeSnapshotContent"}

    async def _protect(self, snapshot: Object) -> None:
        path = wanted.path_of(snapshot)
        if patch := wanted.with_finalizer(snapshot, wanted.BOUND):
            await self._client.merge(path, patch)
        bound = {"boundVolumeSnapshotContentName": wanted.content_name(snapshot)}
        status = snapshot.get("status") or {}
        if bound.items() <= status.items():
            return
        await self._client.merge(f"{path}/status", {"status": {**bound, "readyToUse": False}})

    async def _name_class(self, snapshot: Object, chosen: Mapping[str, Any]) -> None:
        """The default class that was taken is written down, as the snapshot controller does."""
        if not snapshot["spec"].get("volumeSnapshotClassName"):
            spec = {"volumeSnapshotClassName": chosen["metadata"]["name"]}
            await self._client.merge(wanted.path_of(snapshot), {"spec": spec})

    async def _ready(
        self, snapshot: Object, content: Object, taken: tuple[str, Copied], size: int
    ) -> None:
        (name, copied), key = taken, wanted.key_of(snapshot)
        handle, content_name = f"{self._state.node}/{name}", content["metadata"]["name"]
        status = wanted.content_status(handle, copied, size)
        await self._client.merge(f"{wanted.CONTENTS}/{content_name}/status", status)
        created = datetime.fromtimestamp(copied.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = wanted.snapshot_status(content_name, created, size)
        await self._client.merge(f"{wanted.path_of(snapshot)}/status", status)
        await self._tell.normal(
            snapshot,
            "SnapshotCreated",
            f"Snapshot {key} was successfully created by the CSI driver.",
        )
        await self._tell.normal(snapshot, "SnapshotReady", f"Snapshot {key} is ready to use.")
        self._changed()

    # Those that were there before

    async def _take_existing(self, snapshot: Object) -> None:
        name = wanted.content_name(snapshot)
        content = await self._read(f"{wanted.CONTENTS}/{name}", "VolumeSnapshotContent")
        if content is None:
            raise StorageError(f"VolumeSnapshotContent {name} is missing")
        node, kept = wanted.handle_of(content)
        if content["spec"]["driver"] != PROVISIONER or node != self._state.node:
            return
        if not wanted.is_bound_to(content, snapshot):
            raise Refused(f"VolumeSnapshotContent {name} is bound to another snapshot")
        found = await self._storage.find_snapshot(kept, 0)
        if found is None:
            raise Refused(f"there is no snapshot {kept} on node {node}")
        reference = {"volumeSnapshotRef": {"uid": snapshot["metadata"]["uid"]}}
        patch: Object = {"spec": reference}
        if finalizers := wanted.with_finalizer(content, wanted.CONTENT_BOUND):
            patch["metadata"] = finalizers["metadata"]
        await self._client.merge(f"{wanted.CONTENTS}/{name}", patch)
        await self._protect(snapshot)
        copied = Copied(created=found.created, consistent=True)
        await self._ready(snapshot, content, (kept, copied), found.size)

    # Removing

    async def _let_go(self, snapshot: Object) -> None:
        """A content with the policy Delete goes first, with its data."""
        name = wanted.content_name(snapshot)
        content = await self._read(f"{wanted.CONTENTS}/{name}", "VolumeSnapshotContent")
        if content and content["spec"]["driver"] != PROVISIONER:
            return
        if content and wanted.is_bound_to(content, snapshot):
            node, _ = wanted.handle_of(content)
            if node not in {"", self._state.node} and await self._has(node):
                return
            if content["spec"]["deletionPolicy"] == "Delete":
                await self._delete(f"{wanted.CONTENTS}/{name}")
                await self._remove_content(name, snapshot)
        if patch := wanted.without(snapshot, wanted.BOUND):
            await self._merge(wanted.path_of(snapshot), patch)

    async def reconcile_content(self, name: str) -> None:
        content = await self._read(f"{wanted.CONTENTS}/{name}", "VolumeSnapshotContent")
        if content is None or content["spec"]["driver"] != PROVISIONER:
            return
        snapshot = await self._snapshot_of(content)
        alive = snapshot is not None and not wanted.is_deleting(snapshot)
        if alive:
            return  # it is deleted with its snapshot
        if not wanted.is_deleting(content):
            if content["spec"]["deletionPolicy"] == "Delete" and snapshot is None:
                await self._delete(f"{wanted.CONTENTS}/{name}")
            return
        await self._remove_content(name, snapshot)

    async def _remove_content(self, name: str, snapshot: Object | None) -> None:
        path = f"{wanted.CONTENTS}/{name}"
        content = await self._read(path, "VolumeSnapshotContent")
        if content is None or not wanted.is_deleting(content):
            return
        node, kept = wanted.handle_of(content)
        if node not in {"", self._state.node} and await self._has(node):
            return
        if content["spec"]["deletionPolicy"] == "Delete" and node == self._state.node:
            try:
                await self._storage.remove_snapshot(kept)
            except (StorageError, OSError) as err:
                message = f"Failed to delete snapshot: {err}"
                await self._tell.warn(snapshot or content, "SnapshotDeleteError", message)
                raise
        if patch := wanted.without(content, wanted.CONTENT_BOUND):
            await self._merge(path, patch)
        self._changed()

    async def _snapshot_of(self, content: Object) -> Object | None:
        reference = content["spec"]["volumeSnapshotRef"]
        path = f"{wanted.GROUP}/namespaces/{reference['namespace']}/volumesnapshots"
        found = await self._read(f"{path}/{reference['name']}", "VolumeSnapshot")
        same = found is not None and wanted.is_bound_to(content, found)
        return found if same else None

    async def _has(self, node: str) -> bool:
        return await read(self._client, f"{NODES}/{node}") is not None

    async def _fail(self, snapshot: Object, message: str) -> None:
        await self._tell.warn(snapshot, "SnapshotCreationFailed", message)
        if patch := wanted.error_status(snapshot, message, self._tell.time()):
            await self._merge(f"{wanted.path_of(snapshot)}/status", patch)

    async def _read(self, path: str, kind: str) -> Object | None:
        found = await read(self._client, path)
        return {**found, "apiVersion": wanted.API_VERSION, "kind": kind} if found else None

    async def _delete(self, path: str) -> None:
        try:
            await self._client.delete(path)
        except ApiError as err:
            if err.code != 404:
                raise

    async def _merge(self, path: str, patch: Object) -> None:
        try:
            await self._client.merge(path, patch)
        except ApiError as err:
            if err.code != 404:
                raise
