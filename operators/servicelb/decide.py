"""
The three ways of deciding: the nodes forward, pods forward, or the operator is off.

Each makes a :class:`~operators.servicelb.plan.World` of what is known and asks the plan.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from operators.servicelb import listeners, plan
from operators.servicelb.claims import Claim, PortKey
from operators.servicelb.known import Known
from operators.servicelb.plan import Plan, World


class Deciding(Protocol):
    manager: str  # by which our writes are known again

    async def decide(self) -> Plan: ...


class Native:
    """The nodes forward themselves. ``here``: the node of this process, "" for none."""

    manager = "pinnace-servicelb"

    def __init__(self, known: Known, here: str) -> None:
        self._known = known
        self._here = here
        self._held: Mapping[Claim, str] | None = None

    async def decide(self) -> Plan:
        world = world_of(self._known, here=self._here)
        wanted = plan.newcomers(world, self._held)
        if wanted:
            found = await asyncio.to_thread(listeners.owners, wanted)
            world = world_of(self._known, here=self._here, listening=found)
        decided = plan.native(world, self._held)
        self._held = decided.held
        return decided


class Forwarded:
    """Pods forward."""

    manager = "pinnace-servicelb-pods"

    def __init__(self, known: Known, *, namespace: str, image: str) -> None:
        self._known = known
        self._namespace = namespace
        self._image = image

    async def decide(self) -> Plan:
        return plan.forwarded(
            world_of(self._known),
            self._known.daemonsets,
            namespace=self._namespace,
            image=self._image,
        )


class Withdrawn:
    """
    Disabled: takes back what was given, once, and gives nothing.

    What comes later is another controller's, whatever it looks like.
    """

    def __init__(self, known: Known, manager: str) -> None:
        self.manager = manager
        self._known = known
        self._services: frozenset[str] | None = None  # by uid: there when this began
        self._daemonsets: frozenset[str] = frozenset()

    async def decide(self) -> Plan:
        services = self._known.services.values()
        if self._services is None:
            self._services = frozenset(service.uid for service in services)
            self._daemonsets = frozenset(self._known.daemonsets)
        old = [service for service in services if service.uid in self._services]
        self._services = frozenset(service.uid for service in old if service.given)
        obsolete = sorted(self._daemonsets & self._known.daemonsets.keys())
        return Plan(changes=plan.withdrawals(old), held={}, obsolete=obsolete)


def world_of(
    known: Known, *, here: str = "", listening: Mapping[PortKey, str] | None = None
) -> World:
    local: dict[str, frozenset[str]] = {}
    api_servers: frozenset[Any] = frozenset()
    for service, nodes, servers in known.slices.values():
        local[service] = local.get(service, frozenset()) | nodes
        api_servers |= servers
    return World(
        services=list(known.services.values()),
        nodes=list(known.nodes.values()),
        local=local,
        pods=list(known.pods.values()),
        api_servers=api_servers,
        node_ports={port: key for key, ports in known.node_ports.items() for port in ports},
        listeners=listening or {},
        here=here,
    )
