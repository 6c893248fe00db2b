"""A child as the node daemon forks it: it reports its lives and its orderly stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    asyncio.run(_live(Path(settings["report"]), ready))
    return 0


async def _live(report: Path, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ready()
    with report.open("a") as file:
        lives = report.read_text().count("child ") + 1
        file.write(f"child {os.getpid()}\nlife {lives}\n")
        file.flush()
        await stop.wait()
        file.write("orderly stop\n")
