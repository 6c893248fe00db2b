"""
What kopf sees of Services, Nodes and EndpointSlices becomes facts, and a key to look at.

The facts are noted by kopf's index handlers: it calls no other handler before all
kinds were listed, so no address is taken back only because the nodes came last.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from operators.servicelb import plan
from operators.servicelb.apply import Known

SERVICE_LABEL = "kubernetes.io/service-name"
Body = Mapping[str, Any]


def register(registry: Any, known: Known) -> None:
    # Coroutines, because kopf takes plain functions to threads.
    _services(registry, known)
    _nodes(registry, known)
    _slices(registry, known)


def _services(registry: Any, known: Known) -> None:
    @kopf.index("", "v1", "services", registry=registry, id="servicelb-services")
    async def note(body: Body, **_: Any) -> None:
        service = plan.service_of(body)
        wanted = service if plan.concerns_us(service, body) else None
        known.put(known.services, service.key, wanted)

    @kopf.on.event("", "v1", "services", registry=registry, id="servicelb-service")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.services, _key(body), more["type"])


def _nodes(registry: Any, known: Known) -> None:
    @kopf.index("", "v1", "nodes", registry=registry, id="servicelb-nodes")
    async def note(body: Body, **_: Any) -> None:
        node = plan.node_of(body)
        known.put(known.nodes, node.name, node)

    @kopf.on.event("", "v1", "nodes", registry=registry, id="servicelb-node")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.nodes, body["metadata"]["name"], more["type"])


def _slices(registry: Any, known: Known) -> None:
    kind = ("discovery.k8s.io", "v1", "endpointslices")

    @kopf.index(*kind, registry=registry, id="servicelb-slices")
    async def note(body: Body, **_: Any) -> None:
        name = (body["metadata"].get("labels") or {}).get(SERVICE_LABEL, "")
        facts = (f"{body['metadata']['namespace']}/{name}", plan.ready_nodes(body))
        known.put(known.slices, _key(body), facts if name else None)

    @kopf.on.event(*kind, registry=registry, id="servicelb-slice")
    async def seen(body: Body, **more: Any) -> None:
        _after(known, known.slices, _key(body), more["type"])


def _after(known: Known, kind: dict[str, Any], key: str, event_type: str | None) -> None:
    """``event_type`` None: from a listing."""
    if event_type == "DELETED":
        known.put(kind, key, None)
    elif key in kind:
        known.seen(kind, key, listed=event_type is None)
    known.sync()


def _key(body: Body) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
