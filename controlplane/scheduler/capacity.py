"""
Whether a volume that is still to be made has room on a node: CSIStorageCapacity.

Only provisioners whose CSIDriver says ``storageCapacity: true`` are asked; of the others
nobody knows, so every node will do. The name of an object has no slash: the CSIDriver of
``rancher.io/local-path`` is ``rancher.io.local-path``. Source: KEP-1472, "Storage Capacity".
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.client.base import Object, Reads
from controlplane.objects import quantity
from controlplane.objects.resources import CSI_DRIVERS, CSI_STORAGE_CAPACITIES
from controlplane.objects.selectors import Selector, of_object


@dataclass(frozen=True, slots=True)
class Pool:
    """Room for volumes of one class on the nodes that the selector names."""

    nodes: Selector
    limit: int  # bytes, of one volume

    def has_room(self, labels: Mapping[str, str], size: int) -> bool:
        return size <= self.limit and self.nodes.matches(labels)


def pools(storage: Object, reads: Reads) -> tuple[Pool, ...] | None:
    """Those of a storage class; None: its provisioner does not tell."""
    driver = reads.get(CSI_DRIVERS, "", driver_name(storage.get("provisioner", "")))
    if driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
        return None
    name = storage["metadata"]["name"]
    found = []
    for item in reads.list(CSI_STORAGE_CAPACITIES):
        size, topology = limit(item), item.get("nodeTopology")
        if item.get("storageClassName") == name and size is not None and topology is not None:
            found.append(Pool(of_object(topology), size))
    return tuple(found)


def driver_name(provisioner: str) -> str:
    """Of its CSIDriver."""
    return provisioner.replace("/", ".")


def limit(item: Object) -> int | None:
    """The largest volume that can be made of it, in bytes; None: it does not say."""
    said = item.get("maximumVolumeSize") or item.get("capacity")
    return quantity.value(said) if said is not None else None


def is_more(old: Object | None, new: Object | None) -> bool:
    """Could a change of a CSIStorageCapacity help somebody who waits?"""
    if new is None or (size := limit(new)) is None:
        return False
    before = limit(old) if old is not None else None
    return before is None or size > before
