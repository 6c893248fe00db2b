"""A child as the node daemon forks it: it reports its lives and its orderly stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    report = Path(settings["report"])
    lives = report.read_text().count("child ") + 1 if report.exists() else 1
    with report.open("a", buffering=1) as file:
        asyncio.run(_live(file, lives, ready))
    return 0


async def _live(file: TextIO, lives: int, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ready()
    file.write(f"child {os.getpid()}\nlife {lives}\n")
    await stop.wait()
    file.write("orderly stop\n")
