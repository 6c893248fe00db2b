"""
Pressure → which pod goes first (pure).

Those that use more than they requested before those that do not, lower priority before
higher, and then by how much they use above their request. Critical pods never.
Source: "Node-pressure Eviction", pod selection.
"""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.client.base import Object
from node.kubelet import resources
from node.kubelet.base import uid_of

_CRITICAL = 2_000_000_000  # system-cluster-critical and above


def rank(pods: Iterable[Object], usage: Mapping[str, int], resource: str) -> Sequence[Object]:
    """The pods that may be evicted, the first to go first; ``usage`` by uid, in bytes."""

    def order(pod: Object) -> tuple[bool, int, int]:
        above = usage.get(uid_of(pod), 0) - resources.pod_requests([pod], resource)
        return above <= 0, pod["spec"].get("priority", 0), -above

    running = [p for p in pods if p["spec"].get("priority", 0) < _CRITICAL]
    return sorted(running, key=order)


def message(pod: Object, used: int, resource: str, available: int) -> str:
    """As kubelet words it, in KiB."""
    asked = resources.pod_requests([pod], resource)
    names = ", ".join(c["name"] for c in pod["spec"]["containers"])
    return (
        f"The node was low on resource: {resource}. Threshold quantity: 100Mi, available: "
        f"{available // 1024}Ki. Container {names} was using {used // 1024}Ki, request is "
        f"{asked // 1024}Ki, has larger consumption of {resource}. "
    )
