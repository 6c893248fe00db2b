"""
What kopf sees becomes keys to look at, and most of it nothing: bound claims, volumes in use,
snapshots that are ready.
"""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from operators.localpath import helperplan, paths, plan, snapshotplan
from operators.localpath.base import PROVISIONER
from operators.localpath.state import State

Body = Mapping[str, Any]
Add = Callable[[str], None]
# Keys of what is looked at as a whole.
CONFIGURATION, CAPACITY, CLEAR_UP = "configuration", "capacity", "clear up"


class Seen:
    """``add`` gets "<kind> <key>" of one object, ``do`` one of the three keys above."""

    def __init__(self, state: State, *, add: Add, do: Add, namespace: str) -> None:
        self._state = state
        self._add = add
        self._do = do
        self._namespace = namespace
        self._nodes: dict[str, tuple[Any, ...]] = {}

    def claim(self, body: Body, *, gone: bool) -> None:
        if not plan.is_for_us(body):
            return
        if gone:
            self._state.abroad.discard(_key(body))
            if not body["spec"].get("volumeName"):
                self._do(CLEAR_UP)
            return
        chosen = plan.notes_of(body).get(plan.CLAIM_NODE)
        self._state.abroad.discard(_key(body))
        if plan.wants_volume(body):
            if not self._state.native or chosen in {None, self._state.node}:
                self._add(f"claim {_key(body)}")
                return
            self._state.abroad.add(_key(body))
            if chosen not in self._nodes:
                self._add(f"claim {_key(body)}")
        elif plan.wants_more(body):
            self._add(f"claim {_key(body)}")

    def volume(self, body: Body, *, gone: bool) -> None:
        volume = plan.volume_of(body)
        if volume is None or gone:
            self._state.elsewhere.discard(body["metadata"]["name"])
            return
        if plan.wants_removal(volume) or plan.wanted_finalizers(volume) is not None:
            self._add(f"volume {volume.name}")

    def storage_class(self, body: Body, *, gone: bool) -> None:
        name = body["metadata"]["name"]
        known = self._state.classes.pop(name, None)
        facts = None
        if not gone and body["provisioner"] == PROVISIONER:
            facts = {"metadata": {"name": name}, "parameters": dict(body.get("parameters") or {})}
            self._state.classes[name] = facts
        if known != facts:
            self._do(CAPACITY)
        if known or facts:
            self._retry()

    def snapshot(self, body: Body, *, gone: bool) -> None:
        if gone:
            self._add(f"content {snapshotplan.content_name(body)}")
        elif snapshotplan.wants_look(body):
            self._add(f"snapshot {_key(body)}")
        else:
            self._retry()  # a claim may wait to be made of it

    def content(self, body: Body, *, gone: bool) -> None:
        if body["spec"].get("driver") != PROVISIONER:
            return
        if gone or snapshotplan.is_deleting(body):
            reference = body["spec"]["volumeSnapshotRef"]
            self._add(f"content {body['metadata']['name']}")
            self._add(f"snapshot {reference['namespace']}/{reference['name']}")

    def node(self, body: Body, *, gone: bool) -> None:
        metadata = body["metadata"]
        name = metadata["name"]
        if gone:
            self._nodes.pop(name, None)
            for volume in list(self._state.elsewhere):
                self._add(f"volume {volume}")
            for claim in list(self._state.abroad):
                self._add(f"claim {claim}")
            return
        conditions = (body.get("status") or {}).get("conditions") or ()
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        facts = (metadata["uid"], hash(frozenset((metadata.get("labels") or {}).items())), ready)
        if self._nodes.get(name) == facts:
            return
        self._nodes[name] = facts
        if name == self._state.node:
            self._state.labels = dict(metadata.get("labels") or {})
        self._retry()
        if name == self._state.node:
            self._do(CAPACITY)

    def config_map(self, body: Body) -> None:
        metadata = body["metadata"]
        if (metadata["namespace"], metadata["name"]) == (self._namespace, paths.NAME):
            self._do(CONFIGURATION)

    def _retry(self) -> None:
        self._state.changes += 1
        for claim in list(self._state.waiting):
            self._add(f"claim {claim}")


def register(registry: Any, seen: Seen) -> None:
    # Coroutines, because kopf takes plain functions to threads.
    @kopf.on.event("", "v1", "persistentvolumeclaims", registry=registry, id="localpath-claims")
    async def claim(body: Body, **more: Any) -> None:
        seen.claim(body, gone=more["type"] == "DELETED")

    @kopf.on.event("", "v1", "persistentvolumes", registry=registry, id="localpath-volumes")
    async def volume(body: Body, **more: Any) -> None:
        seen.volume(body, gone=more["type"] == "DELETED")

    @kopf.on.event(
        "storage.k8s.io", "v1", "storageclasses", registry=registry, id="localpath-classes"
    )
    async def storage_class(body: Body, **more: Any) -> None:
        seen.storage_class(body, gone=more["type"] == "DELETED")

    @kopf.on.event("", "v1", "nodes", registry=registry, id="localpath-nodes")
    async def node(body: Body, **more: Any) -> None:
        seen.node(body, gone=more["type"] == "DELETED")

    @kopf.on.event("", "v1", "configmaps", registry=registry, id="localpath-configuration")
    async def config_map(body: Body, **_: Any) -> None:
        seen.config_map(body)

    group = ("snapshot.storage.k8s.io", "v1")

    @kopf.on.event(*group, "volumesnapshots", registry=registry, id="localpath-snapshots")
    async def snapshot(body: Body, **more: Any) -> None:
        seen.snapshot(body, gone=more["type"] == "DELETED")

    @kopf.on.event(*group, "volumesnapshotcontents", registry=registry, id="localpath-contents")
    async def content(body: Body, **more: Any) -> None:
        seen.content(body, gone=more["type"] == "DELETED")


def register_pods(registry: Any, seen: Callable[[Body], None]) -> None:
    """Helper pods: only where there are any."""
    labels = {helperplan.VOLUME: kopf.PRESENT}

    @kopf.on.event("", "v1", "pods", labels=labels, registry=registry, id="localpath-pods")
    async def pod(body: Body, **_: Any) -> None:
        seen(body)


def _key(body: Body) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
