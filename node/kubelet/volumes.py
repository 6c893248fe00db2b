"""
The volumes of a pod: what each is on the host, what it holds, and where a container sees it.

Served: emptyDir, hostPath, configMap, secret, downwardAPI, projected, and claims (generic
ephemeral ones too) bound to hostPath or local volumes. Everything else is refused by name with a
FailedMount event.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from controlplane.client.base import Client, Object, Reads, Unreachable
from controlplane.objects.errors import StatusError
from node.cri.base import Features, Mount, Propagation
from node.kubelet import emptydir, files, trust
from node.kubelet import env as environment
from node.kubelet.base import (
    Recorder,
    Settings,
    all_containers,
    is_recursive_read_only,
    uid_of,
)
from node.kubelet.claims import Claimed, Claims
from node.kubelet.files import File
from node.kubelet.sources import Sources, Waiting

_PROJECTED = {"configMap", "secret", "downwardAPI", "projected"}
_CLAIMED = {"persistentVolumeClaim", "ephemeral"}
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
    refresh_at: float | None = None  # epoch; when a token has to be renewed
    claims: Mapping[str, Claimed] = field(default_factory=dict)  # by the volume's name


def _kind(volume: Mapping[str, Any]) -> str:
    return next((str(key) for key in volume if key != "name"), "emptyDir")


def _folder(pod: Object, settings: Settings, volume: Mapping[str, Any]) -> Path:
    top = settings.pods_dir / uid_of(pod) / "volumes"
    return top / f"kubernetes.io~{_PLUGIN[_kind(volume)]}" / str(volume["name"])


def fs_group(pod: Object) -> int | None:
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


def nested_mounts(pod: Object, volume: str) -> set[PurePath]:
    """Where containers mount other volumes within this one, relative to it."""
    found = set()
    for container in all_containers(pod):
        mounts = [
            (PurePath(_absolute(mount["mountPath"])), mount)
            for mount in container.get("volumeMounts", ())
        ]
        whole = [
            path
            for path, mount in mounts
            if mount["name"] == volume and not (mount.get("subPath") or mount.get("subPathExpr"))
        ]
        found |= {
            inner.relative_to(outer)
            for outer in whole
            for inner, mount in mounts
            if inner != outer and inner.is_relative_to(outer) and mount["name"] != volume
        }
    return found


class Volumes:
    """Prepares and removes; without state besides what is on the disk."""

    def __init__(
        self,
        client: Client,
        sources: Sources,
        settings: Settings,
        *,
        reads: Reads,
        recorder: Recorder,
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._claims = Claims(client, reads, settings, recorder)

    async def prepare(self, pod: Object, ips: Sequence[str] = ()) -> Ready:
        """Make or update every volume; raise :class:`VolumeError` for the first that is missing."""
        _refuse_devices(pod)
        made = _Made()
        for volume in pod["spec"].get("volumes", ()):
            name, kind = volume["name"], _kind(volume)
            try:
                if kind in _PROJECTED:
                    path, again = await self._projected(pod, volume, kind)
                    made.refresh += [again] if again else []
                    made.readonly.add(name)
                elif kind in _CLAIMED:
                    path = await self._claimed(pod, volume, made)
                else:
                    path = await self._plain(pod, volume, kind)
            except (ValueError, OSError, StatusError, Unreachable, Waiting) as err:
                raise _failed(name, err) from err
            made.paths[name] = path
        return made.ready()

    async def _plain(self, pod: Object, volume: Mapping[str, Any], kind: str) -> Path:
        source = volume.get(kind) or {}
        match kind:
            case "emptyDir":
                path = _folder(pod, self._settings, volume)
                await asyncio.to_thread(emptydir.make, pod, path, source, self._settings)
            case "hostPath":
                path = Path(source["path"])
                await asyncio.to_thread(_host_path, path, source.get("type", ""))
            case _:
                raise ValueError(f"Pinnace does not support volumes of type {kind}")
        return path

    async def _claimed(self, pod: Object, volume: Mapping[str, Any], made: "_Made") -> Path:
        name, source = volume["name"], volume.get("persistentVolumeClaim")
        claim = source["claimName"] if source else f"{pod['metadata']['name']}-{name}"
        try:
            found = await self._claims.find(pod, claim, template=source is None)
        except (ValueError, StatusError, Unreachable) as err:
            where = f"{pod['metadata']['namespace']}/{claim}"
            raise VolumeError(
                f"Unable to attach or mount volumes: unmounted volumes=[{name}], unattached "
                f"volumes=[], failed to process volumes=[{name}]: error processing PVC {where}: "
                f"{err}"
            ) from err
        try:
            await self._use(pod, found, writes=not (source or {}).get("readOnly"))
        except (ValueError, OSError) as err:
            raise _failed(found.volume, err) from err
        if (source or {}).get("readOnly"):
            made.readonly.add(name)
        made.claims[name] = found
        return found.path

    async def _use(self, pod: Object, found: Claimed, *, writes: bool) -> None:
        if found.backing is not None:
            await self._claims.mount(found.backing)
        else:
            await asyncio.to_thread(_host_path, found.path, found.type)
        await asyncio.to_thread(self._claims.take, pod, found, writes=writes)

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
            await asyncio.to_thread(emptydir.tmpfs, path)
        await asyncio.to_thread(files.write_payload, path, payload, fs_group(pod))
        if nested := nested_mounts(pod, volume["name"]):
            await asyncio.to_thread(files.make_mount_points, path, nested)
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
        self,
        pod: Object,
        container: Mapping[str, Any],
        ready: Ready,
        env: Mapping[str, str],
        *,
        features: Features,
    ) -> tuple[Mount, ...]:
        """
        Blocks (sub-paths are bound here).

        Raise ValueError or OSError where a mount is not right, VolumeError where the volume
        is there no more.
        """
        out = []
        for index, wanted in enumerate(container.get("volumeMounts", ())):
            name = wanted["name"]
            if name not in ready.paths:
                raise ValueError(f'volume "{name}" is not mounted')
            found = ready.claims.get(name)
            if found is not None and found.backing is not None:
                # Somebody may have unmounted it since the pod was made ready.
                try:
                    self._claims.ensure(found.backing)
                except (ValueError, OSError) as err:
                    raise _failed(found.volume, err) from err
            path = ready.paths[name]
            readonly = bool(wanted.get("readOnly")) or name in ready.readonly
            subpath = wanted.get("subPath", "")
            if expression := wanted.get("subPathExpr"):
                subpath = environment.expand(expression, env)
            if subpath:
                top = self._settings.pods_dir / uid_of(pod) / "volume-subpaths"
                path = _subpath(path, subpath, top / name / container["name"] / str(index))
            out.append(
                Mount(
                    container_path=_absolute(wanted["mountPath"]),
                    host_path=str(path),
                    readonly=readonly,
                    propagation=_PROPAGATION[wanted.get("mountPropagation") or "None"],
                    recursive_read_only=is_recursive_read_only(wanted, features),
                )
            )
        return tuple(out)


@dataclass(slots=True)
class _Made:
    """What was made ready so far."""

    paths: dict[str, Path] = field(default_factory=dict)
    readonly: set[str] = field(default_factory=set)
    refresh: list[float] = field(default_factory=list)
    claims: dict[str, Claimed] = field(default_factory=dict)

    def ready(self) -> Ready:
        again = min(self.refresh, default=None)
        return Ready(self.paths, frozenset(self.readonly), again, self.claims)


def _failed(name: str, err: Exception) -> VolumeError:
    return VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {err}')


def _refuse_devices(pod: Object) -> None:
    for container in all_containers(pod):
        if devices := container.get("volumeDevices"):
            raise VolumeError(
                f'MapVolume.SetUpDevice failed for volume "{devices[0]["name"]}" : '
                "Pinnace does not support raw block volumes (volumeDevices)"
            )


def _subpath(volume: Path, subpath: str, target: Path) -> Path:
    if Path(subpath).is_absolute() or ".." in Path(subpath).parts:
        raise ValueError(f"subPath {subpath!r} must be relative and must not contain '..'")
    return files.bind_subpath(volume, subpath, target, readonly=False)


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


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
