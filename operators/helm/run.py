"""Joins the parts of the Helm operator."""

from typing import Any

from operators.base import Parts
from operators.helm import choose, handlers
from operators.helm.apply import Charts
from operators.helm.process import Runner
from operators.queue import Queue


class HelmOperator:
    def __init__(self, parts: Parts) -> None:
        config = parts.config
        seen = {**config.proxy, "PATH": config.path, "PYTHONPATH": str(config.program_dir)}
        helm = choose.helm(config, Runner(seen))
        charts = Charts(config, parts.client, helm, now=parts.now, clock=parts.clock)
        self._queue = Queue("HelmChart", charts.reconcile)

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._queue.add)

    async def run(self) -> None:
        await self._queue.run()


operator = HelmOperator
