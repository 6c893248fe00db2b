"""
The helper pods that make and remove volumes where nobody may touch the node itself. Pure.

As local-path-provisioner makes them: name, script or command, arguments and environment. A label
and annotations of ours tell, after a crash, what a pod was for.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Any

from operators.localpath import paths
from operators.localpath.base import Object, Order, Place, Refused, StorageError, Unfinished
from operators.localpath.paths import Configuration

VOLUME = "localpath.pinnace.dev/volume"
ACTION = "localpath.pinnace.dev/action"
CLAIM = "localpath.pinnace.dev/claim"
CLAIM_UID = "localpath.pinnace.dev/claim-uid"
PLACE = "localpath.pinnace.dev/path"
_LONGEST_NAME = 128
_DISK_PRESSURE = {
    "key": "node.kubernetes.io/disk-pressure",
    "operator": "Exists",
    "effect": "NoSchedule",
}
Body = Mapping[str, Any]


def create(order: Order, configuration: Configuration, namespace: str) -> Object:
    """Raises :class:`Refused` for what helper pods cannot do."""
    if order.source:
        raise Refused("helper pods cannot make a volume of a snapshot or of another volume")
    if order.enforce in {"quota", "image"}:
        raise Refused(f"enforce {order.enforce!r} is not possible with helper pods")
    environment = {
        "VOL_SIZE_BYTES": str(order.size),
        "VOL_USER": order.user,
        "VOL_GROUP": order.group,
        "VOL_PERM": order.mode,
    }
    body = _pod(
        "create",
        order.name,
        configuration,
        node=order.node,
        path=PurePosixPath(order.base / order.folder),
        environment=environment,
    )
    body["metadata"]["namespace"] = namespace
    body["metadata"]["annotations"] |= {CLAIM: order.claim, CLAIM_UID: order.uid}
    return body


def delete(place: Place, configuration: Configuration, namespace: str) -> Object:
    environment = {
        "VOL_SIZE_BYTES": str(place.size),
        "VOL_USER": "",
        "VOL_GROUP": "",
        "VOL_PERM": "",
    }
    body = _pod(
        "delete",
        place.name,
        configuration,
        node=place.node,
        path=PurePosixPath(place.path),
        environment=environment,
    )
    body["metadata"]["namespace"] = namespace
    return body


def _pod(
    action: str,
    volume: str,
    configuration: Configuration,
    *,
    node: str,
    path: PurePosixPath,
    environment: Mapping[str, str],
) -> Object:
    if configuration.helper_pod is None:
        raise Refused(f"ConfigMap {paths.NAME} has no helperPod.yaml")
    if path.parent == PurePosixPath("/"):
        raise Refused(f"invalid path {path}: cannot find parent dir or volume dir")
    body = deepcopy(configuration.helper_pod)
    metadata, spec = body.setdefault("metadata", {}), body["spec"]
    name = f"{metadata.get('name', 'helper-pod')}-{action}-{volume}"[:_LONGEST_NAME]
    body |= {"apiVersion": "v1", "kind": "Pod"}
    metadata["name"] = name.rstrip("-.")
    metadata["labels"] = (metadata.get("labels") or {}) | {VOLUME: volume[:63], ACTION: action}
    metadata["annotations"] = (metadata.get("annotations") or {}) | {
        VOLUME: volume,
        PLACE: str(path),
    }
    if node:
        spec["nodeName"] = node
    spec["restartPolicy"] = "Never"
    spec.setdefault("tolerations", [_DISK_PRESSURE])
    spec["volumes"] = _volumes(configuration, str(path.parent))
    _fill(spec["containers"][0], action, configuration, path=path, environment=environment)
    return body


def _volumes(configuration: Configuration, parent: str) -> list[Object]:
    data = {"name": "data", "hostPath": {"path": parent, "type": "DirectoryOrCreate"}}
    scripts = [
        {"key": name, "path": name}
        for name, command in _commands(configuration).items()
        if not command
    ]
    if not scripts:
        return [data]
    return [data, {"name": "script", "configMap": {"name": paths.NAME, "items": scripts}}]


def _commands(configuration: Configuration) -> dict[str, str]:
    return {"setup": configuration.setup_command, "teardown": configuration.teardown_command}


def _fill(
    container: Object,
    action: str,
    configuration: Configuration,
    *,
    path: PurePosixPath,
    environment: Mapping[str, str],
) -> None:
    script = "setup" if action == "create" else "teardown"
    command = _commands(configuration)[script]
    mounts = [{"name": "data", "mountPath": str(path.parent)}]
    if not all(_commands(configuration).values()):
        mounts.append({"name": "script", "mountPath": "/script"})
    told = {"VOL_DIR": str(path), "VOL_MODE": "Filesystem", **environment}
    container["command"] = [command] if command else ["/bin/sh", f"/script/{script}"]
    container["args"] = [
        *("-p", str(path), "-s", environment["VOL_SIZE_BYTES"]),
        *("-m", "Filesystem", "-a", action),
    ]
    container["volumeMounts"] = mounts
    container["env"] = [
        *(container.get("env") or ()),
        *({"name": name, "value": value} for name, value in told.items()),
    ]


def begun(pods: Sequence[Body]) -> list[Unfinished]:
    """The volumes that pods have made, or are making, and that nobody has taken yet."""
    found = []
    for pod in pods:
        notes = pod["metadata"].get("annotations") or {}
        labels = pod["metadata"].get("labels") or {}
        if labels.get(ACTION) == "create" and CLAIM in notes:
            found.append(
                Unfinished(name=notes[VOLUME], claim=notes[CLAIM], uid=notes.get(CLAIM_UID, ""))
            )
    return found


def outcome(pod: Body, action: str) -> bool:
    """False: not yet. Raises :class:`StorageError` where it failed."""
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed":
        raise StorageError(f"helper pod {pod['metadata']['name']} failed to {action} the volume")
    return bool(phase == "Succeeded")
