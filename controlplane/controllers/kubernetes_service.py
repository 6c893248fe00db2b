"""
The Service ``default/kubernetes``, its Endpoints and its EndpointSlice: the API server's own.

It has no selector, so nobody else writes its endpoints. The namespace ``default`` is the
key, because it is there before any of the three.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICES
from controlplane.reconcile.base import Controller, Create, Key, Update, Write

NAMESPACE, NAME = "default", "kubernetes"


@dataclass(frozen=True, slots=True)
class _Server:
    cluster_ip: str
    address: str
    port: int


def make(cluster_ip: str, address: str, port: int) -> Controller:
    """``cluster_ip``: the first of the service network; ``address``, ``port``: the API server."""
    return Controller(
        name="kubernetes-service-controller",
        primary=NAMESPACES,
        reads=frozenset({SERVICES, ENDPOINTS, ENDPOINT_SLICES}),
        writes=frozenset({SERVICES, ENDPOINTS, ENDPOINT_SLICES}),
        shares=frozenset({SERVICES, ENDPOINTS, ENDPOINT_SLICES}),
        reconcile=partial(_reconcile, _Server(cluster_ip, address, port)),
        keys_for=_keys_for,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if (change.namespace, change.name) == (NAMESPACE, NAME):
        yield Key("", NAMESPACE)


def _reconcile(server: _Server, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    if key.name != NAMESPACE or reads.get(NAMESPACES, "", NAMESPACE) is None:
        return
    wanted: Mapping[Resource, dict[str, Any]] = {
        SERVICES: _service(server),
        ENDPOINTS: _endpoints(server),
        ENDPOINT_SLICES: _slice(server),
    }
    for resource, body in wanted.items():
        found = reads.get(resource, NAMESPACE, NAME)
        if found is None:
            yield Create(resource, body)
        elif not _contains(found, body):
            meta = {**found["metadata"], "labels": body["metadata"]["labels"]}
            if resource == SERVICES:
                body = {**body, "spec": {**found["spec"], **body["spec"]}}
            yield Update(resource, {**found, **body, "metadata": meta})


def _contains(found: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; what else is there are defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _contains(found.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(map(_contains, found, wanted))
        )
    return bool(found == wanted)


def _meta(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"name": NAME, "namespace": NAMESPACE, "labels": dict(labels)}


def _service(server: _Server) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta({"component": "apiserver", "provider": "kubernetes"}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": server.cluster_ip,
            "clusterIPs": [server.cluster_ip],
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.port}],
        },
    }


def _ports(server: _Server) -> list[Object]:
    return [{"name": "https", "port": server.port, "protocol": "TCP"}]


def _endpoints(server: _Server) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": _meta({"endpointslice.kubernetes.io/skip-mirror": "true"}),
        "subsets": [{"addresses": [{"ip": server.address}], "ports": _ports(server)}],
    }


def _slice(server: _Server) -> dict[str, Any]:
    family = "IPv6" if ":" in server.address else "IPv4"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _meta({"kubernetes.io/service-name": NAME}),
        "addressType": family,
        "endpoints": [{"addresses": [server.address], "conditions": {"ready": True}}],
        "ports": _ports(server),
    }
