"""
What kopf sees of policies, pods, namespaces and this node is noted.

kopf's index handlers do it: it calls no other handler before all kinds were listed, so
the first of those says that the kernel may follow.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from operators.netpol.facts import Facts, key_of

Body = Mapping[str, Any]


def register(registry: Any, facts: Facts) -> None:
    # Coroutines, because kopf takes plain functions to threads.
    _policies(registry, facts)
    _pods(registry, facts)
    _namespaces(registry, facts)
    _node(registry, facts)


def _policies(registry: Any, facts: Facts) -> None:
    kind = ("networking.k8s.io", "v1", "networkpolicies")

    @kopf.index(*kind, registry=registry, id="netpol-policies")
    async def note(body: Body, **_: Any) -> None:
        facts.policy(body)

    @kopf.on.event(*kind, registry=registry, id="netpol-policy")
    async def seen(body: Body, **more: Any) -> None:
        facts.policies.note(key_of(body), more["type"])
        if more["type"] == "DELETED":
            facts.policy_deleted(body)
        facts.listed()


def _pods(registry: Any, facts: Facts) -> None:
    @kopf.index("", "v1", "pods", registry=registry, id="netpol-pods")
    async def note(body: Body, **_: Any) -> None:
        facts.pod(body)

    @kopf.on.event("", "v1", "pods", registry=registry, id="netpol-pod")
    async def seen(body: Body, **more: Any) -> None:
        facts.pods.note(key_of(body), more["type"])
        if more["type"] == "DELETED":
            facts.pod_deleted(body)
        facts.listed()


def _namespaces(registry: Any, facts: Facts) -> None:
    @kopf.index("", "v1", "namespaces", registry=registry, id="netpol-namespaces")
    async def note(body: Body, **_: Any) -> None:
        facts.namespace(body)

    @kopf.on.event("", "v1", "namespaces", registry=registry, id="netpol-namespace")
    async def seen(body: Body, **more: Any) -> None:
        facts.namespaces.note(body["metadata"]["name"], more["type"])
        if more["type"] == "DELETED":
            facts.namespace_deleted(body)
        facts.listed()


def _node(registry: Any, facts: Facts) -> None:
    @kopf.index("", "v1", "nodes", registry=registry, id="netpol-nodes")
    async def note(body: Body, **_: Any) -> None:
        facts.node(body)
