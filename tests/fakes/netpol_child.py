"""
``RUN-DIR CLOSED``: the network policy operator of the network namespace it is started in.

The real enforcer, gate and kernel; what else comes from kopf's watches comes as lines of
JSON on standard input, each answered by a line: ``{"pod": …}``, ``{"pod-deleted": …}``,
``{"policy": …}``, ``{"policy-deleted": …}``, ``{"namespace": …}``, ``{"node": …}``, ``{"listed":
[…]}`` (policies that the API has, whether or not the watch told of them), ``{"begin":
true}`` and ``{"settle": true}``.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from operators.netpol.apply import Enforcer
from operators.netpol.denials import Denials
from operators.netpol.facts import Facts
from operators.netpol.gate import Gate
from operators.netpol.kernel import Kernel
from operators.netpol.plan import Compiler

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Child:
    def __init__(self, run_dir: Path, *, closed: bool) -> None:
        kernel = Kernel(path=PATH)
        self._enforcer = Enforcer(Compiler("n1", dns="10.43.0.10"), kernel, clock=time.monotonic)
        self._facts = Facts(self._enforcer, closed=closed)
        self._gate = Gate(self._enforcer, self._of, kernel.why_not_bridged, run_dir)
        self._denials = Denials(self._enforcer.compiler)
        self._listed: list[dict[str, Any]] = []

    async def _of(self, namespace: str) -> list[dict[str, Any]]:
        return [body for body in self._listed if body["metadata"]["namespace"] == namespace]

    async def run(self) -> None:
        reader = asyncio.StreamReader(limit=2**24)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(part.run())
                for part in (self._enforcer, self._gate, self._denials)
            ]
            while line := await reader.readline():
                answer = await self._do(json.loads(line))
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
            for task in running:
                task.cancel()

    async def _do(self, told: dict[str, Any]) -> Any:
        ((what, body),) = told.items()
        match what:
            case "listed":
                self._listed = body
            case "begin":
                self._facts.listed()
            case "settle":
                return await self._enforcer.settle()
            case _:
                getattr(self._facts, what.replace("-", "_"))(body)
        return ""


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(Child(Path(sys.argv[1]), closed=sys.argv[2] == "closed").run())
