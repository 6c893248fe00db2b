"""
Watch one ConfigMap for as long as a chart waits for what it says.

The authorities of a repository may be in a ConfigMap. To watch all of them, as is done with
Secrets, would bring every ConfigMap of the cluster into this process, for a chart that
most nodes do not have; a chart that is as wanted needs no watch at all.
"""

import asyncio
import json
import logging
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from operators.config import Config, Credentials, read_kubeconfig

LOG = logging.getLogger(__name__)

WATCH_SECONDS = 3600
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0  # seconds between two tries to reach the API
LONGEST_LINE = 4 * 2**20  # bytes; where the API gives the whole object
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
# Also an answer that is none: KeyError and TypeError.
_NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError)
Wake = Callable[[str], None]


class Watcher:
    """``wake`` is called with a key once what it waits for is there, has changed or is gone."""

    def __init__(self, config: Config, wake: Wake) -> None:
        self._kubeconfig = config.kubeconfig
        self._wake = wake
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}  # path and its watch
        self._versions: dict[str, str] = {}  # that the key was woken for

    async def run(self) -> None:
        """Until cancelled; before that, nothing is watched."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    def wait_for(self, key: str, path: str) -> None:
        """``path``: of the ConfigMap; "": the key waits for nothing."""
        watched, task = self._tasks.get(key, ("", None))
        if watched == path:
            return
        if task:
            task.cancel()
            del self._tasks[key]
        if not path:
            self._versions.pop(key, None)
        elif self._group:
            self._tasks[key] = path, self._group.create_task(self._watch(key, path))

    async def _watch(self, key: str, path: str) -> None:
        clock, pause = asyncio.get_running_loop().time, FIRST_PAUSE
        while True:
            begun = clock()
            try:
                if await self._changed(key, path):
                    break
            except _NO_ANSWER as err:
                LOG.debug("%s: %s", path, err)
            if clock() - begun > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        del self._tasks[key]
        self._wake(key)

    async def _changed(self, key: str, path: str) -> bool:
        """False: the watch ended, as each one does sometime."""
        found = await asyncio.to_thread(read_kubeconfig, self._kubeconfig)
        folder, _, name = path.rpartition("/")
        query = {"watch": "1", "timeoutSeconds": str(WATCH_SECONDS)}
        query["fieldSelector"] = f"metadata.name={name}"
        headers = {"Accept": METADATA_ONLY}
        if token := await asyncio.to_thread(found.bearer):
            headers["Authorization"] = f"Bearer {token}"
        connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(_tls, found))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(
                found.server + folder, params=query, headers=headers, read_bufsize=LONGEST_LINE
            ) as answer,
        ):
            answer.raise_for_status()
            async for line in answer.content:
                if self._is_news(key, json.loads(line)):
                    return True
        return False

    def _is_news(self, key: str, event: Any) -> bool:
        # A watch begins with what is there, which the look that failed may have seen or not.
        if event["type"] not in {"ADDED", "MODIFIED", "DELETED"}:
            return False
        version = f"{event['type'] == 'DELETED'}/{event['object']['metadata']['resourceVersion']}"
        if self._versions.get(key) == version:
            return False
        self._versions[key] = version
        return True


def _tls(found: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=found.ca or None)
    if found.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if found.certificate:
        # The ssl module takes these from files only.
        with tempfile.TemporaryDirectory(prefix="helm-") as folder:
            path = Path(folder) / "client.pem"
            path.touch(0o600)
            path.write_text(f"{found.certificate}\n{found.key}")
            context.load_cert_chain(path)
    return context
