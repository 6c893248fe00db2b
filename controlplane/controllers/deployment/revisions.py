"""
The ReplicaSets of a Deployment as revisions: which is the new one, what they remember.

What a Deployment must know later is kept in annotations of its ReplicaSets, under
names that kubectl reads (``kubectl rollout history``, ``rollout undo``).
Source: the Deployment API documentation; upstream's deployment/util.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.client.base import Object
from controlplane.objects.meta import controller_reference, safe_hash

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"

_HISTORY_BYTES = 2000
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)


def replicas_of(item: Object) -> int:
    """``spec.replicas``; its default is 1."""
    count = item["spec"].get("replicas")
    return 1 if count is None else int(count)


def _plain(template: Mapping[str, Any]) -> dict[str, Any]:
    """A template without the hash label and without what is empty."""
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    kept = {k: v for k, v in meta.items() if k not in ("labels", "creationTimestamp") and v}
    return {"labels": labels, "meta": kept, "spec": template.get("spec")}


def same_template(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _plain(one) == _plain(other)


def by_age(sets: Iterable[Object]) -> list[Object]:
    return sorted(
        sets,
        key=lambda s: (s["metadata"].get("creationTimestamp") or "", s["metadata"]["name"]),
    )


def find_new(deployment: Object, sets: Iterable[Object]) -> Object | None:
    """The oldest set with the Deployment's template: deterministic where there are several."""
    wanted = deployment["spec"]["template"]
    for candidate in by_age(sets):
        if same_template(candidate["spec"]["template"], wanted):
            return candidate
    return None


def revision_of(item: Object) -> int:
    return _annotated(item, REVISION) or 0


def _annotated(item: Object, key: str) -> int | None:
    text = (item["metadata"].get("annotations") or {}).get(key)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def desired_of(item: Object) -> int | None:
    return _annotated(item, DESIRED)


def maximum_of(item: Object) -> int | None:
    return _annotated(item, MAXIMUM)


def next_revision(old: Sequence[Object]) -> int:
    return max((revision_of(item) for item in old), default=0) + 1


def with_sizes(item: Object, desired: int, maximum: int) -> dict[str, str]:
    """The annotations of a set that is scaled for a Deployment of that size."""
    annotations = dict(item["metadata"].get("annotations") or {})
    return annotations | {DESIRED: str(desired), MAXIMUM: str(maximum)}


def inherited(deployment: Object, own: Mapping[str, str], revision: int) -> dict[str, str]:
    """The annotations of the new set: the Deployment's, its own sizes, the revision."""
    theirs = deployment["metadata"].get("annotations") or {}
    made = dict(own) | {k: v for k, v in theirs.items() if k not in _NOT_COPIED}
    before = made.get(REVISION)
    if before is None or not before.isdigit() or int(before) < revision:
        made[REVISION] = str(revision)
        if before:
            made[HISTORY] = _longer_history(made.get(HISTORY, ""), before)
    return made


def _longer_history(history: str, revision: str) -> str:
    parts = [part for part in history.split(",") if part] + [revision]
    while len(",".join(parts)) > _HISTORY_BYTES and len(parts) > 1:
        parts.pop(0)
    return ",".join(parts)


def new_set(deployment: Object, old: Sequence[Object], size: int, maximum: int) -> dict[str, Any]:
    """The ReplicaSet of the Deployment's template, not created yet."""
    meta, spec = deployment["metadata"], deployment["spec"]
    template = spec["template"]
    collisions = (deployment.get("status") or {}).get("collisionCount")
    # Equal templates, equal names; a count of collisions makes way for a name that is taken.
    hashed = safe_hash({"template": template, "collisions": collisions or 0})
    template_meta = template.get("metadata") or {}
    labels = {**(template_meta.get("labels") or {}), HASH_LABEL: hashed}
    selector = dict(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: hashed}
    annotations = inherited(deployment, {}, next_revision(old))
    annotations |= {DESIRED: str(replicas_of(deployment)), MAXIMUM: str(maximum)}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{hashed}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector,
            "template": {**template, "metadata": {**template_meta, "labels": labels}},
        },
    }
