"""
How much each StorageClass can still give on this node, for the scheduler; and how sizes are kept.

One CSIStorageCapacity for each class, written only after something was made, grown or removed
here, or the classes or paths have changed: what pods write changes nothing, since their
volumes were promised their size already.
"""

from hashlib import sha256
from pathlib import Path
from typing import Protocol

from operators.client import ApiError, Client
from operators.localpath import plan, quantity, sizes
from operators.localpath.base import ENFORCEMENT, Object, Refused, Support
from operators.localpath.paths import Configuration
from operators.localpath.state import NODES, State, read

_GROUP = "/apis/storage.k8s.io/v1"
NODE_LABEL = "localpath.pinnace.dev/node"
_MOST = 2**60
_NOTABLE = 64 * 2**20  # bytes, or a hundredth: less is not worth a write


class Disk(Protocol):
    async def support(self, base: Path) -> Support: ...

    async def left(self, base: Path, overcommit: float) -> int: ...


class Capacity:
    """``namespace``: where the objects are kept."""

    def __init__(self, client: Client, disk: Disk, state: State, *, namespace: str) -> None:
        self._client = client
        self._disk = disk
        self._state = state
        self._path = f"{_GROUP}/namespaces/{namespace}/csistoragecapacities"
        self._namespace = namespace
        self._published: dict[str, Object] = {}

    async def reconcile(self) -> None:
        node = await read(self._client, f"{NODES}/{self._state.node}")
        if node is None:
            return  # its arrival is an event
        await self._mark(node)
        wanted = {}
        for storage_class in list(self._state.classes.values()):
            body = await self._wanted(storage_class, node)
            if body:
                wanted[body["metadata"]["name"]] = body
        for name in self._published.keys() - wanted.keys():
            await self._drop(name)
            del self._published[name]
        for name, body in wanted.items():
            said = self._published.get(name)
            if said is None or not _same(said, body):
                self._published[name] = await self._publish(name, body)

    async def _mark(self, node: Object) -> None:
        """The choice of this node, for people to see."""
        bases = self._state.bases()
        found = {base: (await self._disk.support(base)).best for base in bases}
        if not found:
            return
        kinds = set(found.values())
        told = ",".join(f"{base}={kind}" for base, kind in found.items())
        text = kinds.pop() if len(kinds) == 1 else told
        if (node["metadata"].get("annotations") or {}).get(ENFORCEMENT) != text:
            patch = {"metadata": {"annotations": {ENFORCEMENT: text}}}
            await self._client.merge(f"{NODES}/{self._state.node}", patch)

    async def _wanted(self, storage_class: Object, node: Object) -> Object | None:
        """None: nothing can be made here, which is what no object at all means."""
        class_name = storage_class["metadata"]["name"]
        try:
            room = await self._room(storage_class, self._state.configuration)
        except Refused:
            return None
        if room is None:
            return None
        key = plan.affinity_key(storage_class)
        value = (node["metadata"].get("labels") or {}).get(key, self._state.node)
        name = _name(class_name, self._state.node)
        return {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIStorageCapacity",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {NODE_LABEL: self._state.node},
                "ownerReferences": [_owner(node)],
            },
            "storageClassName": class_name,
            "nodeTopology": {"matchLabels": {key: value}},
            "capacity": quantity.text(room),
        }

    async def _room(self, storage_class: Object, configuration: Configuration) -> int | None:
        """Bytes that one claim may ask for: the most of the class's paths."""
        paths = configuration.of_class(storage_class["metadata"]["name"])
        told = storage_class.get("parameters") or {}
        chosen = told.get("nodePath")
        bases = [Path(p) for p in paths.of(self._state.node) if not chosen or p == chosen]
        if paths.shared or not bases:
            return _MOST if paths.shared else None
        overcommit = plan.overcommit(storage_class)
        found = [
            await self._room_of(base, told.get("enforce", "auto"), overcommit) for base in bases
        ]
        return max(found)

    async def _room_of(self, base: Path, enforce: str, overcommit: float) -> int:
        best = (await self._disk.support(base)).best
        kind = best if enforce == "auto" else {"quota": "project-quota"}.get(enforce, enforce)
        if kind == "none":
            return _MOST
        left = await self._disk.left(base, overcommit)
        if left >= _MOST:
            return _MOST
        return sizes.claim_size(left) if kind == "image" else left // sizes.MIB * sizes.MIB

    async def _publish(self, name: str, body: Object) -> Object:
        """What stands there now."""
        existing = await read(self._client, f"{self._path}/{name}")
        if existing is None:
            try:
                return await self._client.create(self._path, body)
            except ApiError as err:
                if err.code != 409:
                    raise
                existing = await self._client.get(f"{self._path}/{name}")
        if _same(existing, body):
            return existing
        version = {"resourceVersion": existing["metadata"]["resourceVersion"]}
        return await self._client.replace(
            f"{self._path}/{name}", {**body, "metadata": {**body["metadata"], **version}}
        )

    async def _drop(self, name: str) -> None:
        try:
            await self._client.delete(f"{self._path}/{name}")
        except ApiError as err:
            if err.code != 404:
                raise


def _same(existing: Object, body: Object) -> bool:
    before, after = (quantity.parse(o.get("capacity", "0")) for o in (existing, body))
    close = abs(before - after) < max(_NOTABLE, after // 100) and bool(before) == bool(after)
    owners = [o["uid"] for o in existing["metadata"].get("ownerReferences") or ()]
    return (
        close
        and existing.get("nodeTopology") == body["nodeTopology"]
        and owners == [o["uid"] for o in body["metadata"]["ownerReferences"]]
    )


def _owner(node: Object) -> Object:
    metadata = node["metadata"]
    return {"apiVersion": "v1", "kind": "Node", "name": metadata["name"], "uid": metadata["uid"]}


def _name(class_name: str, node: str) -> str:
    name = f"{class_name}.{node}"
    if len(name) <= 253:
        return name
    return f"{name[:180]}.{sha256(name.encode()).hexdigest()[:16]}"
