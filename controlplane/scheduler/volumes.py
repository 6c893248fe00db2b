"""
The claims of a pod: where their volumes are, and which are bound only once a node is chosen.

A claim whose class waits for the first consumer gets the chosen node as an
annotation (its provisioner makes the volume there) or, without a provisioner, one of the volumes
that are there. Source: the API concepts "Persistent Volumes" and "Storage Classes".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from controlplane.client.base import Object, Reads
from controlplane.objects import node_selectors, quantity
from controlplane.objects.meta import annotations, is_controlled_by, labels
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.reconcile import volumes
from controlplane.reconcile.volumes import NO_PROVISIONER, SELECTED_NODE
from controlplane.scheduler.capacity import Pool, pools
from controlplane.scheduler.snapshot import NodeInfo

WRONG_NODE = "node(s) didn't match PersistentVolume's node affinity"
LOST_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
NOT_ENOUGH = "node(s) did not have enough free storage"
WRONG_ZONE = "node(s) had no available volume zone"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
TAKEN = (
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
)

_ZONE, _REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
# Label of a volume → the one that nodes have had since.
_TOPOLOGY = {
    "failure-domain.beta.kubernetes.io/zone": _ZONE,
    "failure-domain.beta.kubernetes.io/region": _REGION,
    _ZONE: _ZONE,
    _REGION: _REGION,
}

# Of a pod by its uid, also while it is being bound to it; None: it has none.
NodeOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A claim that waits for a node, and the volumes that could be bound to it."""

    claim: Object
    candidates: tuple[Object, ...]  # the best first
    provisioned: bool
    node: str  # where its provisioner was asked to make it; "": not yet
    topologies: tuple[Object, ...]  # of the class, as node selector terms
    size: int  # bytes that it asks for
    pools: tuple[Pool, ...] | None  # where its provisioner has room; None: it does not tell


@dataclass(frozen=True, slots=True)
class Needs:
    refused: str = ""  # no node will do
    held_by: tuple[tuple[str, str], ...] = ()  # uid and node of pods that have a claim for one
    lost: bool = False
    affinities: tuple[Object, ...] = ()  # required node affinity of bound volumes
    zones: tuple[tuple[str, frozenset[str]], ...] = ()  # of bound volumes: label, its values
    waiting: tuple[Waiting, ...] = ()  # the smallest first


NOTHING = Needs()


def needs(pod: Object, reads: Reads, node_of: NodeOf) -> Needs:
    result = NOTHING
    for name, ephemeral in claim_names(pod):
        result = _with_claim(result, pod, reads, name, ephemeral=ephemeral)
        if result.refused:
            break
        if holders := _holders(pod, name, reads, node_of):
            result = replace(result, held_by=(*result.held_by, *holders))
    if len(result.waiting) > 1:
        # So that a large claim does not go without because a small one took its volume.
        by_size = sorted(result.waiting, key=lambda item: item.size)
        result = replace(result, waiting=tuple(by_size))
    return result


def _holders(pod: Object, name: str, reads: Reads, node_of: NodeOf) -> list[tuple[str, str]]:
    """Other pods that have a claim which is for one pod at a time."""
    namespace = pod["metadata"]["namespace"]
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, namespace, name)
    if claim is None or "ReadWriteOncePod" not in (claim["spec"].get("accessModes") or ()):
        return []
    found = []
    for other in reads.list(PODS, namespace):
        uid = other["metadata"]["uid"]
        if uid == pod["metadata"]["uid"] or (node := node_of(uid)) is None:
            continue
        if any(claimed == name for claimed, _ in claim_names(other)):
            found.append((uid, node))
    return found


def claim_names(pod: Object) -> Iterator[tuple[str, bool]]:
    """The pod's claims; True: made for the pod from a template."""
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            yield volume["persistentVolumeClaim"]["claimName"], False
        elif volume.get("ephemeral"):
            yield f"{pod['metadata']['name']}-{volume['name']}", True


def _with_claim(result: Needs, pod: Object, reads: Reads, name: str, *, ephemeral: bool) -> Needs:
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, pod["metadata"]["namespace"], name)
    if claim is None:
        if ephemeral:
            what = f'persistentvolumeclaim "{name}"'
            text = f"waiting for ephemeral volume controller to create the {what}"
        else:
            text = f'persistentvolumeclaim "{name}" not found'
        return replace(result, refused=text)
    if volumes.phase(claim) == "Lost":
        lost = f'bound to non-existent persistentvolume "{volumes.volume_name(claim)}"'
        return replace(result, refused=f'persistentvolumeclaim "{name}" {lost}')
    if claim["metadata"].get("deletionTimestamp"):
        return replace(result, refused=f'persistentvolumeclaim "{name}" is being deleted')
    if ephemeral and not is_controlled_by(claim, pod):
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        text = f"PVC {pod['metadata']['namespace']}/{name} was not created for pod {where}"
        return replace(result, refused=f"{text} (pod is not owner)")
    if is_bound(claim):
        return _with_volume(result, reads.get(PERSISTENT_VOLUMES, "", volumes.volume_name(claim)))
    class_name = volumes.class_of(claim)
    storage = reads.get(STORAGE_CLASSES, "", class_name) if class_name else None
    waits = storage is not None and storage.get("volumeBindingMode") == "WaitForFirstConsumer"
    if storage is None or not waits or volumes.volume_name(claim):
        return replace(result, refused=UNBOUND)  # the binder is at it
    return replace(result, waiting=(*result.waiting, _waiting(claim, storage, reads)))


def is_bound(claim: Object) -> bool:
    return volumes.is_bound(claim) or bool(
        volumes.volume_name(claim) and volumes.phase(claim) == "Bound"
    )


def _with_volume(result: Needs, volume: Object | None) -> Needs:
    if volume is None:
        return replace(result, lost=True)
    zones = [
        (key, frozenset(value.split("__")))
        for key, value in labels(volume).items()
        if key in _TOPOLOGY
    ]
    if zones:
        result = replace(result, zones=(*result.zones, *zones))
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if required is None:
        return result
    return replace(result, affinities=(*result.affinities, required))


def _waiting(claim: Object, storage: Object, reads: Reads) -> Waiting:
    node = annotations(claim).get(SELECTED_NODE, "")
    # What is being made for it is not given up for another volume.
    fitting = [] if node else volumes.candidates(claim, reads.list(PERSISTENT_VOLUMES))
    terms = [
        {
            "matchExpressions": [
                {"key": e["key"], "operator": "In", "values": e["values"]}
                for e in topology.get("matchLabelExpressions") or ()
            ]
        }
        for topology in storage.get("allowedTopologies") or ()
    ]
    provisioned = storage.get("provisioner") != NO_PROVISIONER
    asked = (claim["spec"].get("resources") or {}).get("requests") or {}
    return Waiting(
        claim,
        tuple(fitting),
        provisioned,
        node,
        tuple(terms),
        size=quantity.value(asked.get("storage", "0")),
        pools=pools(storage, reads) if provisioned and asked.get("storage") else None,
    )


def _is_at(volume: Object, node: NodeInfo) -> bool:
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or node_selectors.node_selector_matches(
        required.get("nodeSelectorTerms"), node.selectable
    )


def choose(
    waiting: Sequence[Waiting], node: NodeInfo
) -> list[tuple[Waiting, Object | None]] | None:
    """For each claim its volume, None where one is to be made; None at all: not on this node."""
    found = _choose(waiting, node)
    return None if isinstance(found, str) else found


def _choose(
    waiting: Sequence[Waiting], node: NodeInfo
) -> list[tuple[Waiting, Object | None]] | str:
    """As :func:`choose`, or the reason why not."""
    taken: set[str] = set()
    chosen: list[tuple[Waiting, Object | None]] = []
    is_full = False
    for item in waiting:
        volume = next(
            (v for v in item.candidates if v["metadata"]["name"] not in taken and _is_at(v, node)),
            None,
        )
        if volume is not None:
            taken.add(volume["metadata"]["name"])
        elif not item.provisioned or not _is_allowed(item, node):
            return NO_VOLUME
        else:
            is_full = is_full or not _has_room(item, node)
        chosen.append((item, volume))
    return NOT_ENOUGH if is_full else chosen


def _is_allowed(item: Waiting, node: NodeInfo) -> bool:
    if item.node and item.node != node.name:
        return False
    if not item.topologies:
        return True
    return node_selectors.node_selector_matches(item.topologies, node.selectable)


def _has_room(item: Waiting, node: NodeInfo) -> bool:
    return item.pools is None or any(pool.has_room(node.labels, item.size) for pool in item.pools)


def refusal(found: Needs, node: NodeInfo) -> tuple[str, ...]:
    """The reasons why the node is not for the pod, () if it is."""
    reasons = []
    if any(not _matches(required, node) for required in found.affinities):
        reasons.append(WRONG_NODE)
    if found.waiting and isinstance(why := _choose(found.waiting, node), str):
        reasons.append(why)
    if found.lost and WRONG_NODE not in reasons:
        reasons.append(LOST_VOLUME)
    return tuple(reasons)


def _matches(required: Object, node: NodeInfo) -> bool:
    return node_selectors.node_selector_matches(required.get("nodeSelectorTerms"), node.selectable)


def is_held(found: Needs, node: NodeInfo) -> tuple[bool, bool]:
    """Whether another pod has a claim for one; and whether all of those are on this node."""
    holders = [
        (uid, where) for uid, where in found.held_by if where != node.name or uid in node.pods
    ]
    return bool(holders), all(where == node.name for _, where in holders)


def is_in_zone(found: Needs, node: NodeInfo) -> bool:
    """Nodes that say nothing of zones are in all of them."""
    if not any(key in node.labels for key in _TOPOLOGY):
        return True
    return all(
        node.labels.get(key, node.labels.get(_TOPOLOGY[key], "")) in values
        for key, values in found.zones
    )
