"""
What a pod asks of a node, as numbers.

CPU counts in thousandths of a core, everything else in whole units (bytes, pieces).
Init containers run one after the other and before the others, so the larger of the two needs
counts; sidecars (restartable init containers) run on beside both.
Source: the API concept "Resource Management for Pods", KEP-753 (sidecars),
KEP-2837 (resources of pods), KEP-1287 (resize in place).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import quantity

Amounts = Mapping[str, int]

# What a container without a request counts as when nodes are compared, not when they are filled.
SCORED_CPU = 100  # thousandths
SCORED_MEMORY = 200 << 20  # bytes

_POD_LEVEL = ("cpu", "memory")


def amounts(listed: Mapping[str, Any] | None) -> dict[str, int]:
    """A ResourceList as numbers."""
    return {
        name: quantity.milli(text) if name == "cpu" else quantity.value(text)
        for name, text in (listed or {}).items()
    }


def add(into: dict[str, int], more: Amounts) -> None:
    for name, count in more.items():
        into[name] = into.get(name, 0) + count


def subtract(into: dict[str, int], less: Amounts) -> None:
    for name, count in less.items():
        left = into.get(name, 0) - count
        if left:
            into[name] = left
        else:
            into.pop(name, None)


def _raise(into: dict[str, int], at_least: Amounts) -> None:
    for name, count in at_least.items():
        if count > into.get(name, 0):
            into[name] = count


def of_pod(pod: Object) -> dict[str, int]:
    """What the pod takes on its node, without the pod itself (``pods: 1``)."""
    return _effective(pod, {})


def scored(pod: Object) -> tuple[int, int]:
    """CPU and memory with something assumed for containers that ask for nothing."""
    needs = _effective(pod, {"cpu": SCORED_CPU, "memory": SCORED_MEMORY})
    return needs.get("cpu", 0), needs.get("memory", 0)


def _effective(pod: Object, assumed: Amounts) -> dict[str, int]:
    spec = pod["spec"]
    granted = _granted(pod)

    def needs(container: Object) -> dict[str, int]:
        asked = dict(assumed)
        asked |= amounts((container.get("resources") or {}).get("requests"))
        _raise(asked, granted.get(container.get("name", ""), {}))
        return asked

    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        add(total, needs(container))
    _with_init(total, spec.get("initContainers") or (), needs)
    own = (spec.get("resources") or {}).get("requests")
    if own:
        whole = amounts(own)
        total |= {name: whole[name] for name in whole if name in _POD_LEVEL or "hugepages" in name}
    add(total, amounts(spec.get("overhead")))
    return total


def _with_init(total: dict[str, int], inits: Iterable[Object], needs: Any) -> None:
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in inits:
        asked = needs(container)
        if container.get("restartPolicy") == "Always":
            add(sidecars, asked)
            _raise(peak, sidecars)
        else:
            add(asked, sidecars)
            _raise(peak, asked)
    add(total, sidecars)
    _raise(total, peak)


def _granted(pod: Object) -> dict[str, dict[str, int]]:
    """What the kubelet has given containers that are being resized: still theirs."""
    status = pod.get("status") or {}
    found: dict[str, dict[str, int]] = {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(field) or ():
            if container.get("allocatedResources"):
                found[container["name"]] = amounts(container["allocatedResources"])
    return found
