"""Joins the parts of the Helm operator."""

import asyncio
from pathlib import Path
from typing import Any

from operators.base import Parts
from operators.helm import choose, handlers
from operators.helm.apply import Charts
from operators.helm.drift import LiveChecker
from operators.helm.pace import Pace
from operators.helm.process import Runner, slots
from operators.helm.watch import Watcher
from operators.queue import Queue

MEMORY = Path("/proc/meminfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of the container, where there is one


class HelmOperator:
    def __init__(self, parts: Parts) -> None:
        config = parts.config
        seen = {**config.proxy, "PATH": config.path, "PYTHONPATH": str(config.program_dir)}
        self._runner = runner = Runner(
            seen, folder=config.run_dir / "helm", at_once=slots(MEMORY, MEMORY_LIMIT)
        )
        self._watcher = Watcher(config, lambda key: self._pace.add(key))
        charts = Charts(
            config,
            parts.client,
            choose.helm(config, runner),
            checker=LiveChecker(config, runner),
            wait_for=self._watcher.wait_for,
            now=parts.now,
            clock=parts.clock,
        )
        self._queue = Queue("HelmChart", charts.reconcile)
        self._pace = Pace(self._queue.add)

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._pace.add)

    async def run(self) -> None:
        await self._runner.begin()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watcher.run())
                tasks.create_task(self._queue.run())
        finally:
            self._pace.close()


operator = HelmOperator
