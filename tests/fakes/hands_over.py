"""A child that asks for everything to end once it is ready, and what is run aside after it."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HAND_OVER = 75


def main(settings: Mapping[str, Any], ready: Callable[[], None] | None = None) -> int:
    """With ``ready`` it is a child of the supervisor, without it is run aside."""
    with Path(settings["report"]).open("a", buffering=1) as report:
        if ready is None:
            report.write(f"aside of {os.getppid()}\n")
            if settings.get("raises"):
                raise OSError("for the test")
            return int(settings["code"])
        asyncio.run(_live(ready))
        report.write("handed over\n")
    return HAND_OVER


async def _live(ready: Callable[[], None]) -> None:
    ready()
