"""
Which nodes may carry a Service's addresses: labels, pools and taints. Pure.

As where its forwarding pods would run under K3s: on every node, until one label anywhere
turns the nodes into a choice; not on nodes with taints that the pods do not tolerate.
"""

from collections.abc import Sequence

from operators.servicelb.annotations import Toleration
from operators.servicelb.facts import Node, Service, Taint

# K3s gives these to the forwarding pods; the rest is what every DaemonSet's pods tolerate.
OWN_TOLERATIONS = (
    Toleration("node-role.kubernetes.io/master", "Exists", "", "NoSchedule"),
    Toleration("node-role.kubernetes.io/control-plane", "Exists", "", "NoSchedule"),
    Toleration("CriticalAddonsOnly", "Exists"),
)
_OF_DAEMONSETS = (
    Toleration("node.kubernetes.io/not-ready", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/unreachable", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/disk-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/memory-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/pid-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule"),
)
# A node that is away for the moment keeps what it has; whether it is ready is asked elsewhere.
_PASSING = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})


def chosen_by_label(nodes: Sequence[Node]) -> bool:
    """One label anywhere, even on a node that is away, makes the nodes a choice."""
    return any(node.enabled is not None for node in nodes)


def placed(service: Service, nodes: Sequence[Node]) -> list[Node]:
    if not service.ours or service.problem:
        return []
    found = list(nodes)
    if chosen_by_label(nodes):
        found = [node for node in found if node.enabled == "true"]
        if service.pool:
            found = [node for node in found if node.pool == service.pool]
    return [node for node in found if not node.taints or _welcome(service, node)]


def misplaced(service: Service, nodes: Sequence[Node]) -> str:
    """Why no node may carry its addresses, whatever becomes ready; "" where one may."""
    if not nodes or not service.ours or service.problem or placed(service, nodes):
        return ""
    if not chosen_by_label(nodes):
        return "every node has a taint that it does not tolerate"
    label = "svccontroller.k3s.cattle.io/enablelb=true"
    pool = f" and svccontroller.k3s.cattle.io/lbpool={service.pool}" if service.pool else ""
    chosen = [node for node in nodes if node.enabled == "true"]
    if not any(not service.pool or node.pool == service.pool for node in chosen):
        return f"no node has the label {label}{pool}"
    return f"every node with {label}{pool} has a taint that it does not tolerate"


def _welcome(service: Service, node: Node) -> bool:
    known = (*OWN_TOLERATIONS, *_OF_DAEMONSETS, *service.tolerations)
    has_it = any(str(address) in service.published for address in node.addresses)
    for taint in node.taints:
        if taint.effect == "PreferNoSchedule" or taint.key in _PASSING:
            continue
        # NoSchedule is for newcomers: what is there stays.
        if has_it and taint.effect == "NoSchedule":
            continue
        if not any(tolerates(toleration, taint) for toleration in known):
            return False
    return True


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in {"", taint.effect} or toleration.key not in {"", taint.key}:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value
