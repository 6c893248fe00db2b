"""
What is known of plans and nodes, as the watches tell it and as our own writes were answered.

What was deleted while nobody watched is missing from the next listing: :mod:`operators.sweep`.
A heartbeat changes nothing here and costs no look.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from operators.sweep import Sweep
from operators.upgrade.objects import Node, node_of
from operators.upgrade.spec import Plan, plan_of

Body = Mapping[str, Any]


class Known:
    """``look``: called with the name of each plan that should be looked at, "" for nobody's."""

    def __init__(self, look: Callable[[str], None]) -> None:
        self._look = look
        self.synced = False  # plans and nodes were listed once
        self.plans: dict[str, Plan] = {}
        self.nodes: dict[str, Node] = {}
        self._sweeps: dict[int, Sweep] = {}

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
        """``listed``: see :meth:`operators.sweep.Sweep.seen`."""
        sweep = self._sweeps.get(id(kind))
        if sweep is None:
            sweep = self._sweeps[id(kind)] = Sweep(partial(self._sweep, kind))
        sweep.seen(key, listed=listed)

    def _sweep(self, kind: dict[str, Any], found: set[str]) -> None:
        for key in [key for key in kind if key not in found]:
            self.drop(kind, key)
