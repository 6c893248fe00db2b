"""Volumes of a pod, and the volume sources that pods and PersistentVolumes share."""

from collections.abc import Iterable

from controlplane.objects.errors import duplicate, forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, names
from controlplane.objects.validation.checks import Found, Object, formed
from controlplane.objects.validation.containers import descending_path

_MODE = 0o777
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_NEEDED = {
    # What must be there, for each source.
    "secret": ("secretName",),
    "configMap": ("name",),
    "persistentVolumeClaim": ("claimName",),
    "nfs": ("server", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "glusterfs": ("endpoints", "path"),
    "cephfs": ("monitors",),
    "rbd": ("monitors", "image"),
    "csi": ("driver",),
    "flexVolume": ("driver",),
    "gitRepo": ("repository",),
    "awsElasticBlockStore": ("volumeID",),
    "gcePersistentDisk": ("pdName",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "cinder": ("volumeID",),
    "portworxVolume": ("volumeID",),
}
# Sources without a field that must be there.
_OTHERS = (
    "emptyDir",
    "hostPath",
    "downwardAPI",
    "projected",
    "ephemeral",
    "image",
    "fc",
    "flocker",
    "quobyte",
    "scaleIO",
    "storageos",
    "photonPersistentDisk",
    "local",
)
SOURCES = (*_NEEDED, *_OTHERS)


def volumes(given: Iterable[Object], path: str) -> Found:
    seen: set[str] = set()
    for index, volume in enumerate(given):
        where = f"{path}[{index}]"
        name = volume.get("name") or ""
        if not name:
            yield required(f"{where}.name")
        elif name in seen:
            yield duplicate(f"{where}.name", name)
        else:
            yield from formed(names.dns1123_label, name, f"{where}.name")
        seen.add(name)
        yield from source(volume, where)


def source(volume: Object, path: str) -> Found:
    """Exactly one source, and what it needs."""
    found = [name for name in SOURCES if volume.get(name) is not None]
    yield from checks.exactly_one(
        found,
        path,
        none="must specify a volume type",
        more="may not specify more than 1 volume type",
    )
    if not found:
        return
    name = found[0]
    given, where = volume[name], f"{path}.{name}"
    for needed in _NEEDED.get(name, ()):
        yield from checks.present(given.get(needed), f"{where}.{needed}")
    match name:
        case "emptyDir":
            if (limit := given.get("sizeLimit")) is not None:
                yield from checks.amount(limit, f"{where}.sizeLimit")
        case "hostPath":
            yield from _host_path(given, where)
        case "local":
            yield from _no_backsteps(given.get("path") or "", f"{where}.path")
        case "secret" | "configMap" | "downwardAPI" | "projected":
            yield from _mode(given, where)
            yield from _files(name, given, where)
        case "ephemeral":
            yield from checks.present(
                given.get("volumeClaimTemplate"), f"{where}.volumeClaimTemplate"
            )
        case _:
            return


def _files(name: str, given: Object, path: str) -> Found:
    match name:
        case "downwardAPI":
            yield from _downward(given.get("items") or (), f"{path}.items")
        case "projected":
            yield from _projected(given.get("sources") or (), f"{path}.sources")
        case _:
            yield from _items(given.get("items") or (), f"{path}.items")


def _host_path(given: Object, path: str) -> Found:
    target = given.get("path") or ""
    if not target:
        yield required(f"{path}.path")
    yield from _no_backsteps(target, f"{path}.path")
    if (kind := given.get("type")) is not None:
        yield from checks.one_of(kind, _HOST_PATH_TYPES, f"{path}.type")


def _no_backsteps(target: str, path: str) -> Found:
    if ".." in target.split("/"):
        yield invalid_value(path, target, "must not contain '..'")


def _mode(given: Object, path: str) -> Found:
    mode = given.get("defaultMode")
    if mode is not None and not 0 <= mode <= _MODE:
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        yield invalid_value(f"{path}.defaultMode", mode, text)


def _items(items: Iterable[Object], path: str) -> Found:
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        yield from checks.present(item.get("key"), f"{where}.key")
        yield from _item_path(item, where)


def _item_path(item: Object, path: str) -> Found:
    target = item.get("path") or ""
    if not target:
        yield required(f"{path}.path")
        return
    yield from descending_path(target, f"{path}.path")
    if target.startswith("..") and not target.startswith("../"):
        yield invalid_value(f"{path}.path", target, "must not start with '..'")
    mode = item.get("mode")
    if mode is not None and not 0 <= mode <= _MODE:
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        yield invalid_value(f"{path}.mode", mode, text)


def _downward(items: Iterable[Object], path: str) -> Found:
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        yield from _item_path(item, where)
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if not field and not resource:
            yield required(f"{where}.fieldRef", "one of fieldRef and resourceFieldRef is required")
        if field and resource:
            text = "fieldRef and resourceFieldRef can not be specified simultaneously"
            yield invalid_value(where, "resource", text)
        if resource and not resource.get("containerName"):
            yield required(f"{where}.resourceFieldRef.containerName")


_PROJECTIONS = (
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
)


def _projected(sources: Iterable[Object], path: str) -> Found:
    for index, projection in enumerate(sources):
        where = f"{path}[{index}]"
        found = [name for name in _PROJECTIONS if projection.get(name) is not None]
        for name in found[1:]:
            text = "may not specify more than 1 volume type per source"
            yield forbidden_field(f"{where}.{name}", text)
        for name in found[:1]:
            yield from _projection(name, projection[name], f"{where}.{name}")


def _projection(name: str, given: Object, path: str) -> Found:
    match name:
        case "secret" | "configMap":
            yield from checks.present(given.get("name"), f"{path}.name")
            yield from _items(given.get("items") or (), f"{path}.items")
        case "downwardAPI":
            yield from _downward(given.get("items") or (), f"{path}.items")
        case "serviceAccountToken":
            seconds = given.get("expirationSeconds")
            if seconds is not None and seconds < 600:
                text = "may not specify a duration less than 10 minutes"
                yield invalid_value(f"{path}.expirationSeconds", seconds, text)
            if seconds is not None and seconds > 1 << 32:
                text = "may not specify a duration larger than 2^32 seconds"
                yield invalid_value(f"{path}.expirationSeconds", seconds, text)
            yield from checks.present(given.get("path"), f"{path}.path")
        case _:
            yield from checks.present(given.get("path") or given.get("keyPath"), f"{path}.path")
