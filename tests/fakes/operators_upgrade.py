"""
The checks and drains of the upgrade operator as a program, for tests of a node in its own network.

``python -m tests.fakes.operators_upgrade KUBECONFIG`` reads one JSON object, ``{"checks": [...]}``
or ``{"drain": {...}, "since": "<RFC 3339>"}``, for the node "pi", and writes what came of each.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operators.client import WriterClient
from operators.upgrade.checks.run import HealthChecks
from operators.upgrade.drain import NodeDrains
from tests.fakes.operators_config import config

ROOT = Path(__file__).parent.parent.parent


async def answer(asked: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    told = config(kubeconfig=kubeconfig, python=sys.executable, program_dir=ROOT)
    client = WriterClient(told)
    try:
        if "checks" in asked:
            checks = HealthChecks(client, kubeconfig=kubeconfig)
            found = [await checks.verdict([check], node="pi") for check in asked["checks"]]
            return {"messages": [verdict.message for verdict in found]}
        drains = NodeDrains(client, now=lambda: datetime.now(UTC))
        since = datetime.fromisoformat(asked["since"])
        passed = asdict(await drains.drain("pi", asked["drain"], since=since))
        return {**passed, "retry_at": str(passed["retry_at"])}
    finally:
        await client.close()


if __name__ == "__main__":
    found = asyncio.run(answer(json.load(sys.stdin), Path(sys.argv[1])))
    sys.stdout.write(json.dumps(found))
