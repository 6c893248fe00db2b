"""
What is known of plans and nodes, as the watches tell it and as our own writes were answered.

kopf tells of what was deleted only while it watches. After a gap it lists anew, and what then is
missing has gone: hence :meth:`Known.seen`. A heartbeat changes nothing here and costs no look.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operators.upgrade.objects import Node, node_of
from operators.upgrade.spec import Plan, plan_of

LISTING_SECONDS = 5.0
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Listing:
    """Of one kind, until nothing more came for a while."""

    timer: asyncio.TimerHandle
    keys: set[str]


class Known:
    """``look``: called with the name of each plan that should be looked at, "" for nobody's."""

    def __init__(self, look: Callable[[str], None]) -> None:
        self._look = look
        self.synced = False  # plans and nodes were listed once
        self.plans: dict[str, Plan] = {}
        self.nodes: dict[str, Node] = {}
        self._listings: dict[int, _Listing] = {}

    @property
    def idle(self) -> bool:
        """There is no plan, and no node that is half way for one that is gone."""
        return not self.plans and not any(
            node.progress is not None and node.progress.active for node in self.nodes.values()
        )

    def sync(self) -> None:
        if not self.synced:
            self.synced = True
            self.look_at_all()

    def look_at_all(self) -> None:
        if self.synced:
            for name in (*self.plans, ""):
                self._look(name)

    def put_plan(self, body: Body) -> None:
        plan = plan_of(body)
        before = self.plans.get(plan.name)
        if before is not None and before.resource_version == plan.resource_version:
            return
        self.plans[plan.name] = plan
        if before is None or (before.uid, before.generation) != (plan.uid, plan.generation):
            self.look_at_all()  # it may have taken nodes of others, or let them go
        elif self.synced and before.status != plan.status:
            self._look(plan.name)

    def put_node(self, body: Body) -> None:
        node = node_of(body)
        same = self.nodes.get(node.name) == node
        self.nodes[node.name] = node  # equal ones may be of another version
        if not same:
            self.look_at_all()

    def drop(self, kind: dict[str, Any], name: str) -> None:
        if kind.pop(name, None) is not None:
            if kind is self.plans and self.synced:
                self._look(name)
            self.look_at_all()

    def seen(self, kind: dict[str, Any], key: str, *, listed: bool) -> None:
        """``listed``: ``key`` came in a listing; otherwise in a watch, and is there too."""
        under_way = self._listings.get(id(kind))
        if listed:
            if under_way:
                under_way.timer.cancel()
            loop = asyncio.get_running_loop()
            timer = loop.call_later(LISTING_SECONDS, self._sweep, kind)
            under_way = _Listing(timer, under_way.keys if under_way else set())
            self._listings[id(kind)] = under_way
        if under_way:
            under_way.keys.add(key)

    def _sweep(self, kind: dict[str, Any]) -> None:
        found = self._listings.pop(id(kind)).keys
        for key in [key for key in kind if key not in found]:
            self.drop(kind, key)
