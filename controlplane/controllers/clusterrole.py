"""
Aggregated ClusterRoles: their rules are those of all roles that they select.

Source: the API concept "Using RBAC Authorization", "Aggregated ClusterRoles".
"""

from collections.abc import Iterator
from datetime import datetime

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.resources import CLUSTER_ROLES
from controlplane.objects.selectors import of_object
from controlplane.reconcile.base import Controller, Key, Update, Write


def aggregate(role: Object, others: Iterator[Object]) -> list[Object]:
    """The rules of the roles that match, each once, by the order of the roles' names."""
    chosen = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
    compiled = [of_object(selector) for selector in chosen]
    rules: list[Object] = []
    for other in others:
        meta = other["metadata"]
        if meta["name"] == role["metadata"]["name"]:
            continue
        if any(selector.matches(meta.get("labels")) for selector in compiled):
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    role = reads.get(CLUSTER_ROLES, "", key.name)
    if role is None or not role.get("aggregationRule"):
        return
    rules = aggregate(role, iter(reads.list(CLUSTER_ROLES)))
    if rules != (role.get("rules") or []):
        yield Update(CLUSTER_ROLES, {**role, "rules": rules})


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    labels = [
        role["metadata"].get("labels") for role in (change.old, change.new) if role is not None
    ]
    for role in reads.list(CLUSTER_ROLES):
        chosen = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        if any(of_object(selector).matches(each) for selector in chosen for each in labels):
            yield Key("", role["metadata"]["name"])


CLUSTERROLE = Controller(
    name="clusterrole-aggregation-controller",
    primary=CLUSTER_ROLES,
    reads=frozenset({CLUSTER_ROLES}),
    writes=frozenset({CLUSTER_ROLES}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
