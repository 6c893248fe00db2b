"""
What an idle node does about updates: it hears when there is one, and loads the rest then.

Three things begin one: a state file of an earlier start, a request in an annotation of the own
Node, which the agent follows anyway, and a person at ``<run>/update.sock``. Nothing else of this
folder is loaded before that.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.client.base import Change, Object
from controlplane.client.cache import Cache
from controlplane.client.http import HttpClient
from controlplane.objects.resources import NODES
from node.appliance import release
from node.config import Config

LOG = logging.getLogger(__name__)
REQUEST = "upgrade.pinnace.dev/request"
SOCKET = "update.sock"
_LONGEST_LINE = 64 << 10


def board() -> str:
    """
    Which bundles fit this machine; "": none, since it has one version of Pinnace only.

    Reads two small files, since who asks is there at idle.
    """
    try:
        found = release.read() if release.slot() else None
    except ValueError as err:
        LOG.error("%s", err)  # noqa: TRY400 - one line for people
        return ""
    return found.board if found is not None else ""


@dataclass(kw_only=True)
class Surroundings:
    """
    What the updater works with. ``hand_over`` ends the agent, and the daemon goes on alone.

    Its mutable state: what was heard, and an event that says so.
    """

    config: Config
    client: HttpClient
    cache: Cache
    record: Callable[[Object, str, str, str], None]
    now: Callable[[], datetime]
    hand_over: Callable[[], None]
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    request: str = ""  # the annotation; "": there is none

    @property
    def folder(self) -> Path:
        return self.config.data_dir / "update"


class UpdateWatch:
    """Runs beside everything else of the agent."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._begun = asyncio.Event()
        self._updater: Any = None  # node.update.run.Updater, once there is one

    async def run(self) -> None:
        """Until cancelled. What goes wrong with an update must not end the agent."""
        around = self._around
        if await asyncio.to_thread((around.folder / "state.json").exists):
            self._begun.set()
        unsubscribe = around.cache.subscribe([NODES], self._heard)
        path = around.config.run_dir / SOCKET
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, path=str(path), limit=_LONGEST_LINE)
        path.chmod(0o600)
        try:
            while True:
                await self._begun.wait()
                self._begun.clear()
                await self._update()
        finally:
            unsubscribe()
            server.close()
            path.unlink(missing_ok=True)

    def _heard(self, change: Change) -> None:
        if change.name != self._around.config.node_name:
            return
        metadata = (change.new or {}).get("metadata") or {}
        request = (metadata.get("annotations") or {}).get(REQUEST, "")
        if request != self._around.request:
            self._around.request = request
            self._begin()

    def _begin(self) -> None:
        self._begun.set()
        self._around.stirred.set()

    def _made(self) -> Any:
        if self._updater is None:
            module = importlib.import_module("node.update.run")
            self._updater = module.Updater(self._around)
        return self._updater

    async def _update(self) -> None:
        try:
            await self._made().run()
        except Exception:
            LOG.exception("the update is left until something happens")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._made().answer(reader, writer, self._begin)
        except (OSError, ValueError, asyncio.LimitOverrunError) as err:
            LOG.info("update.sock: %s", err)
        except Exception:
            LOG.exception("update.sock")
        finally:
            writer.close()
