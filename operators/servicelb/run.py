"""Joins the parts of the service load balancer."""

from typing import Any

from operators.base import Parts
from operators.queue import Queue
from operators.servicelb import handlers
from operators.servicelb.apply import EVERYTHING, Balancer
from operators.servicelb.decide import Deciding, Forwarded, Native, Withdrawn
from operators.servicelb.known import Known, Pace


class ServiceLoadBalancer:
    def __init__(self, parts: Parts) -> None:
        config = parts.config
        pace = Pace(lambda: self._queue.add(EVERYTHING), parts.clock)
        self._known = Known(pace.tell)
        self._deciding: Deciding
        if config.native:
            self._deciding = Native(self._known, config.node_name)
        else:
            self._deciding = Forwarded(
                self._known, namespace=config.namespace, image=config.servicelb_image
            )
        if "servicelb" in config.disable:
            self._deciding = Withdrawn(self._known, self._deciding.manager)
        balancer = Balancer(
            parts.client,
            self._known,
            self._deciding,
            namespace=config.namespace,
            now=parts.now,
        )
        self._queue = Queue("LoadBalancer", balancer.reconcile, workers=1)
        self._namespace = config.namespace
        self._daemonsets = not config.native

    def register(self, registry: Any) -> None:
        handlers.register(
            registry,
            self._known,
            namespace=self._namespace,
            manager=self._deciding.manager,
            daemonsets=self._daemonsets,
        )

    async def run(self) -> None:
        await self._queue.run()


operator = ServiceLoadBalancer
