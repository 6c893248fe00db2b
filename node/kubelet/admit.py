"""
May this pod run here at all? What the scheduler does not look at (pure).

A pod that is refused fails for good, with the reason that kubelet would give.
"""

from controlplane.client.base import Object
from node.kubelet.view import Waiting

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
    }
)


def refuse(pod: Object, node: Object | None) -> Waiting | None:
    """Why not, or None."""
    return _sysctls(pod) or _node_selector(pod, node)


def _sysctls(pod: Object) -> Waiting | None:
    wanted = (pod["spec"].get("securityContext") or {}).get("sysctls", ())
    for item in wanted:
        name = item["name"].replace("/", ".")
        if name not in _SAFE:
            return Waiting("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
    return None


def _node_selector(pod: Object, node: Object | None) -> Waiting | None:
    if node is None:
        return None
    labels = node["metadata"].get("labels", {})
    wanted = pod["spec"].get("nodeSelector") or {}
    if all(labels.get(key) == value for key, value in wanted.items()):
        return None
    text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    return Waiting("NodeAffinity", text)
