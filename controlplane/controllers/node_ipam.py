"""
``spec.podCIDR`` of each node: its part of the cluster's pod network.

What is taken is read from the nodes themselves; only what was given away in this very
moment is remembered, because two nodes may be worked on at once.
"""

from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv4Network

from controlplane.client.base import Reads
from controlplane.objects.meta import is_deleting
from controlplane.objects.resources import NODES
from controlplane.reconcile.base import Controller, Key, Patch, Record, Write

MASK = 24


def make(cluster: IPv4Network, mask: int = MASK) -> Controller:
    """``mask``: the prefix length of a node's part."""
    return Controller(
        name="node-ipam-controller",
        primary=NODES,
        reads=frozenset(),
        writes=frozenset({NODES}),
        shares=frozenset({NODES}),
        reconcile=_Allocator(cluster, max(mask, cluster.prefixlen)).reconcile,
    )


class _Allocator:
    def __init__(self, cluster: IPv4Network, mask: int) -> None:
        self._cluster, self._mask = cluster, mask
        self._promised: dict[str, str] = {}  # node → network, until the node shows it

    def reconcile(self, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        node = reads.get(NODES, "", key.name)
        if node is None or is_deleting(node) or (node.get("spec") or {}).get("podCIDR"):
            self._promised.pop(key.name, None)
            return
        chosen = self._promised.get(key.name) or self._free(reads)
        if chosen is None:
            text = f"Node {key.name} status is now: CIDRNotAvailable"
            yield Record(node, "Normal", "CIDRNotAvailable", text)
            return
        self._promised[key.name] = chosen
        body = {
            "metadata": {"uid": node["metadata"]["uid"]},
            "spec": {"podCIDR": chosen, "podCIDRs": [chosen]},
        }
        yield Patch(NODES, "", key.name, body)

    def _free(self, reads: Reads) -> str | None:
        taken = {(node.get("spec") or {}).get("podCIDR") for node in reads.list(NODES)}
        taken |= set(self._promised.values())
        networks = self._cluster.subnets(new_prefix=self._mask)
        return next((text for text in map(str, networks) if text not in taken), None)
