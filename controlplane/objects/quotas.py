"""
What an object costs in a namespace's ResourceQuotas, and which quotas count it.

Admission asks before a write, the quota controller for everything that is
there; both must count alike. Pure functions. Source: the API documentation of
ResourceQuota ("Resource Quotas", concepts).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.objects import meta, quantity
from controlplane.objects.pod_totals import Amounts, container_amounts, pod_total

Object = Mapping[str, Any]
Used = dict[str, str]  # resource name of a quota → quantity

_REQUESTS, _LIMITS = "requests.", "limits."
_HUGE = "hugepages-"
_NATIVE = ("cpu", "memory", "ephemeral-storage")
_POD_NAMES = frozenset(
    {"pods", *_NATIVE, *(f"{part}{name}" for part in (_REQUESTS, _LIMITS) for name in _NATIVE)}
)
_DEMANDED = ("cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory")
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_CLAIM_NAMES = ("persistentvolumeclaims", "requests.storage")
_SERVICE_NAMES = frozenset({"services", "services.loadbalancers", "services.nodeports"})
# Counted under their own name besides count/<name>, since before that form existed.
_ALIASES = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
UNCOUNTED = frozenset({"bindings", "componentstatuses", "events", "events.events.k8s.io"})


def counted(group_resource: str, names: Iterable[str]) -> list[str]:
    """Those names of a quota's ``hard`` that objects of this kind count towards."""
    return [name for name in names if _counts(group_resource, name)]


def _counts(group_resource: str, name: str) -> bool:
    if name == f"count/{group_resource}":
        return True
    match group_resource:
        case "pods":
            return name in _POD_NAMES or _is_huge(name) or _is_extended(name)
        case "services":
            return name in _SERVICE_NAMES
        case "persistentvolumeclaims":
            return name in _CLAIM_NAMES or any(
                name.endswith(f"{_CLASS_SUFFIX}{kind}") for kind in _CLAIM_NAMES
            )
        case _:
            return group_resource in _ALIASES and name == group_resource


def _is_huge(name: str) -> bool:
    return name.startswith((_HUGE, f"{_REQUESTS}{_HUGE}"))


def _is_extended(name: str) -> bool:
    """``requests.example.com/gpu``"""
    domain, found, _ = name.removeprefix(_REQUESTS).partition("/")
    return name.startswith(_REQUESTS) and bool(found) and "kubernetes.io" not in domain


def kinds_of(names: Iterable[str]) -> frozenset[str]:
    """Which kinds (``pods``, ``deployments.apps``) a quota with these names has to look at."""
    found: set[str] = set()
    for name in names:
        if name.startswith("count/"):
            found.add(name.removeprefix("count/"))
            continue
        fixed = ("pods", "services", "persistentvolumeclaims", *_ALIASES)
        found.update(kind for kind in fixed if _counts(kind, name))
    return frozenset(found)


def usage(group_resource: str, obj: Object, now: datetime) -> Used:
    """What one object costs."""
    count = f"count/{group_resource}"
    match group_resource:
        case "pods":
            return {count: "1"} | (_pod_usage(obj) if _is_alive(obj, now) else {})
        case "services":
            return {count: "1"} | _service_usage(obj.get("spec") or {})
        case "persistentvolumeclaims":
            return {count: "1"} | _claim_usage(obj)
        case _ if group_resource in _ALIASES:
            return {count: "1", group_resource: "1"}
        case _:
            return {count: "1"}


def _is_alive(pod: Object, now: datetime) -> bool:
    """A pod that should have been gone by now, on a dead node, costs nothing any more."""
    if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return False
    metadata = meta.metadata(pod)
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not deleted or grace is None:
        return True
    return now <= meta.parse_time(deleted) + timedelta(seconds=grace)


def _pod_usage(pod: Object) -> Used:
    spec = pod.get("spec") or {}
    requests, limits = pod_total(spec, "requests"), pod_total(spec, "limits")
    for name, value in (spec.get("overhead") or {}).items():
        requests[name] = quantity.add(requests.get(name, "0"), value)
        if name in limits:
            limits[name] = quantity.add(limits[name], value)
    used = {"pods": "1"}
    for name, value in requests.items():
        if name in _NATIVE or name.startswith(_HUGE):
            used[name] = value
        used[f"{_REQUESTS}{name}"] = value
    used |= {f"{_LIMITS}{name}": value for name, value in limits.items() if name in _NATIVE}
    return used


def _service_usage(spec: Object) -> Used:
    ports = spec.get("ports") or ()
    kind = spec.get("type")
    node_ports = len(ports) if kind in {"NodePort", "LoadBalancer"} else 0
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        node_ports = sum(1 for port in ports if port.get("nodePort"))
    return {
        "services": "1",
        "services.loadbalancers": "1" if kind == "LoadBalancer" else "0",
        "services.nodeports": str(node_ports),
    }


def _claim_usage(claim: Object) -> Used:
    spec = claim.get("spec") or {}
    used = {"persistentvolumeclaims": "1"}
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is not None:
        allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
        if allocated is not None and quantity.compare(allocated, size) > 0:
            size = allocated
        used["requests.storage"] = size
    annotated = meta.annotations(claim).get("volume.beta.kubernetes.io/storage-class")
    name = annotated or spec.get("storageClassName") or ""
    if name:
        used |= {f"{name}{_CLASS_SUFFIX}{kind}": value for kind, value in used.items()}
    return used


def missing(names: Iterable[str], pod: Object) -> str:
    """
    What a pod must say when a quota limits cpu or memory, as an error text; "": nothing.

    Upstream regrets this rule and applies it to these names only.
    """
    spec = pod.get("spec") or {}
    if spec.get("resources"):
        return ""
    wanted = [name for name in _DEMANDED if name in set(names)]
    silent: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        requests, limits = container_amounts(container)
        said = {
            *requests,
            *(f"{_REQUESTS}{n}" for n in requests),
            *(f"{_LIMITS}{n}" for n in limits),
        }
        for name in wanted:
            if name not in said:
                silent.setdefault(name, set()).add(container.get("name", ""))
    parts = [f"{name} for: {','.join(sorted(silent[name]))}" for name in sorted(silent)]
    return f"must specify {'; '.join(parts)}" if parts else ""


# --- scopes ---


def in_scope(quota: Object, group_resource: str, obj: Object) -> bool:
    """Whether all scopes of a quota hold for an object; only pods have scopes here."""
    return all(
        group_resource == "pods" and _holds(scope, obj)
        for scope in _scopes(quota.get("spec") or {})
    )


def _scopes(spec: Object) -> Iterator[Mapping[str, Any]]:
    for name in spec.get("scopes") or ():
        yield {"scopeName": name, "operator": "Exists"}
    yield from (spec.get("scopeSelector") or {}).get("matchExpressions") or ()


def _holds(scope: Mapping[str, Any], pod: Object) -> bool:
    spec = pod.get("spec") or {}
    match scope["scopeName"]:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _is_best_effort(spec)
        case "NotBestEffort":
            return not _is_best_effort(spec)
        case "PriorityClass":
            return _has_class(scope, spec.get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return _looks_elsewhere(spec.get("affinity") or {})
        case _:
            return False


def _has_class(scope: Mapping[str, Any], name: str) -> bool:
    values = scope.get("values") or ()
    match scope.get("operator"):
        case "In":
            return name != "" and name in values
        case "NotIn":
            return name not in values
        case "DoesNotExist":
            return name == ""
        case _:
            return name != ""


def _is_best_effort(spec: Object) -> bool:
    holders = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return not any(_asks(holder) for holder in holders)


def _asks(holder: Object) -> bool:
    resources = holder.get("resources") or {}
    return any(
        name in {"cpu", "memory"} and quantity.nanos(value) > 0
        for part in ("requests", "limits")
        for name, value in (resources.get(part) or {}).items()
    )


def _looks_elsewhere(affinity: Object) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        required = rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms = [*required, *(weighted.get("podAffinityTerm") or {} for weighted in preferred)]
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms):
            return True
    return False


# --- sums ---


def total(quota: Object, group_resource: str, objects: Sequence[Object], now: datetime) -> Used:
    """What objects of one kind cost a quota together, for those of its names that count them."""
    hard = ((quota.get("spec") or {}).get("hard")) or {}
    sums = dict.fromkeys(counted(group_resource, hard), "0")
    for obj in objects:
        if in_scope(quota, group_resource, obj):
            sums = plus(sums, usage(group_resource, obj, now))
    return sums


def plus(used: Amounts, more: Amounts) -> Used:
    """``more`` added, for the names of ``used`` only."""
    return {
        name: quantity.add(value, more[name]) if name in more else str(value)
        for name, value in used.items()
    }
