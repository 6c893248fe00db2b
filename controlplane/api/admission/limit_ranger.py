"""
LimitRanger: a namespace's default requests and limits, and the bounds around them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controlplane.api.admission.plugin import Plugin, refused, spec_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects import quantity
from controlplane.objects.pod_totals import Amounts, container_amounts, pod_total
from controlplane.objects.resources import LIMIT_RANGES

_ANNOTATION = "kubernetes.io/limit-ranger"
_CLAIM = "PersistentVolumeClaim"


class LimitRanger(Plugin):
    name = "LimitRanger"

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = request.object
        if request.kind.group_resource != "pods" or not _is_checked(request) or pod is None:
            return
        for limit_range in request.reads.list(LIMIT_RANGES, request.namespace):
            notes = list(_fill(pod, limit_range.get("spec") or {}))
            if notes:
                annotations = pod.setdefault("metadata", {}).get("annotations") or {}
                note = "LimitRanger plugin set: " + "; ".join(notes)
                pod["metadata"]["annotations"] = {**annotations, _ANNOTATION: note}

    async def validate(self, request: AdmissionRequest) -> None:
        if not _is_checked(request) or request.object is None:
            return
        for limit_range in request.reads.list(LIMIT_RANGES, request.namespace):
            errors = list(dict.fromkeys(_violations(request, limit_range.get("spec") or {})))
            if errors:
                text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
                raise refused(request, text)


def _is_checked(request: AdmissionRequest) -> bool:
    group_resource, operation = request.kind.group_resource, request.operation
    if request.subresource:
        resized = request.subresource == "resize" and operation is Operation.UPDATE
        return group_resource == "pods" and resized
    if group_resource == "pods":
        return operation is Operation.CREATE
    return group_resource == "persistentvolumeclaims" and operation in {
        Operation.CREATE,
        Operation.UPDATE,
    }


def _items(spec: Amounts, kind: str) -> Iterator[Mapping[str, Any]]:
    return (item for item in spec.get("limits") or () if item.get("type") == kind)


def _fill(pod: dict[str, Any], spec: Amounts) -> Iterator[str]:
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for item in _items(spec, "Container"):
        requests |= item.get("defaultRequest") or {}
        limits |= item.get("default") or {}
    kinds = (("containers", "container"), ("initContainers", "init container"))
    for field, title in kinds:
        for container in spec_of(pod).get(field) or ():
            for part, amounts, word in (
                ("requests", requests, "request"),
                ("limits", limits, "limit"),
            ):
                missing = _add_missing(container, part, amounts)
                if missing:
                    yield f"{', '.join(missing)} {word} for {title} {container.get('name', '')}"


def _add_missing(container: dict[str, Any], part: str, amounts: Amounts) -> list[str]:
    resources = dict(container.get("resources") or {})
    present = resources.get(part) or {}
    limits = resources.get("limits") or {}
    # Requests follow limits that the author gave, before any default of the namespace.
    taken = {**limits, **present} if part == "requests" else present
    missing = sorted(name for name in amounts if name not in taken)
    if missing:
        resources[part] = {**taken, **{name: amounts[name] for name in missing}}
        container["resources"] = resources
    return missing


def _violations(request: AdmissionRequest, spec: Amounts) -> Iterator[str]:
    obj = request.object or {}
    body = obj.get("spec") or {}
    if request.kind.group_resource != "pods":
        requests = (body.get("resources") or {}).get("requests") or {}
        for item in _items(spec, _CLAIM):
            yield from _each(item, "min", lambda n, v: _minimum(_CLAIM, n, v, (requests, {})))
            yield from _each(item, "max", lambda n, v: _claim_maximum(n, v, requests))
        return
    for item in _items(spec, "Container"):
        for container in (*(body.get("containers") or ()), *(body.get("initContainers") or ())):
            yield from _bounds("Container", item, container_amounts(container))
    for item in _items(spec, "Pod"):
        yield from _bounds("Pod", item, (pod_total(body, "requests"), pod_total(body, "limits")))


def _bounds(kind: str, item: Amounts, amounts: tuple[Amounts, Amounts]) -> Iterator[str]:
    yield from _each(item, "min", lambda n, v: _minimum(kind, n, v, amounts))
    yield from _each(item, "max", lambda n, v: _maximum(kind, n, v, amounts))
    yield from _each(item, "maxLimitRequestRatio", lambda n, v: _ratio(kind, n, v, amounts))


def _each(item: Amounts, part: str, check: Callable[[str, Any], str]) -> Iterator[str]:
    for name, value in (item.get(part) or {}).items():
        error = check(name, value)
        if error:
            yield error


def _minimum(kind: str, name: str, bound: Any, amounts: tuple[Amounts, Amounts]) -> str:
    requests, limits = amounts
    text = f"minimum {name} usage per {kind} is {_show(bound)}"
    if name not in requests:
        return f"{text}.  No request is specified"
    if quantity.compare(requests[name], bound) < 0:
        return f"{text}, but request is {_show(requests[name])}"
    if name in limits and quantity.compare(limits[name], bound) < 0:
        return f"{text}, but limit is {_show(limits[name])}"
    return ""


def _maximum(kind: str, name: str, bound: Any, amounts: tuple[Amounts, Amounts]) -> str:
    requests, limits = amounts
    text = f"maximum {name} usage per {kind} is {_show(bound)}"
    if name not in limits:
        return f"{text}.  No limit is specified"
    if quantity.compare(limits[name], bound) > 0:
        return f"{text}, but limit is {_show(limits[name])}"
    if name in requests and quantity.compare(requests[name], bound) > 0:
        return f"{text}, but request is {_show(requests[name])}"
    return ""


def _claim_maximum(name: str, bound: Any, requests: Amounts) -> str:
    text = f"maximum {name} usage per {_CLAIM} is {_show(bound)}"
    if name not in requests:
        return f"{text}.  No request is specified"
    if quantity.compare(requests[name], bound) > 0:
        return f"{text}, but request is {_show(requests[name])}"
    return ""


def _ratio(kind: str, name: str, bound: Any, amounts: tuple[Amounts, Amounts]) -> str:
    requests, limits = amounts
    text = f"{name} max limit to request ratio per {kind} is {_show(bound)}"
    request, limit = (quantity.nanos(part.get(name, "0")) for part in (requests, limits))
    if not request:
        return f"{text}, but no request is specified or request is 0"
    if not limit:
        return f"{text}, but no limit is specified or limit is 0"
    if limit * 1_000_000_000 > request * quantity.nanos(bound):
        return f"{text}, but provided ratio is {limit / request:f}"
    return ""


def _show(amount: Any) -> str:
    return quantity.canonical(amount)
