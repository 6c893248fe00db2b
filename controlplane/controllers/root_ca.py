"""The ConfigMap ``kube-root-ca.crt`` of each namespace, with which pods trust the API server."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from controlplane.client.base import Change, Reads
from controlplane.objects.meta import is_deleting
from controlplane.objects.resources import CONFIG_MAPS, NAMESPACES
from controlplane.reconcile.base import Controller, Create, Key, Update, Write

NAME = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. No other usage is "
    "guaranteed across distributions of Kubernetes clusters."
)


def make(certificate: str) -> Controller:
    """``certificate``: the server CA as PEM."""
    return Controller(
        name="root-ca-certificate-publisher",
        primary=NAMESPACES,
        reads=frozenset({CONFIG_MAPS}),
        writes=frozenset({CONFIG_MAPS}),
        shares=frozenset({CONFIG_MAPS}),
        reconcile=partial(_reconcile, certificate),
        keys_for=_keys_for,
    )


def _reconcile(certificate: str, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    namespace = reads.get(NAMESPACES, "", key.name)
    if namespace is None or is_deleting(namespace):
        return
    data = {"ca.crt": certificate}
    found = reads.get(CONFIG_MAPS, key.name, NAME)
    if found is None:
        meta = {
            "name": NAME,
            "namespace": key.name,
            "annotations": {"kubernetes.io/description": DESCRIPTION},
        }
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        yield Create(CONFIG_MAPS, body)
    elif found.get("data") != data:
        yield Update(CONFIG_MAPS, {**found, "data": data})


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.name == NAME:
        yield Key("", change.namespace)
