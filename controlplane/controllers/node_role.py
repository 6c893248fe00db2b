"""
Node → its role labels: the node of a server says that it is one.

A kubelet may not give its own node a role (NodeRestriction), so the control
plane does it for the machine that it runs on.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from controlplane.client.base import Reads
from controlplane.objects.resources import NODES
from controlplane.reconcile.base import Controller, Key, Patch, Write

ROLES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


def make(node_name: str) -> Controller:
    """``node_name``: of the agent on this machine."""
    return Controller(
        name="node-role-controller",
        primary=NODES,
        reads=frozenset(),
        writes=frozenset({NODES}),
        shares=frozenset({NODES}),
        reconcile=partial(_reconcile, node_name),
    )


def _reconcile(node_name: str, key: Key, reads: Reads, _now: datetime) -> Iterator[Write]:
    node = reads.get(NODES, "", key.name)
    if node is None or key.name != node_name:
        return
    labels = node["metadata"].get("labels") or {}
    missing = {role: "true" for role in ROLES if role not in labels}
    if missing:
        yield Patch(NODES, "", key.name, {"metadata": {"labels": missing}})
