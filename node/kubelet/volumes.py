"""
The volumes of a pod: what each is on the host, what it holds, and where a container sees it.

Served: emptyDir, hostPath, configMap, secret, downwardAPI, projected, and claims bound to
hostPath or local volumes. Everything else is refused by name with a FailedMount event.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.base import Client, Object, Unreachable
from controlplane.objects import quantity
from controlplane.objects.errors import StatusError
from node.cri.base import Device, Mount, Propagation
from node.kubelet import env as environment
from node.kubelet import files, trust
from node.kubelet.base import CLAIMS, VOLUMES, Settings, uid_of
from node.kubelet.files import File
from node.kubelet.sources import Sources, Waiting

_PROJECTED = {"configMap", "secret", "downwardAPI", "projected"}
_IN_MEMORY = {"secret", "projected"}  # never on a card that can be taken out
_PLUGIN = {
    "emptyDir": "empty-dir",
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
}
_PROPAGATION = {
    "None": Propagation.PRIVATE,
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}


class VolumeError(Exception):
    """A volume is not there (yet); the text is that of the FailedMount event."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The volumes of a pod on the host."""

    paths: Mapping[str, Path]
    readonly: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    refresh_at: float | None = None  # epoch; when a token has to be renewed


def _kind(volume: Mapping[str, Any]) -> str:
    return next((str(key) for key in volume if key != "name"), "emptyDir")


def _folder(pod: Object, settings: Settings, volume: Mapping[str, Any]) -> Path:
    top = settings.pods_dir / uid_of(pod) / "volumes"
    return top / f"kubernetes.io~{_PLUGIN[_kind(volume)]}" / str(volume["name"])


def fs_group(pod: Object) -> int | None:
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


class Volumes:
    """Prepares and removes; without state besides what is on the disk."""

    def __init__(self, client: Client, sources: Sources, settings: Settings) -> None:
        self._client = client
        self._sources = sources
        self._settings = settings

    async def prepare(self, pod: Object, ips: Sequence[str] = ()) -> Ready:
        """Make or update every volume; raise :class:`VolumeError` for the first that is missing."""
        paths: dict[str, Path] = {}
        readonly, devices, refresh = set(), set(), []
        for volume in pod["spec"].get("volumes", ()):
            name, kind = volume["name"], _kind(volume)
            try:
                if kind in _PROJECTED:
                    path, again = await self._projected(pod, volume, kind)
                    refresh += [again] if again else []
                    readonly.add(name)
                else:
                    path, locked = await self._plain(pod, volume, kind)
                    readonly |= {name} if locked else set()
            except (ValueError, OSError, StatusError, Unreachable, Waiting) as err:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {err}') from err
            paths[name] = path
            if _is_block(path):
                devices.add(name)
        return Ready(paths, frozenset(readonly), frozenset(devices), min(refresh, default=None))

    async def _plain(self, pod: Object, volume: Mapping[str, Any], kind: str) -> tuple[Path, bool]:
        source = volume.get(kind) or {}
        match kind:
            case "emptyDir":
                path = _folder(pod, self._settings, volume)
                await asyncio.to_thread(_empty_dir, path, source, fs_group(pod))
                return path, False
            case "hostPath":
                path = Path(source["path"])
                await asyncio.to_thread(_host_path, path, source.get("type", ""))
                return path, False
            case "persistentVolumeClaim":
                path = await self._claimed(pod, source["claimName"])
                return path, bool(source.get("readOnly"))
            case _:
                raise ValueError(f"Pinnace does not support volumes of type {kind}")

    async def _claimed(self, pod: Object, name: str) -> Path:
        namespace = pod["metadata"]["namespace"]
        claim = await self._client.get(CLAIMS, namespace, name)
        bound = claim["spec"].get("volumeName")
        if not bound or claim.get("status", {}).get("phase") != "Bound":
            raise ValueError(f"PVC {namespace}/{name} is not bound")
        spec = (await self._client.get(VOLUMES, "", bound))["spec"]
        for kind in ("hostPath", "local"):
            if kind in spec:
                path = Path(spec[kind]["path"])
                type_ = spec[kind].get("type", "") if kind == "hostPath" else "Directory"
                await asyncio.to_thread(_host_path, path, type_)
                group = fs_group(pod)
                if group is not None and kind == "local":
                    await asyncio.to_thread(files.own_by_group, path, group)
                return path
        kinds = spec.keys() - {"capacity", "accessModes", "claimRef", "storageClassName"}
        raise ValueError(f"Pinnace does not support persistent volumes of type {', '.join(kinds)}")

    async def _projected(
        self, pod: Object, volume: Mapping[str, Any], kind: str
    ) -> tuple[Path, float | None]:
        source = volume[kind]
        mode = source.get("defaultMode", 0o644)
        parts = source.get("sources", ()) if kind == "projected" else [{kind: source}]
        payload: dict[str, File] = {}
        refresh: list[float] = []
        for part in parts:
            for what, details in part.items():
                payload |= await self._part(pod, what, details, mode, refresh=refresh)
        path = _folder(pod, self._settings, volume)
        if kind in _IN_MEMORY:
            await asyncio.to_thread(_tmpfs, path)
        await asyncio.to_thread(files.write_payload, path, payload, fs_group(pod))
        return path, min(refresh, default=None)

    async def _part(
        self, pod: Object, what: str, details: Mapping[str, Any], mode: int, *, refresh: list[float]
    ) -> dict[str, File]:
        match what:
            case "configMap" | "secret":
                return await self._keys(pod, what.lower(), details, mode)
            case "downwardAPI":
                return _downward(pod, details, mode, self._settings)
            case "serviceAccountToken":
                seconds = details.get("expirationSeconds", 3600)
                text, again = await self._sources.token(pod, details.get("audience", ""), seconds)
                refresh.append(again)
                # A token is for the container's user alone, unless a group was asked for.
                mode, owner = _token_mode(pod, mode)
                return {details["path"]: File(text.encode(), mode, owner)}
            case "clusterTrustBundle":
                bundles = await self._sources.trust_bundles(uid_of(pod))
                return {details["path"]: File(trust.bundle(details, bundles), mode)}
            case _:
                raise ValueError(f"Pinnace does not support projected volume source {what}")

    async def _keys(
        self, pod: Object, kind: str, details: Mapping[str, Any], mode: int
    ) -> dict[str, File]:
        name = details.get("secretName") or details.get("name", "")
        namespace = pod["metadata"]["namespace"]
        values = await self._sources.data(uid_of(pod), kind, namespace, name)
        optional = bool(details.get("optional"))
        if values is None:
            if optional:
                return {}
            raise ValueError(f'{kind} "{name}" not found')
        if "items" not in details:
            return {key: File(value, mode) for key, value in values.items()}
        out = {}
        for item in details["items"]:
            if item["key"] in values:
                out[item["path"]] = File(values[item["key"]], item.get("mode", mode))
            elif not optional:
                raise ValueError(f"{kind} references non-existent {kind} key: {item['key']}")
        return out

    async def remove(self, uid: str) -> None:
        """Everything that the pod had on the host: idempotent, never across a mount."""
        await asyncio.to_thread(files.remove_tree, self._settings.pods_dir / uid)

    def mounts(
        self, pod: Object, container: Mapping[str, Any], ready: Ready, env: Mapping[str, str]
    ) -> tuple[tuple[Mount, ...], tuple[Device, ...]]:
        """Blocks (sub-paths are bound here). Raise ValueError or OSError where one is not right."""
        out = []
        for index, wanted in enumerate(container.get("volumeMounts", ())):
            name = wanted["name"]
            if name not in ready.paths:
                raise ValueError(f'volume "{name}" is not mounted')
            path = ready.paths[name]
            subpath = wanted.get("subPath", "")
            if expression := wanted.get("subPathExpr"):
                subpath = environment.expand(expression, env)
            if subpath:
                path = self._subpath(pod, container["name"], index, (name, path, subpath))
            readonly = bool(wanted.get("readOnly")) or name in ready.readonly
            out.append(
                Mount(
                    container_path=_absolute(wanted["mountPath"]),
                    host_path=str(path),
                    readonly=readonly,
                    propagation=_PROPAGATION[wanted.get("mountPropagation") or "None"],
                    recursive_read_only=wanted.get("recursiveReadOnly") == "Enabled",
                )
            )
        devices = tuple(
            Device(container_path=d["devicePath"], host_path=str(ready.paths[d["name"]]))
            for d in container.get("volumeDevices", ())
        )
        return tuple(out), devices

    def _subpath(
        self, pod: Object, container: str, index: int, wanted: tuple[str, Path, str]
    ) -> Path:
        name, path, subpath = wanted
        if Path(subpath).is_absolute() or ".." in Path(subpath).parts:
            raise ValueError(f"subPath {subpath!r} must be relative and must not contain '..'")
        top = self._settings.pods_dir / uid_of(pod) / "volume-subpaths"
        return files.bind_subpath(
            path, subpath, top / name / container / str(index), readonly=False
        )


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _is_block(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False


def _token_mode(pod: Object, mode: int) -> tuple[int, int | None]:
    if fs_group(pod) is not None:
        return 0o600, None
    spec = pod["spec"]
    default = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (c.get("securityContext") or {}).get("runAsUser", default)
        for c in [*spec.get("initContainers", ()), *spec["containers"]]
    }
    if len(users) == 1 and None not in users:
        return 0o600, users.pop()
    return mode, None


def _downward(
    pod: Object, details: Mapping[str, Any], mode: int, settings: Settings
) -> dict[str, File]:
    out = {}
    for item in details.get("items", ()):
        if "fieldRef" in item:
            text = environment.field(pod, item["fieldRef"]["fieldPath"], settings)
        else:
            text = environment.resource_field(pod, {}, item["resourceFieldRef"], settings)
        out[item["path"]] = File(text.encode(), item.get("mode", mode))
    return out


def _tmpfs(path: Path, options: str = "") -> bool:
    """Mount one there, unless it is; after a reboot the folder is left but the mount is not."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_mount():
        return False
    files.mount("tmpfs", path, "tmpfs", options=options)
    return True


def _empty_dir(path: Path, source: Mapping[str, Any], group: int | None) -> None:
    medium = source.get("medium", "")
    if medium == "Memory":
        size = f"size={quantity.value(source['sizeLimit'])}" if source.get("sizeLimit") else ""
        if not _tmpfs(path, size):
            return
    elif medium:
        raise ValueError(f"Pinnace does not support emptyDir with medium {medium}")
    elif path.is_dir():
        return
    else:
        path.mkdir(parents=True)
    path.chmod(0o777)
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o2777)


def _host_path(path: Path, type_: str) -> None:
    """Check, or make, what a hostPath says it is; without a type containerd makes a folder."""
    if not type_:
        return
    if type_ == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif type_ == "FileOrCreate" and not path.exists():
        path.touch()
    if not _TESTS[type_](path):
        raise ValueError(f"hostPath type check failed: {path} is not a {_NAMES[type_]}")


_TESTS: Mapping[str, Callable[[Path], bool]] = {
    "Directory": Path.is_dir,
    "DirectoryOrCreate": Path.is_dir,
    "File": Path.is_file,
    "FileOrCreate": Path.is_file,
    "Socket": Path.is_socket,
    "CharDevice": Path.is_char_device,
    "BlockDevice": Path.is_block_device,
}
_NAMES = {
    "Directory": "directory",
    "DirectoryOrCreate": "directory",
    "File": "file",
    "FileOrCreate": "file",
    "Socket": "socket file",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}
