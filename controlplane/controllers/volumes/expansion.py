"""
A claim that asks for more than it has, or for another class of attributes.

No volume type that is served here can be grown by the control plane, so the claim is told that
its provisioner has to: it sets the conditions, ``status.allocatedResources`` and the new
capacity. Volume attributes classes are for CSI drivers, which nodes do not run.
"""

from collections.abc import Iterator
from datetime import datetime

from controlplane.client.base import Object, Reads
from controlplane.objects import quantity
from controlplane.objects.meta import annotations, condition
from controlplane.objects.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from controlplane.reconcile import volumes
from controlplane.reconcile.base import Controller, Key, Record, Write

_UNDER_WAY = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


def _reconcile(key: Key, reads: Reads, _now: datetime) -> Iterator[Write]:
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, key.namespace, key.name)
    if claim is None or volumes.phase(claim) != "Bound":
        return
    yield from _attributes(claim)
    if not _wants_more(claim):
        return
    if any(condition(claim, type_) for type_ in _UNDER_WAY):
        return
    volume = reads.get(PERSISTENT_VOLUMES, "", volumes.volume_name(claim))
    if volume is not None:
        provisioned = volumes.PROVISIONED_BY in annotations(volume)
        text = "waiting for an external controller to expand this PVC"
        yield Record(claim, "Normal" if provisioned else "Warning", "ExternalExpanding", text)


def _attributes(claim: Object) -> Iterator[Write]:
    wanted = claim["spec"].get("volumeAttributesClassName") or ""
    status = claim.get("status") or {}
    has = status.get("currentVolumeAttributesClassName") or ""
    if wanted and wanted != has and "modifyVolumeStatus" not in status:
        text = f'Pinnace does not support changing volumes: VolumeAttributesClass "{wanted}"'
        yield Record(claim, "Warning", "VolumeModifyFailed", text)


def _wants_more(claim: Object) -> bool:
    held = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
    return held is not None and volumes.requested(claim) > quantity.nanos(held)


EXPANSION = Controller(
    name="persistentvolume-expander-controller",
    primary=PERSISTENT_VOLUME_CLAIMS,
    reads=frozenset({PERSISTENT_VOLUMES}),
    writes=frozenset(),
    reconcile=_reconcile,
)
