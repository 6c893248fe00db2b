"""
What all containers of a pod ask for together.

Sidecars (restartable init containers) add up with the containers; another init
container runs alone beside the sidecars before it, so the largest of those
moments counts too. Resources of the pod itself stand above its containers'.
Sources: KEP-753 (sidecars), KEP-2837 (pod-level resources), KEP-688 (overhead).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.objects import quantity

Amounts = Mapping[str, Any]  # resource name → quantity


def container_amounts(container: Amounts) -> tuple[Amounts, Amounts]:
    """Requests and limits; a limit without a request is the request too."""
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    return {**limits, **(resources.get("requests") or {})}, limits


def pod_total(spec: Amounts, part: str) -> dict[str, str]:
    """``part``: requests or limits; without the overhead of a runtime class."""
    running: dict[str, list[Any]] = {}
    for container in spec.get("containers") or ():
        _add(running, container, part)
    sidecars: dict[str, list[Any]] = {}
    peaks: dict[str, str] = {}
    for container in spec.get("initContainers") or ():
        moment = {name: list(values) for name, values in sidecars.items()}
        _add(moment, container, part)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, container, part)
            _add(running, container, part)
        peaks = _larger(peaks, _sums(moment))
    total = _larger(_sums(running), peaks)
    return total | dict((spec.get("resources") or {}).get(part) or {})


def _add(into: dict[str, list[Any]], container: Amounts, part: str) -> None:
    requests, limits = container_amounts(container)
    for name, value in (requests if part == "requests" else limits).items():
        into.setdefault(name, []).append(value)


def _sums(amounts: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    return {name: quantity.total(list(values)) for name, values in amounts.items()}


def _larger(a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    larger = dict(a)
    for name, value in b.items():
        if name not in larger or quantity.compare(value, larger[name]) > 0:
            larger[name] = value
    return larger
