"""
The key ``NodeHosts`` of the ConfigMap ``kube-system/coredns``: a line for each node's address.

CoreDNS reads it as a hosts file, so that nodes are found by their names. The ConfigMap comes with
CoreDNS; where it is not, nothing is written. Source: K3s, which keeps the same key.
"""

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.resources import CONFIG_MAPS, NODES
from controlplane.reconcile.base import Controller, Key, Update, Write

NAMESPACE, NAME, FIELD = "kube-system", "coredns", "NodeHosts"


def lines(nodes: list[Object]) -> str:
    """``address name`` for each internal address, in the order of the addresses."""
    found = {
        (ip_address(entry["address"]), node["metadata"]["name"])
        for node in nodes
        for entry in (node.get("status") or {}).get("addresses") or ()
        if entry.get("type") == "InternalIP"
    }
    ordered = sorted(found, key=lambda pair: (pair[0].version, int(pair[0]), pair[1]))
    return "".join(f"{address} {name}\n" for address, name in ordered)


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    if (key.namespace, key.name) != (NAMESPACE, NAME):
        return
    found = reads.get(CONFIG_MAPS, NAMESPACE, NAME)
    if found is None:
        return
    data, wanted = found.get("data") or {}, lines(list(reads.list(NODES)))
    if data.get(FIELD) != wanted:
        yield Update(CONFIG_MAPS, {**found, "data": {**data, FIELD: wanted}})


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    yield Key(NAMESPACE, NAME)


NODE_HOSTS = Controller(
    name="node-hosts-controller",
    primary=CONFIG_MAPS,
    reads=frozenset({NODES}),
    writes=frozenset({CONFIG_MAPS}),
    shares=frozenset({CONFIG_MAPS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
