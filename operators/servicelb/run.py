"""Joins the parts of the service load balancer."""

from typing import Any

from operators.base import Parts
from operators.queue import Queue
from operators.servicelb import handlers
from operators.servicelb.apply import EVERYTHING, Addresses, Known


class ServiceLoadBalancer:
    def __init__(self, parts: Parts) -> None:
        self._known = Known(lambda: self._queue.add(EVERYTHING))
        addresses = Addresses(
            parts.client,
            self._known,
            disabled="servicelb" in parts.config.disable,
            now=parts.now,
        )
        self._queue = Queue("LoadBalancer", addresses.reconcile, workers=1)

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._known)

    async def run(self) -> None:
        await self._queue.run()


operator = ServiceLoadBalancer
