"""The ``default`` ServiceAccount of each namespace: pods that name none run as it."""

from collections.abc import Iterator
from datetime import datetime

from controlplane.client.base import Change, Reads
from controlplane.objects.meta import is_deleting
from controlplane.objects.resources import NAMESPACES, SERVICE_ACCOUNTS
from controlplane.reconcile.base import Controller, Create, Key, Write

NAME = "default"


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    namespace = reads.get(NAMESPACES, "", key.name)
    if namespace is None or is_deleting(namespace):
        return
    if reads.get(SERVICE_ACCOUNTS, key.name, NAME) is None:
        meta = {"name": NAME, "namespace": key.name}
        yield Create(
            SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.name == NAME and change.load_new is None:
        yield Key("", change.namespace)


SERVICEACCOUNT = Controller(
    name="service-account-controller",
    primary=NAMESPACES,
    reads=frozenset({SERVICE_ACCOUNTS}),
    writes=frozenset({SERVICE_ACCOUNTS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
