"""
Requests and limits as cgroup values: shares, quota, memory, OOM score, QoS class and parents.

All pure. The layout of the cgroups is kubelet's (``kubepods/burstable/pod<uid>``), because
monitoring agents parse it. Source: the Kubernetes documentation on QoS classes, and KEP-2570
for what cgroup v2 adds.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import quantity
from node.cri.base import Resources
from node.kubelet.base import Settings, is_sidecar, uid_of

_PERIOD = 100_000  # µs
_MIN_QUOTA = 1_000  # µs; the kernel takes no less
_MIN_SHARES, _MAX_SHARES = 2, 262_144
_GUARANTEED_OOM, _BEST_EFFORT_OOM = -997, 1000
_NODE_CRITICAL = 2_000_001_000


def amount(container: Mapping[str, Any], kind: str, resource: str) -> int:
    """Bytes, or millicores for cpu; ``kind`` is requests or limits; 0 where not said."""
    text = (container.get("resources") or {}).get(kind, {}).get(resource)
    if text is None:
        return 0
    return quantity.milli(text) if resource == "cpu" else quantity.value(text)


def request(container: Mapping[str, Any], resource: str) -> int:
    requests = (container.get("resources") or {}).get("requests", {})
    kind = "requests" if resource in requests else "limits"
    return amount(container, kind, resource)


def qos_class(pod: Object) -> str:
    """As the API server computed it; computed here only where it has not."""
    known = pod.get("status", {}).get("qosClass")
    if known:
        return str(known)
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    said = [
        amount(c, kind, resource)
        for c in containers
        for kind in ("requests", "limits")
        for resource in ("cpu", "memory")
    ]
    if not any(said):
        return "BestEffort"
    guaranteed = all(
        amount(c, "limits", resource) and request(c, resource) == amount(c, "limits", resource)
        for c in containers
        for resource in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def shares(milli_cpu: int) -> int:
    return min(_MAX_SHARES, max(_MIN_SHARES, milli_cpu * 1024 // 1000))


def quota(milli_cpu: int) -> int:
    return max(_MIN_QUOTA, milli_cpu * _PERIOD // 1000) if milli_cpu else 0


def oom_score_adj(pod: Object, container: Mapping[str, Any], memory: int) -> int:
    if pod["spec"].get("priority", 0) >= _NODE_CRITICAL:
        return _GUARANTEED_OOM
    qos = qos_class(pod)
    if qos != "Burstable":
        return _GUARANTEED_OOM if qos == "Guaranteed" else _BEST_EFFORT_OOM
    score = _score(request(container, "memory"), memory)
    if is_sidecar(container):
        # A sidecar must not be killed before the containers that it serves.
        asked = [request(c, "memory") for c in pod["spec"]["containers"]]
        score = min(score, _score(min(asked), memory))
    floor = 1000 + _GUARANTEED_OOM
    return min(_BEST_EFFORT_OOM - 1, max(floor, score))


def _score(asked: int, memory: int) -> int:
    return 1000 - 1000 * asked // max(memory, 1)


def hugepages(limits: Mapping[str, str]) -> dict[str, int]:
    """``hugepages-2Mi`` of the API is ``2MB`` for the kernel."""
    out = {}
    for name, text in limits.items():
        if name.startswith("hugepages-"):
            size = name.removeprefix("hugepages-").removesuffix("i")
            out[f"{size}B"] = quantity.value(text)
    return out


def of_container(pod: Object, container: Mapping[str, Any], settings: Settings) -> Resources:
    cpu_limit = amount(container, "limits", "cpu")
    limits = (container.get("resources") or {}).get("limits", {})
    return Resources(
        cpu_period=_PERIOD,
        cpu_quota=quota(cpu_limit),
        cpu_shares=shares(request(container, "cpu")),
        memory_limit=amount(container, "limits", "memory"),
        oom_score_adj=oom_score_adj(pod, container, settings.memory),
        hugepages=hugepages(limits),
        # One process too many should end the container, not leave half of it.
        unified={"memory.oom.group": "1"} if settings.cgroup_v2 else {},
    )


def _overhead(pod: Object) -> Mapping[str, Any]:
    """Of its runtime class, in the form of a container (KEP-688)."""
    said = pod["spec"].get("overhead") or {}
    return {"resources": {"requests": said, "limits": said}}


def of_sandbox(pod: Object) -> tuple[Resources, Resources | None]:
    """What a runtime that makes a machine for the pod has to give it, and keep for itself."""
    bare = {**pod, "spec": {key: v for key, v in pod["spec"].items() if key != "overhead"}}
    if not pod["spec"].get("overhead"):
        return of_pod(bare), None
    over = _overhead(pod)
    cpu = amount(over, "limits", "cpu")
    return of_pod(bare), Resources(
        cpu_period=_PERIOD,
        cpu_quota=quota(cpu),
        cpu_shares=shares(cpu),
        memory_limit=amount(over, "limits", "memory"),
    )


def of_pod(pod: Object) -> Resources:
    """The pod's own cgroup: requests add up; limits count only if every container has one."""
    overhead = _overhead(pod)
    return Resources(
        cpu_period=_PERIOD,
        cpu_shares=shares(_effective(pod, "requests", "cpu") + amount(overhead, "requests", "cpu")),
        cpu_quota=quota(_limit(pod, overhead, "cpu")),
        memory_limit=_limit(pod, overhead, "memory"),
    )


def _limit(pod: Object, overhead: Mapping[str, Any], resource: str) -> int:
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    own = amount(pod["spec"], "limits", resource)
    if own:
        return own + amount(overhead, "limits", resource)
    if not all(amount(c, "limits", resource) for c in containers):
        return 0
    return _effective(pod, "limits", resource) + amount(overhead, "limits", resource)


def _effective(pod: Object, kind: str, resource: str) -> int:
    """max(all that run together at the end, what each init container needs at its time)."""
    if own := amount(pod["spec"], kind, resource):
        return own
    get = request if kind == "requests" else _limits
    sidecars, peak = 0, 0
    for container in pod["spec"].get("initContainers", ()):
        if is_sidecar(container):
            sidecars += get(container, resource)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + get(container, resource))
    return max(peak, sidecars + sum(get(c, resource) for c in pod["spec"]["containers"]))


def _limits(container: Mapping[str, Any], resource: str) -> int:
    return amount(container, "limits", resource)


def pod_requests(pods: Iterable[Object], resource: str) -> int:
    return sum(_effective(pod, "requests", resource) for pod in pods)


def cgroup_parent(pod: Object, settings: Settings) -> str:
    """What containerd is told: a path for cgroupfs, the name of a slice for systemd."""
    qos, uid = qos_class(pod), uid_of(pod)
    if settings.cgroup_driver == "systemd":
        parts = ["kubepods", *([qos.lower()] if qos != "Guaranteed" else [])]
        # A dash in a slice's name is a step in the tree, so those of the uid go.
        return "-".join([*parts, "pod" + uid.replace("-", "_")]) + ".slice"
    return "/".join([qos_cgroup(qos, settings), "pod" + uid])


def qos_cgroup(qos: str, settings: Settings) -> str:
    """Of the cgroupfs driver: ``/kubepods/besteffort``; ``/kubepods`` for Guaranteed."""
    top = f"{settings.cgroup_root}/kubepods"
    return top if qos == "Guaranteed" else f"{top}/{qos.lower()}"
