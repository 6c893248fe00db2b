"""
Which nodes a DaemonSet's pods belong on, and what such a pod looks like.

Source: the API concept "DaemonSet" ("Taints and tolerations", "How Daemon Pods are
scheduled"); upstream's daemon/util.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import node_selectors
from controlplane.objects.meta import annotations, name
from controlplane.reconcile import pods
from controlplane.reconcile.revisions import HASH_LABEL

GENERATION = "deprecated.daemonset.template.generation"
GENERATION_LABEL = "pod-template-generation"
_PREFIX = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


@dataclass(frozen=True, slots=True)
class Fit:
    """``start``: a pod may be made on the node; ``stay``: one that is there may go on."""

    start: bool
    stay: bool


NO_FIT = Fit(start=False, stay=False)


def fit(daemon_set: Object, node: Object) -> Fit:
    spec = daemon_set["spec"]["template"]["spec"]
    if spec.get("nodeName") not in (None, "", name(node)):
        return NO_FIT
    if not node_selectors.required_affinity_matches(spec, node):
        return NO_FIT
    taints, tolerated = (node.get("spec") or {}).get("taints"), tolerations(spec)
    if node_selectors.untolerated(taints, tolerated) is None:
        return Fit(start=True, stay=True)
    evicting = node_selectors.untolerated(taints, tolerated, ("NoExecute",))
    return Fit(start=False, stay=evicting is None)


def tolerations(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of the template, and those that all daemons have."""
    wanted = list(_TOLERATED)
    if spec.get("hostNetwork"):
        wanted.append(("network-unavailable", "NoSchedule"))
    added: list[Mapping[str, Any]] = [
        {"key": _PREFIX + key, "operator": "Exists", "effect": effect} for key, effect in wanted
    ]
    same = {(item["key"], item["effect"]) for item in added}
    kept = [
        item
        for item in spec.get("tolerations") or ()
        if (item.get("key"), item.get("effect")) not in same or item.get("value")
    ]
    return [*kept, *added]


def body(daemon_set: Object, node: str, hashed: str) -> dict[str, Any]:
    """The pod for a node, not created yet."""
    made = pods.from_template(daemon_set["spec"]["template"], daemon_set)
    meta, spec = made["metadata"], made["spec"]
    meta["labels"] = {**meta.get("labels", {}), HASH_LABEL: hashed}
    generation = annotations(daemon_set).get(GENERATION)
    if generation is not None:
        meta["labels"][GENERATION_LABEL] = generation
    affinity = spec.get("affinity") or {}
    by_node = affinity.get("nodeAffinity") or {}
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    # The template's own terms have been asked already: this one names the node they gave.
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    by_node = {**by_node, "requiredDuringSchedulingIgnoredDuringExecution": required}
    made["spec"] = {
        **spec,
        "affinity": {**affinity, "nodeAffinity": by_node},
        "tolerations": tolerations(spec),
    }
    return made


def target(pod: Object) -> str:
    """The node that the pod is on or meant for; "" where it names none."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    by_node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = by_node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            values = list(field.get("values") or ())
            by_name = (field["key"], field["operator"]) == ("metadata.name", "In")
            if by_name and len(values) == 1:
                return str(values[0])
    return ""
