"""
Volumes that outlive pods, as a pod finds them on this node: claim → volume → folder.

Served are hostPath and local volumes, the folder itself or an image mounted on it
(:mod:`node.kubelet.localpath`). Everything else is refused by name.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.base import Client, Object, Reads
from controlplane.objects import node_selectors
from controlplane.objects.errors import StatusError
from node.kubelet import files
from node.kubelet.base import CLAIMS, NODES, VOLUMES, Recorder, Settings, uid_of
from node.kubelet.localpath import Backing, LocalPath, Locks, mark, of_volume

_PROTECTION = "kubernetes.io/pvc-protection"
# Of a PersistentVolume's spec, what is no source.
_COMMON = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The volume behind a claim, ready to be used."""

    claim: str
    path: Path
    type: str  # what the folder has to be, in hostPath's words
    backing: Backing | None  # mounted on the path
    volume: str  # the name of the PersistentVolume
    is_local: bool  # fsGroup counts for local volumes, not for the host's own folders
    alone: bool  # ReadWriteOncePod


class Claims:
    """Without state besides what is mounted, marks in the pods' folders, and locks."""

    def __init__(
        self, client: Client, reads: Reads, settings: Settings, recorder: Recorder
    ) -> None:
        self._client = client
        self._reads = reads
        self._settings = settings
        self._recorder = recorder
        self._local = LocalPath(mark(settings.pods_dir))
        self._locks = Locks()

    async def find(self, pod: Object, name: str, *, template: bool) -> Claimed:
        """
        What a claim stands for; ``template``: the claim of a generic ephemeral volume.

        ``ValueError`` where it cannot be used here, ``Unreachable`` where nobody can tell.
        """
        namespace = pod["metadata"]["namespace"]
        try:
            claim = await self._client.get(CLAIMS, namespace, name)
        except StatusError as err:
            raise ValueError(f"failed to fetch PVC from API server: {err.message}") from err
        if template and not _is_owner(pod, claim):
            raise ValueError(
                f"PVC {namespace}/{name} was not created for pod "
                f"{namespace}/{pod['metadata']['name']} (pod is not owner)"
            )
        volume = await self._volume(claim)
        self._check(volume, claim)
        return _claimed(volume, claim)

    async def _volume(self, claim: Object) -> Object:
        meta, bound = claim["metadata"], claim["spec"].get("volumeName")
        if "deletionTimestamp" in meta and _PROTECTION not in meta.get("finalizers", ()):
            raise ValueError("PVC is being deleted")
        if claim.get("status", {}).get("phase") != "Bound":
            raise ValueError("PVC is not bound")
        if not bound:
            raise ValueError("PVC has empty pvc.Spec.VolumeName")
        try:
            return await self._client.get(VOLUMES, "", bound)
        except StatusError as err:
            text = f"failed to fetch PV {bound} from API server: {err.message}"
            raise ValueError(text) from err

    def _check(self, volume: Object, claim: Object) -> None:
        spec, name = volume["spec"], volume["metadata"]["name"]
        held = spec.get("claimRef") or {}
        if held.get("uid") not in (None, claim["metadata"]["uid"]):
            raise ValueError(f"PV {name} points to unexpected claim {held.get('uid')}")
        if spec.get("volumeMode") == "Block":
            raise ValueError("Pinnace does not support raw block volumes (volumeMode: Block)")
        required = (spec.get("nodeAffinity") or {}).get("required")
        node = self._reads.get(NODES, "", self._settings.node_name)
        if required is not None and node is not None:
            terms = required.get("nodeSelectorTerms")
            if not node_selectors.node_selector_matches(terms, node):
                raise ValueError("the node is not the volume's: no matching NodeSelectorTerms")

    async def mount(self, backing: Backing) -> None:
        await asyncio.to_thread(self._local.ensure, backing)

    def ensure(self, backing: Backing) -> None:
        """As :meth:`mount`, for those who are in a thread: just before a container starts."""
        self._local.ensure(backing)

    def take(self, pod: Object, found: Claimed, *, writes: bool) -> None:
        """
        Note that the pod uses the volume, and give a local one to its group. Blocks.

        Once in the life of the pod. While another one uses the volume its files are not
        changed under that one's feet. ``ValueError`` where it is for one pod and taken.
        """
        with self._locks.held(found.volume):
            self._take(pod, found, writes=writes)

    def _take(self, pod: Object, found: Claimed, *, writes: bool) -> None:
        top = self._settings.pods_dir
        done = _mark(top / uid_of(pod), found.volume)
        if done.exists():
            return
        others = [p for p in top.glob(f"*/{_mark(Path(), found.volume)}") if p != done]
        if others and found.alone:
            raise ValueError(
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
            )
        if writes and found.is_local:
            self._own(pod, found, shared=bool(others))
        done.mkdir(parents=True)

    def _own(self, pod: Object, found: Claimed, *, shared: bool) -> None:
        security = pod["spec"].get("securityContext") or {}
        group = security.get("fsGroup")
        if group is None:
            return
        has = found.path.stat().st_gid
        if shared and has != group:
            text = (
                f"The requested fsGroup is {group}, but the volume {found.volume} has GID {has}. "
                "The volume may not be shareable."
            )
            self._recorder.record(pod, "Warning", "AlreadyMountedVolume", text)
        lazily = security.get("fsGroupChangePolicy") == "OnRootMismatch"
        if not shared and not (lazily and files.is_owned_by_group(found.path, group)):
            files.own_by_group(found.path, group)


def _mark(folder: Path, volume: str) -> Path:
    return folder / "volumes" / "kubernetes.io~local-volume" / volume


def _is_owner(pod: Object, claim: Object) -> bool:
    return any(
        owner.get("controller") and owner.get("uid") == uid_of(pod)
        for owner in claim["metadata"].get("ownerReferences", ())
    )


def _claimed(volume: Mapping[str, Any], claim: Object) -> Claimed:
    spec = volume["spec"]
    for kind in ("hostPath", "local"):
        if kind not in spec:
            continue
        path = Path(spec[kind]["path"])
        if not path.is_absolute() or ".." in path.parts:
            raise ValueError(f"invalid path: {path} must be absolute and must not contain '..'")
        backing = of_volume(volume, path)
        if kind == "local" and path.is_block_device():
            raise ValueError("Pinnace does not support local volumes on block devices")
        type_ = spec[kind].get("type", "") if kind == "hostPath" else "Directory"
        return Claimed(
            claim=claim["metadata"]["name"],
            path=path,
            type="" if backing else type_,
            backing=backing,
            volume=volume["metadata"]["name"],
            is_local=kind == "local",
            alone="ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()),
        )
    kinds = ", ".join(sorted(spec.keys() - _COMMON))
    raise ValueError(f"Pinnace does not support persistent volumes of type {kinds}")
