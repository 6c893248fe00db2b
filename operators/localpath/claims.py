"""
Claims get volumes, and larger ones when they ask for more.

Each look reads the claim anew and does what is missing; a look that was killed is done again.
"""

import logging
from collections.abc import Callable
from zlib import crc32

from operators.client import ApiError, Client
from operators.localpath import places, plan
from operators.localpath.base import (
    PROVISIONER,
    Object,
    Order,
    Refused,
    Source,
    Storage,
    StorageError,
    Unfit,
    Volume,
)
from operators.localpath.images import InUse
from operators.localpath.state import (
    CLAIMS,
    CLASSES,
    NODES,
    VOLUMES,
    State,
    labels_of,
    own_labels,
    read,
    read_claim,
    read_volume,
)
from operators.localpath.tell import Teller

LOG = logging.getLogger(__name__)
_PENDING = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."


class Claims:
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

    async def reconcile(self, key: str) -> float | None:
        """After how many seconds it has to be looked at again, although nothing failed."""
        changes = self._state.changes
        claim = await read_claim(self._client, key)
        self._state.waiting.discard(key)
        if claim is None:
            return None
        if plan.wants_volume(claim):
            await self._provision(key, claim)
        elif plan.wants_more(claim):
            await self._expand(claim)
        missed = key in self._state.waiting and changes != self._state.changes
        return 0.0 if missed else None

    # A volume

    async def _provision(self, key: str, claim: Object) -> None:
        class_name = plan.class_of(claim)
        storage_class = await read(self._client, f"{CLASSES}/{class_name}")
        if storage_class is None or storage_class["provisioner"] != PROVISIONER:
            self._state.waiting.add(key)  # for the class
            return
        try:
            node = await self._node_for(claim, storage_class)
            if node is not None:
                await self._make(claim, storage_class, node)
        except Unfit as err:
            await self._fail(claim, class_name, err)
            self._changed()
            if not await self._reschedule(claim):
                self._state.waiting.add(key)
        except Refused as err:
            self._state.waiting.add(key)
            await self._fail(claim, class_name, err)
        except (StorageError, OSError) as err:
            self._state.waiting.add(key)
            await self._fail(claim, class_name, err)
            raise

    async def _fail(self, claim: Object, class_name: str, err: Exception) -> None:
        message = f'failed to provision volume with StorageClass "{class_name}": {err}'
        await self._tell.warn(claim, "ProvisioningFailed", message)

    async def _node_for(self, claim: Object, storage_class: Object) -> str | None:
        """None: nobody's yet, or another process's."""
        selected = plan.notes_of(claim).get(plan.CLAIM_NODE, "")
        if not selected and plan.waits_for_consumer(storage_class):
            return None
        node = selected or await self._choose(claim, storage_class)
        if not self._state.native or node == self._state.node:
            return node
        if selected and await read(self._client, f"{NODES}/{node}") is None:
            raise Unfit(f'failed to get target node: nodes "{node}" not found')
        return None

    async def _choose(self, claim: Object, storage_class: Object) -> str:
        """A node for a claim that does not wait for its consumer; the same for every process."""
        name = storage_class["metadata"]["name"]
        paths = self._state.configuration.of_class(name)
        listed = await self._client.get(NODES)
        able = [
            node["metadata"]["name"]
            for node in listed["items"]
            if _is_ready(node) and paths.of(node["metadata"]["name"])
        ]
        if not able:
            raise Refused("configuration error, no node was specified")
        uid = claim["metadata"]["uid"]
        chosen: str = max(able, key=lambda node: crc32(f"{uid}/{node}".encode()))
        return chosen

    async def _make(self, claim: Object, storage_class: Object, node: str) -> None:
        name = plan.volume_name(claim)
        if await read_volume(self._client, name):
            await self._storage.finished(name)  # the binder has it from here
            return
        plan.check_type(claim, storage_class)
        plan.check(claim, self._state.configuration.of_class(storage_class["metadata"]["name"]))
        source = await self._source(claim)
        order = plan.order(
            claim, storage_class, self._state.configuration, node=node, source=source
        )
        labels = await self._labels(node)
        key = order.claim
        message = f'External provisioner is provisioning volume for claim "{key}"'
        await self._tell.normal(claim, "Provisioning", message)
        made = await self._storage.make(order)
        body = plan.persistent_volume(claim, storage_class, order, made, labels=labels)
        await self._publish(order, body)
        await self._tell.normal(
            claim, "ProvisioningSucceeded", f"Successfully provisioned volume {name}"
        )
        self._changed()

    async def _labels(self, node: str) -> dict[str, str]:
        if node == self._state.node:
            return await own_labels(self._client, self._state)
        return labels_of(await read(self._client, f"{NODES}/{node}"))

    async def _publish(self, order: Order, body: Object) -> None:
        try:
            await self._client.create(VOLUMES, body)
        except ApiError as err:
            if err.code == 409:  # it was made before, and the answer lost
                pass
            elif 400 <= err.code < 500:
                await self._storage.undo(order.name)
                raise Refused(str(err)) from err
            else:
                raise
        await self._storage.finished(order.name)

    async def _reschedule(self, claim: Object) -> bool:
        """Let the scheduler choose another node; False: none was chosen by it."""
        metadata = claim["metadata"]
        if not plan.notes_of(claim).get(plan.CLAIM_NODE):
            return False
        path = f"{CLAIMS.format(metadata['namespace'])}/{metadata['name']}"
        patch = {
            "metadata": {
                "annotations": {plan.CLAIM_NODE: None},
                "resourceVersion": metadata["resourceVersion"],
            }
        }
        try:
            await self._client.merge(path, patch)
        except ApiError as err:
            if err.code not in {404, 409}:  # the watch tells of what it is now
                raise
        return True

    async def _source(self, claim: Object) -> Source | None:
        found = plan.data_source(claim)
        if found is None:
            return None
        if not self._state.native:
            raise Refused("helper pods cannot make a volume of a snapshot or of another volume")
        kind, name = found
        namespace = claim["metadata"]["namespace"]
        if kind == "VolumeSnapshot":
            return await self._snapshot_source(namespace, name)
        return await self._claim_source(namespace, name)

    async def _claim_source(self, namespace: str, name: str) -> Source:
        claim = await read_claim(self._client, f"{namespace}/{name}")
        if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
            raise StorageError(f"claim {namespace}/{name} is not bound")
        body = await read_volume(self._client, claim["spec"]["volumeName"])
        volume = plan.volume_of(body) if body else None
        if volume is None:
            raise Refused(f"the volume of claim {namespace}/{name} is not of {PROVISIONER}")
        labels = await own_labels(self._client, self._state)
        if not plan.lies_on(volume, self._state.node, labels):
            raise Unfit(f"the volume of claim {namespace}/{name} is on node {volume.node}")
        place = places.locate(volume, self._state.bases(), node=self._state.node, shared=False)
        return Source(
            kind="volume",
            name=volume.name,
            size=volume.size,
            base=place.base,
            folder=place.folder,
            image=place.image,
        )

    async def _snapshot_source(self, namespace: str, name: str) -> Source:
        group = "/apis/snapshot.storage.k8s.io/v1"
        snapshot = await read(
            self._client, f"{group}/namespaces/{namespace}/volumesnapshots/{name}"
        )
        status = (snapshot or {}).get("status") or {}
        if not status.get("readyToUse") or "boundVolumeSnapshotContentName" not in status:
            raise StorageError(f"snapshot {namespace}/{name} is not ready to use")
        bound = status["boundVolumeSnapshotContentName"]
        content = await read(self._client, f"{group}/volumesnapshotcontents/{bound}")
        handle = ((content or {}).get("status") or {}).get("snapshotHandle") or ""
        node, _, kept = handle.partition("/")
        size = ((content or {}).get("status") or {}).get("restoreSize") or 0
        if content is None or content["spec"]["driver"] != PROVISIONER:
            raise Refused(f"snapshot {namespace}/{name} is not of {PROVISIONER}")
        if node != self._state.node:
            raise Unfit(f"snapshot {namespace}/{name} is on node {node}")
        found = await self._storage.find_snapshot(kept, int(size))
        if found is None:
            raise Refused(f"the data of snapshot {namespace}/{name} is missing on node {node}")
        return found

    # More of it

    async def _expand(self, claim: Object) -> None:
        body = await read_volume(self._client, claim["spec"]["volumeName"])
        volume = plan.volume_of(body) if body else None
        if body is None or volume is None:
            return
        labels = await own_labels(self._client, self._state)
        if self._state.native and not self._is_mine(volume, labels):
            return
        text = plan.requested_text(claim)
        try:
            await self._grow(claim, volume, plan.requested(claim))
        except (StorageError, Refused, OSError) as err:
            await self._resize_failed(claim, volume.name, err)
            if isinstance(err, Refused):
                return
            raise
        capacity = {"spec": {"capacity": {"storage": text}}}
        if volume.size < plan.requested(claim):
            await self._client.merge(f"{VOLUMES}/{volume.name}", capacity)
        await self._client.merge(_status(claim), plan.grown_status(claim, text))
        await self._tell.normal(claim, "VolumeResizeSuccessful", "Resize volume succeeded")
        self._changed()

    async def _grow(self, claim: Object, volume: Volume, size: int) -> None:
        message = f"External resizer is resizing volume {volume.name}"
        await self._tell.normal(claim, "Resizing", message)
        shared = self._state.configuration.is_shared(volume.class_name)
        node = self._state.node or volume.node
        bases = self._state.configuration.bases(node)
        place = places.locate(volume, bases, node=node, shared=shared)
        storage_class = await read(self._client, f"{CLASSES}/{volume.class_name}")
        await self._storage.grow(place, size, plan.overcommit(storage_class or {}))

    async def _resize_failed(self, claim: Object, name: str, err: Exception) -> None:
        pending = isinstance(err, InUse)
        message = f'Resize volume "{name}" failed: {err}'
        await self._tell.warn(claim, "VolumeResizeFailed", message)
        patch = plan.resize_condition(
            claim,
            "FileSystemResizePending" if pending else "ControllerResizeError",
            _PENDING if pending else message,
            self._tell.time(),
        )
        if patch:
            await self._client.merge(_status(claim), patch)

    def _is_mine(self, volume: Volume, labels: dict[str, str]) -> bool:
        return self._state.configuration.is_shared(volume.class_name) or plan.lies_on(
            volume, self._state.node, labels
        )


def _status(claim: Object) -> str:
    metadata = claim["metadata"]
    return f"{CLAIMS.format(metadata['namespace'])}/{metadata['name']}/status"


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not node["spec"].get("unschedulable")
