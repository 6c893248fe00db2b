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
from node.update.rest import is_answered, needs_the_agent

LOG = logging.getLogger(__name__)
REQUEST = "upgrade.pinnace.dev/request"
REPORT = "upgrade.pinnace.dev/report"
SOCKET = "update.sock"
_LONGEST_LINE = 64 << 10
# Of a plain Debian, where a starter chose between two folders: see node/update/packages.py.
PACKAGE_SLOT, PACKAGES = Path("/run/pinnace-package/slot"), Path("/opt/pinnace")


def board() -> str:
    """
    Which bundles fit this machine; "": none, since it has one version of Pinnace only.

    Reads two small files, since who asks is there at idle.
    """
    try:
        if release.slot():
            found = release.read()
        else:
            slot = release.slot(PACKAGE_SLOT)
            found = release.read(PACKAGES / slot / "release.json") if slot else None
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
        if await asyncio.to_thread(needs_the_agent, around.folder):
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
        annotations = metadata.get("annotations") or {}
        request, report = annotations.get(REQUEST, ""), annotations.get(REPORT, "")
        if request == self._around.request:
            return
        self._around.request = request
        # One that stands there and was answered is nothing to load all the rest for.
        if self._updater is not None or (request and not is_answered(request, report)):
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
