"""
Health checks for load balancers outside: does this node have an endpoint of the service?

One small HTTP listener for each service with a healthCheckNodePort, answering in
the form of upstream's proxy. Nothing runs while nobody asks.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from node.proxy.services import ServiceKey

log = logging.getLogger(__name__)
_REQUEST_LIMIT = 8192
_PATIENCE = 5.0  # seconds for a client to say what it wants


@dataclass(frozen=True, slots=True)
class Health:
    key: ServiceKey
    local: int  # endpoints on this node


class HealthServer:
    """
    Its mutable state: the listeners by port, and what each answers.

    A port that is taken is logged and tried again at the next change of services.
    """

    def __init__(self, host: str = "0.0.0.0") -> None:
        self._host = host
        self._listeners: dict[int, asyncio.Server] = {}
        self._answers: Mapping[int, Health] = {}

    async def update(self, answers: Mapping[int, Health]) -> None:
        """``answers`` by port: all that there should be from now on."""
        self._answers = answers
        for port in [port for port in self._listeners if port not in answers]:
            self._listeners.pop(port).close()
        for port, health in answers.items():
            if port in self._listeners:
                continue
            try:
                self._listeners[port] = await asyncio.start_server(
                    self._serve, self._host, port, limit=_REQUEST_LIMIT
                )
            except OSError as error:
                name = f"{health.key.namespace}/{health.key.name}"
                log.warning("cannot serve the health check of %s: %s", name, error)

    def close(self) -> None:
        for server in self._listeners.values():
            server.close()
        self._listeners.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await reader.readuntil(b"\r\n\r\n")
                port = writer.get_extra_info("sockname")[1]
                writer.write(answer(self._answers.get(port)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client's trouble
        finally:
            writer.close()


def answer(health: Health | None) -> bytes:
    """A whole HTTP response; 503 without local endpoints."""
    if health is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    status = "200 OK" if health.local else "503 Service Unavailable"
    body = json.dumps(
        {
            "service": {"namespace": health.key.namespace, "name": health.key.name},
            "localEndpoints": health.local,
            "serviceProxyHealthy": True,
        }
    ).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"X-Load-Balancing-Endpoint-Weight: {health.local}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
