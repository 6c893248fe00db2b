"""
What kopf sees of Services, Nodes, EndpointSlices, Pods and DaemonSets becomes facts.

The facts are noted by kopf's index handlers: it calls no other handler before all
kinds were listed, so no address is taken back only because the nodes came last.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from operators.servicelb import daemonset, facts
from operators.servicelb.facts import key_of
from operators.servicelb.known import Known

SERVICE_LABEL = "kubernetes.io/service-name"
API_SERVERS = "default/kubernetes"  # the Service whose endpoints are the API servers
Body = Mapping[str, Any]


def register(
    registry: Any, known: Known, *, namespace: str, manager: str, daemonsets: bool
) -> None:
    """
    ``namespace``: of DaemonSets and their pods, which are looked at with ``daemonsets``.

    ``manager``: by which our writes are known again.
    """
    # Coroutines, because kopf takes plain functions to threads.
    _services(registry, known, manager)
    _nodes(registry, known)
    _slices(registry, known)
    _pods(registry, known, namespace)
    if daemonsets:
        _daemonsets(registry, known, namespace)


def _services(registry: Any, known: Known, manager: str) -> None:
    @kopf.index("", "v1", "services", registry=registry, id="servicelb-services")
    async def note(body: Body, **_: Any) -> None:
        service = facts.service_of(body, manager)
        wanted = service if facts.concerns_us(service, body) else None
        known.put(known.services, service.key, wanted)
        known.put(known.node_ports, service.key, facts.node_ports_of(body) or None)

    @kopf.on.event("", "v1", "services", registry=registry, id="servicelb-service")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.node_ports, key_of(body), more["type"])
        _after(known, known.services, key_of(body), more["type"])


def _nodes(registry: Any, known: Known) -> None:
    @kopf.index("", "v1", "nodes", registry=registry, id="servicelb-nodes")
    async def note(body: Body, **_: Any) -> None:
        node = facts.node_of(body)
        known.put(known.nodes, node.name, node)

    @kopf.on.event("", "v1", "nodes", registry=registry, id="servicelb-node")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.nodes, body["metadata"]["name"], more["type"])


def _slices(registry: Any, known: Known) -> None:
    kind = ("discovery.k8s.io", "v1", "endpointslices")

    @kopf.index(*kind, registry=registry, id="servicelb-slices")
    async def note(body: Body, **_: Any) -> None:
        name = (body["metadata"].get("labels") or {}).get(SERVICE_LABEL, "")
        service = f"{body['metadata']['namespace']}/{name}"
        servers = facts.servers_of(body) if service == API_SERVERS else frozenset()
        found = (service, facts.ready_nodes(body), servers)
        known.put(known.slices, key_of(body), found if name else None)

    @kopf.on.event(*kind, registry=registry, id="servicelb-slice")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.slices, key_of(body), more["type"])


def _pods(registry: Any, known: Known, namespace: str) -> None:
    @kopf.index("", "v1", "pods", registry=registry, id="servicelb-pods")
    async def note(body: Body, **_: Any) -> None:
        known.put(known.pods, key_of(body), facts.pod_of(body, namespace))

    @kopf.on.event("", "v1", "pods", registry=registry, id="servicelb-pod")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.pods, key_of(body), more["type"])


def _daemonsets(registry: Any, known: Known, namespace: str) -> None:
    @kopf.index("apps", "v1", "daemonsets", registry=registry, id="servicelb-daemonsets")
    async def note(body: Body, **_: Any) -> None:
        if body["metadata"]["namespace"] == namespace:
            name = body["metadata"]["name"]
            known.put(known.daemonsets, name, daemonset.found_of(body))

    @kopf.on.event("apps", "v1", "daemonsets", registry=registry, id="servicelb-daemonset")
    async def seen(body: Body, **more: Any) -> None:
        if body["metadata"]["namespace"] == namespace:
            _after(known, known.daemonsets, body["metadata"]["name"], more["type"])


def _after(known: Known, kind: dict[str, Any], key: str, event_type: str | None) -> None:
    """``event_type`` None: from a listing, which also tells what is there no more."""
    if event_type == "DELETED":
        known.put(kind, key, None)
    else:
        known.seen(kind, key, listed=event_type is None)
    known.sync()
