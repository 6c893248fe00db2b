"""Joins the parts of the network policy operator."""

import asyncio
import logging
from typing import Any

from operators.base import Parts
from operators.netpol import handlers
from operators.netpol.apply import Enforcer
from operators.netpol.denials import Denials
from operators.netpol.facts import Facts
from operators.netpol.gate import Gate
from operators.netpol.kernel import Kernel
from operators.netpol.plan import Compiler
from operators.netpol.policies import Listing

LOG = logging.getLogger(__name__)


class NetworkPolicies:
    def __init__(self, parts: Parts) -> None:
        config = parts.config
        self._native = config.native
        self._kernel = Kernel(path=config.path)
        self._compiler = Compiler(config.node_name, dns=config.cluster_dns)
        self._enforcer = Enforcer(self._compiler, self._kernel, clock=parts.clock)
        self._listing = Listing(config.kubeconfig)
        self._gate = Gate(
            self._enforcer, self._listing.of, self._kernel.why_not_bridged, config.run_dir
        )
        closed = config.network_policy_fail == "closed"
        self._facts = Facts(self._enforcer, closed=closed)

        if not config.node_name:
            LOG.error("network policies: the name of this node is missing, nothing is enforced")

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._facts)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._enforcer.run())
                tasks.create_task(Denials(self._compiler).run())
                if self._native:
                    tasks.create_task(self._gate.run())
        finally:
            await self._listing.close()


operator = NetworkPolicies
