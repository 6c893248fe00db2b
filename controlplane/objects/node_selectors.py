"""
What selects nodes: nodeSelector, node affinity, taints and tolerations.

Asked by the scheduler, the DaemonSet controller and the kubelet's admission, so
that the three never disagree. Source: the API's "Assigning Pods to Nodes" and
"Taints and Tolerations".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.objects.selectors import is_int64

Object = Mapping[str, Any]


def node_selector_matches(terms: Iterable[Object] | None, node: Object) -> bool:
    """Any one of the terms; no terms, and a term without requirements, match no node."""
    metadata = node.get("metadata") or {}
    labels = metadata.get("labels") or {}
    fields = {"metadata.name": metadata.get("name", "")}
    return any(_term_matches(term, labels, fields) for term in terms or ())


def term_matches(term: Object, node: Object) -> bool:
    """One term, as in a preferred node affinity."""
    return node_selector_matches((term,), node)


def required_affinity_matches(pod_spec: Object, node: Object) -> bool:
    """``nodeSelector`` and the required node affinity of a pod's spec."""
    labels = (node.get("metadata") or {}).get("labels") or {}
    for key, value in (pod_spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return False
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or node_selector_matches(required.get("nodeSelectorTerms"), node)


def tolerates(tolerations: Iterable[Object] | None, taint: Object) -> bool:
    """Whether any of the tolerations tolerates the taint."""
    return any(_tolerates(toleration, taint) for toleration in tolerations or ())


def untolerated(
    taints: Iterable[Object] | None,
    tolerations: Iterable[Object] | None,
    effects: Iterable[str] = ("NoSchedule", "NoExecute"),
) -> Object | None:
    """The first taint with one of the effects that nothing tolerates."""
    wanted, listed = frozenset(effects), list(tolerations or ())
    for taint in taints or ():
        if taint.get("effect") in wanted and not tolerates(listed, taint):
            return taint
    return None


def _term_matches(term: Object, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    expressions, by_field = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not by_field:
        return False
    return all(_requirement(e, labels) for e in expressions) and all(
        _requirement(e, fields) for e in by_field
    )


def _requirement(requirement: Object, values: Mapping[str, str]) -> bool:
    value = values.get(requirement.get("key", ""))
    listed = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return value in listed
        case "NotIn":
            return value not in listed
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compare(value, listed) > 0
        case "Lt":
            return _compare(value, listed) < 0
        case _:
            return False


def _compare(value: str | None, listed: Iterable[str]) -> int:
    """Zero also where either side is not one number: neither greater nor less."""
    bounds = list(listed)
    if value is None or len(bounds) != 1 or not (is_int64(value) and is_int64(bounds[0])):
        return 0
    return int(value) - int(bounds[0])


def _tolerates(toleration: Object, taint: Object) -> bool:
    effect, key = toleration.get("effect"), toleration.get("key")
    if effect and effect != taint.get("effect"):
        return False
    if key and key != taint.get("key"):
        return False
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True
        case "Equal":
            return (toleration.get("value") or "") == (taint.get("value") or "")
        case _:
            return False
