"""
Where a pod may run and what may push it away: tolerations, priority, runtime class.
"""

from typing import Any

from controlplane.api.admission.plugin import Plugin, created, old_spec, refused, spec_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.client.base import Object, Reads
from controlplane.objects import meta, quantity
from controlplane.objects.kinds import Resource

PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", False)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", False)

_TOLERATION_SECONDS = 300
_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"
_NO_EXECUTE = "NoExecute"


class DefaultTolerationSeconds(Plugin):
    """A pod stays five minutes on a node that fell silent, unless it says otherwise."""

    name = "DefaultTolerationSeconds"

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != "pods" or request.subresource or request.object is None:
            return
        if request.operation not in {Operation.CREATE, Operation.UPDATE}:
            return
        spec = spec_of(request.object)
        tolerations = spec.get("tolerations") or []
        missing = [k for k in (_NOT_READY, _UNREACHABLE) if not _tolerates(tolerations, k)]
        if missing:
            spec["tolerations"] = [*tolerations, *map(_five_minutes, missing)]


def _tolerates(tolerations: list[dict[str, Any]], key: str) -> bool:
    return any(
        t.get("key") in {None, "", key} and t.get("effect") in {None, "", _NO_EXECUTE}
        for t in tolerations
    )


def _five_minutes(key: str) -> dict[str, Any]:
    return {
        "key": key,
        "operator": "Exists",
        "effect": _NO_EXECUTE,
        "tolerationSeconds": _TOLERATION_SECONDS,
    }


class Priority(Plugin):
    """The number behind a priority class, written into the pod; one default class at most."""

    name = "Priority"

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != "pods" or request.subresource or request.object is None:
            return
        spec = spec_of(request.object)
        if request.operation is Operation.UPDATE:
            old = old_spec(request)
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and old.get(field) is not None:
                    spec[field] = old[field]
        elif request.operation is Operation.CREATE:
            _set_priority(request, spec)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != "priorityclasses.scheduling.k8s.io":
            return
        obj = request.object
        if request.subresource or obj is None or not obj.get("globalDefault"):
            return
        default = _default_class(request.reads)
        if default is not None and meta.name(default) != meta.name(obj):
            raise refused(
                request,
                f"PriorityClass {meta.name(default)} is already marked as default. Only one "
                "default can exist",
            )


def _set_priority(request: AdmissionRequest, spec: dict[str, Any]) -> None:
    name = spec.get("priorityClassName") or ""
    found: Object | None
    if name:
        found = request.reads.get(PRIORITY_CLASSES, "", name)
        if found is None:
            raise refused(request, f"no PriorityClass with name {name} was found")
    else:
        found = _default_class(request.reads)
        if found is not None:
            spec["priorityClassName"] = meta.name(found)
    value = int(found.get("value") or 0) if found is not None else 0
    policy = str((found or {}).get("preemptionPolicy") or "PreemptLowerPriority")
    if spec.get("priority") not in {None, value}:
        raise refused(
            request,
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
            f"priority admission controller computed {value} from the given PriorityClass name",
        )
    if spec.get("preemptionPolicy") not in {None, "", policy}:
        raise refused(
            request,
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be "
            f"provided in pod spec; priority admission controller computed {policy} from the "
            "given PriorityClass name",
        )
    spec["priority"] = value
    spec["preemptionPolicy"] = policy


def _default_class(reads: Reads) -> Object | None:
    # More than one by a race: the lowest, so that nothing gains by it.
    defaults = [c for c in reads.list(PRIORITY_CLASSES) if c.get("globalDefault")]
    return min(defaults, key=lambda c: int(c.get("value") or 0), default=None)


class RuntimeClass(Plugin):
    """Overhead, node selector and tolerations that come with a runtime class; KEP-688."""

    name = "RuntimeClass"

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = created(request, "pods")
        runtime = _runtime_class(request) if pod is not None else None
        if pod is None or runtime is None:
            return
        spec = spec_of(pod)
        fixed = (runtime.get("overhead") or {}).get("podFixed")
        if fixed:
            if spec.get("overhead") and not _same_amounts(spec["overhead"], fixed):
                raise refused(request, _OTHER_OVERHEAD)
            spec["overhead"] = dict(fixed)
        scheduling = runtime.get("scheduling") or {}
        _merge_selector(request, spec, scheduling.get("nodeSelector") or {})
        tolerations = spec.get("tolerations") or []
        extra = [t for t in scheduling.get("tolerations") or () if t not in tolerations]
        if extra:
            spec["tolerations"] = [*tolerations, *extra]

    async def validate(self, request: AdmissionRequest) -> None:
        pod = created(request, "pods")
        if pod is None:
            return
        runtime = _runtime_class(request)
        fixed = ((runtime or {}).get("overhead") or {}).get("podFixed")
        overhead = spec_of(pod).get("overhead")
        if fixed and not _same_amounts(overhead or {}, fixed):
            raise refused(request, _OTHER_OVERHEAD)
        if overhead and not fixed:
            raise refused(
                request,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined "
                "Overhead",
            )


_OTHER_OVERHEAD = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


def _runtime_class(request: AdmissionRequest) -> Object | None:
    name = ((request.object or {}).get("spec") or {}).get("runtimeClassName")
    if not name:
        return None
    found = request.reads.get(RUNTIME_CLASSES, "", name)
    if found is None:
        raise refused(request, f'pod rejected: RuntimeClass "{name}" not found')
    return found


def _merge_selector(
    request: AdmissionRequest, spec: dict[str, Any], wanted: dict[str, str]
) -> None:
    selector = dict(spec.get("nodeSelector") or {})
    for key, value in wanted.items():
        mine = selector.setdefault(key, value)
        if mine != value:
            raise refused(
                request,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {mine}",
            )
    if wanted:
        spec["nodeSelector"] = selector


def _same_amounts(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(quantity.compare(a[key], b[key]) == 0 for key in a)
