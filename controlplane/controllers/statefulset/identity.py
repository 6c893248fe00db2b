"""
Who a pod of a StatefulSet is: its ordinal, its names and labels, its revision.

Source: the API concept "StatefulSet" ("Pod Identity"); KEP-3335 (start ordinal).
"""

from collections.abc import Mapping
from typing import Any

from controlplane.client.base import Object
from controlplane.objects.meta import labels, name
from controlplane.reconcile import pods
from controlplane.reconcile.revisions import HASH_LABEL

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def ordinal(pod: Object) -> int:
    """-1 for a pod whose name has none."""
    _, dash, number = name(pod).rpartition("-")
    return int(number) if dash and number.isascii() and number.isdigit() else -1


def is_member(owner: Object, pod: Object) -> bool:
    parent, _, _ = name(pod).rpartition("-")
    return ordinal(pod) >= 0 and parent == name(owner)


def replicas(owner: Object) -> int:
    count = owner["spec"].get("replicas")
    return 1 if count is None else int(count)


def ordinals(owner: Object) -> range:
    start = int((owner["spec"].get("ordinals") or {}).get("start", 0))
    return range(start, start + replicas(owner))


def revision_of(pod: Object) -> str:
    return labels(pod).get(HASH_LABEL, "")


def claim_name(owner: Object, template: Object, number: int) -> str:
    return f"{name(template)}-{name(owner)}-{number}"


def identity(owner: Object, number: int) -> dict[str, str]:
    """The labels that tell one pod from the others."""
    return {POD_NAME: f"{name(owner)}-{number}", POD_INDEX: str(number)}


def body(owner: Object, template: Mapping[str, Any], number: int, revision: str) -> dict[str, Any]:
    """The pod with an ordinal, not created yet."""
    made = pods.from_template(template, owner)
    meta, spec = made["metadata"], made["spec"]
    del meta["generateName"]
    meta["name"] = f"{name(owner)}-{number}"
    meta["labels"] = {**meta.get("labels", {}), **identity(owner, number), HASH_LABEL: revision}
    made["spec"] = {**spec, "hostname": meta["name"], **_storage(owner, spec, number)}
    made["spec"].pop("subdomain", None)
    if owner["spec"].get("serviceName"):
        made["spec"]["subdomain"] = owner["spec"]["serviceName"]
    return made


def _storage(owner: Object, spec: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Volumes of the claims; they take the place of the template's volumes of the same names."""
    claimed = {
        name(template): {
            "name": name(template),
            "persistentVolumeClaim": {"claimName": claim_name(owner, template, number)},
        }
        for template in owner["spec"].get("volumeClaimTemplates") or ()
    }
    others = [v for v in spec.get("volumes") or () if v["name"] not in claimed]
    volumes = [*claimed.values(), *others]
    return {"volumes": volumes} if volumes else {}
