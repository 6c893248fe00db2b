"""
The objects besides roles that exist from the first start: namespaces, priority classes,
and what extension API servers need to know about this one.
"""

import asyncio
import ipaddress
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson

from controlplane.api.admission.scheduling import PRIORITY_CLASSES
from controlplane.client.base import Client, Object, Reads
from controlplane.objects import meta
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CONFIG_MAPS, NAMESPACES, SERVICE_CIDRS
from controlplane.pki.ensure import AUTH_PROXY_USER, Pki

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_AUTHENTICATION = "extension-apiserver-authentication"


async def ensure_service_cidr(
    client: Client, reads: Reads, network: ipaddress.IPv4Network, now: datetime
) -> None:
    """The object that says where cluster IPs come from (KEP-1880); only this server decides it."""
    if reads.get(SERVICE_CIDRS, "", "kubernetes") is not None:
        return
    body = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [str(network)]}}
    made = await client.create(SERVICE_CIDRS, body)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": meta.rfc3339(now),
    }
    status = {"conditions": [ready]}
    await client.update(SERVICE_CIDRS, {**made, "status": status}, subresource="status")


async def ensure_bootstrap_objects(client: Client, reads: Reads, pki: Pki) -> None:
    """Namespaces first: the rest, and the roles of :mod:`bootstrap_policy`, live in them."""
    async with asyncio.TaskGroup() as tasks:
        for name in SYSTEM_NAMESPACES:
            if reads.get(NAMESPACES, "", name) is None:
                tasks.create_task(client.create(NAMESPACES, _namespace(name)))
    async with asyncio.TaskGroup() as tasks:
        for resource, body in _others(pki):
            seen = reads.get(resource, meta.namespace(body), meta.name(body))
            if seen is None:
                tasks.create_task(client.create(resource, body))
            elif not _has(seen, body.get("data", {})):
                data = {**(seen.get("data") or {}), **body["data"]}
                tasks.create_task(client.update(resource, {**seen, "data": data}))


def _has(seen: Object, data: Mapping[str, str]) -> bool:
    present = seen.get("data") or {}
    return all(present.get(key) == value for key, value in data.items())


def _namespace(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/metadata.name": name}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _others(pki: Pki) -> Iterator[tuple[Resource, dict[str, Any]]]:
    yield (
        PRIORITY_CLASSES,
        _priority_class(
            "system-node-critical", 2_000_001_000, "For pods that a node cannot do without."
        ),
    )
    yield (
        PRIORITY_CLASSES,
        _priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "For pods that the cluster cannot do without, whichever node they run on.",
        ),
    )
    yield CONFIG_MAPS, _authentication(pki)


def _priority_class(name: str, value: int, description: str) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _authentication(pki: Pki) -> dict[str, Any]:
    def listed(*values: str) -> str:
        return orjson.dumps(values).decode()

    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _AUTHENTICATION, "namespace": "kube-system"},
        "data": {
            "client-ca-file": pki.client_ca_pem.decode(),
            "requestheader-allowed-names": listed(AUTH_PROXY_USER),
            "requestheader-client-ca-file": pki.request_header_ca_pem.decode(),
            "requestheader-extra-headers-prefix": listed("X-Remote-Extra-"),
            "requestheader-group-headers": listed("X-Remote-Group"),
            "requestheader-uid-headers": listed("X-Remote-Uid"),
            "requestheader-username-headers": listed("X-Remote-User"),
        },
    }
