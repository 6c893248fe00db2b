"""
What kopf sees of plans, Nodes and Pods becomes facts, and keys to look at.

Plans and nodes are noted by kopf's index handlers: it calls no other handler before both were
listed, so no request is taken back only because its plan came last. Of pods nothing is kept:
they say when a drain, a Job or a check of pods is worth another look.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kopf

from operators.upgrade.known import Known
from operators.upgrade.spec import GROUP, PLURAL, VERSION

Body = Mapping[str, Any]
Told = Callable[[str], None]


def register(registry: Any, known: Known, pod_changed: Told) -> None:
    # Coroutines, because kopf takes plain functions to threads.
    @kopf.index(GROUP, VERSION, PLURAL, registry=registry, id="upgrade-plans")
    async def note_plan(body: Body, **_: Any) -> None:
        known.put_plan(body)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="upgrade-plan")
    async def plan(body: Body, **more: Any) -> None:
        _after(known, known.plans, body, more["type"])

    @kopf.index("", "v1", "nodes", registry=registry, id="upgrade-nodes")
    async def note_node(body: Body, **_: Any) -> None:
        known.put_node(body)

    @kopf.on.event("", "v1", "nodes", registry=registry, id="upgrade-node")
    async def node(body: Body, **more: Any) -> None:
        _after(known, known.nodes, body, more["type"])

    @kopf.on.event("", "v1", "pods", registry=registry, id="upgrade-pods")
    async def pod(body: Body, **more: Any) -> None:
        if more["type"] is not None:  # of a listing nobody learns anything
            pod_changed((body.get("spec") or {}).get("nodeName") or "")


def register_foreign(
    registry: Any, changed: Told, followers: Callable[[Body], Iterable[str]]
) -> None:
    """
    Plans of system-upgrade-controller; ``changed`` gets ``<namespace>/<name>``.

    ``followers``: the Plans that an UpgradePlan concerns.
    """

    @kopf.on.event("upgrade.cattle.io", "v1", "plans", registry=registry, id="upgrade-foreign")
    async def foreign(body: Body, **_: Any) -> None:
        changed(f"{body['metadata']['namespace']}/{body['metadata']['name']}")

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="upgrade-translated")
    async def translated(body: Body, **_: Any) -> None:
        for key in followers(body):
            changed(key)


def _after(known: Known, kind: dict[str, Any], body: Body, event_type: str | None) -> None:
    """``event_type`` None: from a listing, which also tells what is there no more."""
    name = body["metadata"]["name"]
    if event_type == "DELETED":
        known.drop(kind, name)
    else:
        known.seen(kind, name, listed=event_type is None)
    known.sync()
