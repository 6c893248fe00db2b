"""
May this pod run here at all? What the scheduler does not look at, or was not asked (pure).

A pod may name its node itself, and two may be placed at once by whoever schedules; so
resources, ports and affinity are looked at again. One that is refused fails for
good, with the reason that kubelet would give.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.client.base import Object
from controlplane.objects import node_selectors, quantity
from controlplane.objects.pod_totals import pod_total
from node.kubelet.base import is_sidecar
from node.kubelet.view import Waiting

Port = tuple[str, str, int]  # address, protocol, port
_ANY = frozenset({"0.0.0.0", "::"})
_ORDER = {"cpu": 0, "memory": 1, "ephemeral-storage": 2}

# Namespaced sysctls that one pod cannot hurt another with. Source: "Using sysctls in a cluster".
_SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        # Beyond upstream's, as K3s allows them: its load balancer's pods set them.
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the pod would find here."""

    node: Object | None  # None: not registered yet
    allocatable: Mapping[str, str]
    others: Sequence[Object]  # pods that were let in and have not ended


def refuse(pod: Object, room: Room, *, make_room: bool = False) -> Waiting | None:
    """
    Why not, or None; of several reasons the first.

    ``make_room``: what is missing of resources is no reason, others will go.
    """
    checks = [_sysctls, _system, _resources, _affinity, _ports, _taints]
    if make_room:
        checks.remove(_resources)
    return next((why for check in checks if (why := check(pod, room)) is not None), None)


def _sysctls(pod: Object, _room: Room) -> Waiting | None:
    wanted = (pod["spec"].get("securityContext") or {}).get("sysctls", ())
    for item in wanted:
        name = item["name"].replace("/", ".")
        if name not in _SAFE:
            return Waiting("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
    return None


def _system(pod: Object, room: Room) -> Waiting | None:
    named = (pod["metadata"].get("labels") or {}).get("kubernetes.io/os")
    if named not in (None, "linux"):
        text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
        return Waiting("PodOSSelectorNodeLabelDoesNotMatch", text)
    if (pod["spec"].get("os") or {}).get("name", "linux") != "linux":
        text = "Failed to admit pod as the OS field doesn't match node OS"
        return Waiting("PodOSNotSupported", text)
    return _groups(pod, room)


def _groups(pod: Object, room: Room) -> Waiting | None:
    security = pod["spec"].get("securityContext") or {}
    if security.get("supplementalGroupsPolicy") != "Strict" or room.node is None:
        return None
    features = (room.node.get("status") or {}).get("features") or {}
    if features.get("supplementalGroupsPolicy"):
        return None
    text = "SupplementalGroupsPolicy=Strict is not supported in this node"
    return Waiting("SupplementalGroupsPolicyNotSupported", text)


def _resources(pod: Object, room: Room) -> Waiting | None:
    for name, (wanted, used, offered) in _shortages(pod, room):
        return _out_of(name, wanted, used, offered)
    return None


def missing(pod: Object, room: Room) -> dict[str, int]:
    """How much of each resource would have to be freed for the pod."""
    return {
        name: wanted - (offered - used) for name, (wanted, used, offered) in _shortages(pod, room)
    }


def _shortages(pod: Object, room: Room) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Of a resource: what is asked for, what is taken, and what there is in all."""
    count, most = len(room.others), room.allocatable.get("pods")
    if most is not None and count + 1 > quantity.value(most):
        yield "pods", (1, count, quantity.value(most))
    wanted = requests(pod)
    for name in sorted(wanted, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        if not wanted[name] or name not in room.allocatable:
            continue  # what the node does not know is looked after elsewhere
        used = sum(requests(other).get(name, 0) for other in room.others)
        offered = _number(name, room.allocatable[name])
        if wanted[name] > offered - used:
            yield name, (wanted[name], used, offered)


def requests(pod: Object) -> dict[str, int]:
    """CPU in thousandths, everything else in whole units."""
    total = pod_total(pod["spec"], "requests")
    out = {name: _number(name, text) for name, text in total.items()}
    for name, text in (pod["spec"].get("overhead") or {}).items():
        out[name] = out.get(name, 0) + _number(name, text)
    return out


def _number(name: str, text: str) -> int:
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def _out_of(name: str, wanted: int, used: int, offered: int) -> Waiting:
    text = (
        f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, "
        f"capacity: {offered}"
    )
    return Waiting(f"OutOf{name}", text)


def _failed(predicate: str, text: str) -> Waiting:
    return Waiting(predicate, f"Predicate {predicate} failed: {text}")


def _affinity(pod: Object, room: Room) -> Waiting | None:
    if room.node is None or node_selectors.required_affinity_matches(pod["spec"], room.node):
        return None
    return _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")


def _ports(pod: Object, room: Room) -> Waiting | None:
    wanted = list(_host_ports(pod))
    for other in room.others if wanted else ():
        for taken in _host_ports(other):
            if any(_clash(port, taken) for port in wanted):
                text = "node(s) didn't have free ports for the requested pod ports"
                return _failed("NodePorts", text)
    return None


def _host_ports(pod: Object) -> Iterator[Port]:
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers", ()) if is_sidecar(c)]
    for container in [*spec["containers"], *sidecars]:
        for port in container.get("ports", ()):
            if port.get("hostPort"):
                address = port.get("hostIP") or "0.0.0.0"
                yield address, port.get("protocol", "TCP"), port["hostPort"]


def _clash(a: Port, b: Port) -> bool:
    return a[1:] == b[1:] and (a[0] == b[0] or bool({a[0], b[0]} & _ANY))


def _taints(pod: Object, room: Room) -> Waiting | None:
    taints = ((room.node or {}).get("spec") or {}).get("taints")
    tolerations = pod["spec"].get("tolerations")
    if node_selectors.untolerated(taints, tolerations, ("NoExecute",)) is None:
        return None
    return _failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")
