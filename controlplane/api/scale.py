"""
The scale subresource: how many replicas, whatever the kind.

Workloads have the number at one place, custom resources say where theirs is. A
Scale is read from the object and written back to it; it is never stored.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from controlplane.api import pipeline
from controlplane.api.call import Answer, Call, Parts
from controlplane.api.patching import check_options
from controlplane.api.present import entry_object
from controlplane.api.strategy import prepare_update
from controlplane.api.write import Change, change, check_preconditions
from controlplane.client.base import Object, PatchType
from controlplane.objects import patch, selectors, walk
from controlplane.objects.errors import bad_request, invalid, invalid_value, not_found
from controlplane.objects.facts import schema_by_name
from controlplane.objects.kinds import Kind

_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_WORKLOAD = (".spec.replicas", ".status.replicas", "")


def scale_of(kind: Kind, obj: Object) -> dict[str, Any]:
    """The Scale (autoscaling/v1) of an object."""
    wanted, found, selector = kind.scale_paths or _WORKLOAD
    metadata = obj["metadata"]
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: dict[str, Any] = {"replicas": _number_at(obj, found)}
    text = _selector(kind, obj, selector)
    if text:
        status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in shown if name in metadata},
        "spec": {"replicas": _number_at(obj, wanted)},
        "status": status,
    }


def _selector(kind: Kind, obj: Object, path: str) -> str:
    if kind.scale_paths is not None:
        return str(_at(obj, path) or "") if path else ""
    selector = (obj.get("spec") or {}).get("selector")
    if kind.kind == "ReplicationController":
        selector = {"matchLabels": selector or {}}
    text = selectors.to_text(selector)
    return "" if text in ("<none>", "<error>") else text


def _number_at(obj: Object, path: str) -> int:
    """0 where a custom resource has something else there."""
    value = _at(obj, path)
    return value if type(value) is int and abs(value) < 2**31 else 0


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for step in path.lstrip(".").split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def _set(obj: dict[str, Any], path: str, value: int) -> None:
    *steps, last = path.lstrip(".").split(".")
    for step in steps:
        obj = obj.setdefault(step, {})
        if not isinstance(obj, dict):
            raise bad_request(f"{path} is not within an object")
    obj[last] = value


async def get_scale(parts: Parts, call: Call) -> bytes:
    entry = parts.cache.entry(call.key)
    if entry is None:
        raise not_found(call.kind.group_resource, call.name)
    return orjson.dumps(scale_of(call.kind, await entry_object(parts, call.kind, entry)))


async def update_scale(parts: Parts, call: Call, body: Mapping[str, Any]) -> Answer:
    """Replace the number of replicas; 409 where the Scale names another resourceVersion."""
    checked = _checked(call, body)
    return await _write(parts, call, lambda _scale: checked)


async def patch_scale(parts: Parts, call: Call, type_: PatchType, body: Any) -> Answer:
    """A Scale has no lists, so that a strategic merge patch of it is a merge patch."""
    check_options(call, type_)

    def changed(scale: dict[str, Any]) -> dict[str, Any]:
        if type_ is PatchType.JSON:
            result: dict[str, Any] = patch.json_patch(scale, body)
        else:
            result = patch.merge_patch(scale, body)
        return _checked(call, result)

    return await _write(parts, call, changed)


def _checked(call: Call, scale: Any) -> dict[str, Any]:
    """A Scale that somebody sent or patched, decoded; 400, 422."""
    if not isinstance(scale, Mapping):
        raise bad_request("the patch does not leave an object")
    kind, version = scale.get("kind", "Scale"), scale.get("apiVersion", "autoscaling/v1")
    if kind != "Scale" or not str(version).startswith("autoscaling/"):
        raise bad_request(f"expected a Scale of autoscaling/v1, got {kind} of {version}")
    decoded, _ = walk.decode(scale, schema_by_name(_SCALE), strict=False)
    name = decoded["metadata"].get("name", call.name)
    if name != call.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.name})"
        )
    replicas = decoded["spec"].get("replicas", 0)
    if replicas < 0:
        why = "must be greater than or equal to 0"
        raise invalid(
            "Scale.autoscaling", call.name, [invalid_value("spec.replicas", replicas, why)]
        )
    return decoded


async def _write(
    parts: Parts, call: Call, changed: Callable[[dict[str, Any]], dict[str, Any]]
) -> Answer:
    path = (call.kind.scale_paths or _WORKLOAD)[0]

    async def make(old: Object) -> dict[str, Any]:
        scale = changed(scale_of(call.kind, old))
        metadata = scale["metadata"]
        check_preconditions(call, old, metadata.get("uid"), metadata.get("resourceVersion"))
        new: dict[str, Any] = pipeline.copy(old)
        _set(new, path, scale["spec"].get("replicas", 0))
        return new

    answer = await change(parts, call, Change(make=make, prepare=prepare_update))
    return Answer(orjson.dumps(scale_of(call.kind, orjson.loads(answer.data))))
