"""Joins the parts of local-path storage."""

import asyncio
import logging
from typing import Any

from operators.base import Parts
from operators.localpath import handlers, paths
from operators.localpath.base import Object, Storage
from operators.localpath.capacity import Capacity
from operators.localpath.claims import Claims
from operators.localpath.handlers import CAPACITY, CLEAR_UP, CONFIGURATION, Seen
from operators.localpath.native import Native
from operators.localpath.pods import HelperPods
from operators.localpath.process import Programs
from operators.localpath.snapshots import Snapshots
from operators.localpath.state import State, read
from operators.localpath.tell import Teller
from operators.localpath.volumes import Volumes
from operators.queue import Queue

LOG = logging.getLogger(__name__)


class LocalPath:
    def __init__(self, parts: Parts) -> None:
        config = parts.config
        self._client = parts.client
        self._namespace = config.namespace
        self._default = paths.default(config.storage_dir)
        self._state = State(
            node=config.node_name if config.native else "",
            native=config.native,
            configuration=self._default,
        )
        self._pods = HelperPods(parts.client, self._state, namespace=config.namespace)
        programs = Programs(config.path, {"PYTHONPATH": str(config.program_dir)})
        self._disk = Native(
            programs, [config.python, "-m"], config.path, lambda: self._state.bases()
        )
        storage: Storage = self._disk if config.native else self._pods
        self._tell = Teller(parts.client, parts.now)
        self._claims = Claims(
            parts.client, storage, self._state, tell=self._tell, changed=self._room_changed
        )
        self._volumes = Volumes(
            parts.client, storage, self._state, tell=self._tell, changed=self._room_changed
        )
        self._snapshots = Snapshots(
            parts.client, storage, self._state, tell=self._tell, changed=self._room_changed
        )
        self._capacity = Capacity(parts.client, self._disk, self._state, namespace=config.namespace)
        self._queue = Queue("local-path", self._reconcile)
        # Apart, and one after the other: everything else waits for the first of them.
        self._whole = Queue("local-path", self._look, workers=1)
        self._configured = asyncio.Event()

    def register(self, registry: Any) -> None:
        seen = Seen(
            self._state,
            add=self._queue.add,
            do=self._whole.add,
            namespace=self._namespace,
        )
        handlers.register(registry, seen)
        if not self._state.native:
            handlers.register_pods(registry, self._pods.seen)

    async def run(self) -> None:
        self._whole.add(CONFIGURATION)
        self._whole.add(CLEAR_UP)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._whole.run())
            tasks.create_task(self._queue.run())

    async def _reconcile(self, key: str) -> float | None:
        await self._configured.wait()
        kind, _, name = key.partition(" ")
        if kind == "claim":
            return await self._claims.reconcile(name)
        if kind == "volume":
            await self._volumes.reconcile(name)
        elif kind == "snapshot":
            await self._snapshots.reconcile(name)
        elif kind == "content":
            await self._snapshots.reconcile_content(name)
        return None

    async def _look(self, key: str) -> None:
        if key == CONFIGURATION or not self._configured.is_set():
            await self._configure()
        if key == CAPACITY:
            if self._state.native:  # of another's node nothing is known
                await self._capacity.reconcile()
        elif key == CLEAR_UP:
            await self._volumes.clear_up()

    def _room_changed(self) -> None:
        self._whole.add(CAPACITY)

    async def _configure(self) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{paths.NAME}"
        body = await read(self._client, path)
        found = self._default if body is None else await self._parse(body)
        if found is not None and found != self._state.configuration:
            self._state.configuration = found
            self._state.changes += 1
            self._whole.add(CAPACITY)
            for claim in list(self._state.waiting):
                self._queue.add(f"claim {claim}")
        if not self._configured.is_set():
            if self._state.native:
                await self._disk.recover()
            self._configured.set()

    async def _parse(self, body: Object) -> paths.Configuration | None:
        """None: the last good one stays in force."""
        about = {"apiVersion": "v1", "kind": "ConfigMap", **body}
        try:
            found = paths.parse(body.get("data") or {})
        except paths.Invalid as err:
            await self._tell.warn(
                about, "InvalidConfiguration", f"{err}; the last valid configuration stays"
            )
            return None
        if found.ignored and self._state.native:
            names = ", ".join(found.ignored)
            await self._tell.warn(
                about,
                "ScriptsIgnored",
                f"{names}: nodes of Pinnace make and remove volumes themselves; for owner and"
                " permissions use userPattern, groupPattern and permPattern",
            )
        return found


operator = LocalPath
