"""
Leases over one connection of this process.

What is asked every few seconds would keep the program behind :mod:`operators.client` alive
all the time. Connections, certificates and the token are as the kubeconfig says at each try.
"""

import json
import logging
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from operators.client import ApiError
from operators.config import Credentials, read_kubeconfig

LOG = logging.getLogger(__name__)
GROUP = "/apis/coordination.k8s.io/v1"
WATCH_SECONDS = 1800
CONNECT_SECONDS = 5.0


class LeaseApi:
    """An :class:`operators.election.Leases`. Time limits are the caller's."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._credentials: Credentials | None = None
        self._session: aiohttp.ClientSession | None = None

    async def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._request("GET", f"{_path(namespace)}/{name}")
        except ApiError as err:
            if err.code == 404:
                return None
            raise

    async def create(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("POST", _path(lease["metadata"]["namespace"]), lease)

    async def replace(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        metadata = lease["metadata"]
        path = f"{_path(metadata['namespace'])}/{metadata['name']}"
        return await self._request("PUT", path, lease)

    async def listed(self, namespace: str, label: str) -> dict[str, Any]:
        return await self._request("GET", f"{_path(namespace)}?labelSelector={label}")

    async def changed(self, namespace: str, label: str, version: str) -> None:
        """Returns when one of these Leases is not as it was at ``version``, or may not be."""
        query = f"watch=1&labelSelector={label}&resourceVersion={version}"
        path = f"{_path(namespace)}?{query}&timeoutSeconds={WATCH_SECONDS}"
        try:
            async with await self._send("GET", path) as answer:
                await answer.content.readline()
        except (aiohttp.ClientError, OSError) as err:
            raise ApiError(0, "", f"{type(err).__name__}: {err}") from err

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            async with await self._send(method, path, body) as answer:
                found = json.loads(await answer.read() or b"null")
        except (aiohttp.ClientError, OSError, ValueError) as err:
            # Another certificate or another CA may be there by the next time.
            await self.close()
            raise ApiError(0, "", f"{type(err).__name__}: {err}") from err
        status = found if isinstance(found, dict) else {}
        if answer.status >= 300:
            if answer.status == 401:
                await self.close()
            raise ApiError(
                answer.status, status.get("reason", ""), status.get("message", str(found))
            )
        return status

    async def _send(self, method: str, path: str, body: Any = None) -> aiohttp.ClientResponse:
        if self._session is None or self._credentials is None:
            self._credentials = read_kubeconfig(self._kubeconfig)
            self._session = _session(self._credentials)
        headers = {"Accept": "application/json"}
        if token := self._credentials.bearer():
            headers["Authorization"] = f"Bearer {token}"
        return await self._session.request(
            method, self._credentials.server.rstrip("/") + path, json=body, headers=headers
        )


def _path(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/leases"


def _session(credentials: Credentials) -> aiohttp.ClientSession:
    context = trust(credentials) if credentials.server.startswith("https:") else False
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=4),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
    )


def trust(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.ca or None)
    if credentials.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credentials.certificate:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # 0600
            file.write(credentials.certificate + "\n" + credentials.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context
