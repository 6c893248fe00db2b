"""
What probes and lifecycle hooks do to a container: run a command, ask over HTTP, TCP or gRPC.

Each returns "" for success or the text that kubelet would show; nothing raises for a
container that misbehaves.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from node.cri.base import Runtime, RuntimeFailure
from node.cri.client import check_health

_MOST = 10 * 1024  # bytes of an answer that are read
_REDIRECTS = 10
_USER_AGENT = "kube-probe/1.36"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The container that an action is for."""

    runtime: Runtime
    container_id: str
    container: Mapping[str, Any]
    ip: str
    limit: float  # seconds


async def perform(action: Mapping[str, Any], target: Target) -> str:
    if "exec" in action:
        return await _exec(action["exec"].get("command", ()), target)
    if "httpGet" in action:
        return await _http(action["httpGet"], target)
    if "tcpSocket" in action:
        wanted = action["tcpSocket"]
        host = wanted.get("host") or target.ip
        return await _tcp(host, port_of(wanted["port"], target.container), target.limit)
    if "grpc" in action:
        wanted = action["grpc"]
        return await check_health(
            target.ip, wanted["port"], wanted.get("service") or "", target.limit
        )
    if "sleep" in action:
        await asyncio.sleep(action["sleep"]["seconds"])
        return ""
    return "missing handler"


def port_of(port: int | str, container: Mapping[str, Any]) -> int:
    """A number, or the name of one of the container's ports; 0 where there is none such."""
    if isinstance(port, int):
        return port
    for known in container.get("ports", ()):
        if known.get("name") == port:
            return int(known["containerPort"])
    return int(port) if port.isdigit() else 0


async def _exec(command: Sequence[str], target: Target) -> str:
    try:
        done = await target.runtime.exec_sync(target.container_id, command, target.limit)
    except TimeoutError:
        shown = " ".join(command)
        return f'command timed out: "{shown}" timed out after {target.limit:g}s'
    except RuntimeFailure as err:
        return str(err)
    if done.exit_code == 0:
        return ""
    output = (done.stdout + done.stderr)[:_MOST].decode(errors="replace")
    return output or f"command failed with exit code {done.exit_code}"


async def _tcp(host: str, port: int, limit: float) -> str:
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"dial tcp {host}:{port}: i/o timeout"
    except OSError as err:
        return f"dial tcp {host}:{port}: connect: {err.strerror or err}".lower()
    writer.close()
    return ""


async def _http(wanted: Mapping[str, Any], target: Target) -> str:
    scheme = wanted.get("scheme", "HTTP").lower()
    host = wanted.get("host") or target.ip
    port = port_of(wanted["port"], target.container)
    path = wanted.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {h["name"]: h["value"] for h in wanted.get("httpHeaders", ())}
    try:
        async with asyncio.timeout(target.limit):
            status = await _follow((scheme, host, port), path, headers)
    except TimeoutError:
        url = f"{scheme}://{_bracket(host)}:{port}{path}"
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return f'Get "{url}": {why}'
    except (OSError, ValueError, asyncio.IncompleteReadError) as err:
        url = f"{scheme}://{_bracket(host)}:{port}{path}"
        return f'Get "{url}": {err}'
    if 200 <= status < 400:
        return ""
    return f"HTTP probe failed with statuscode: {status}"


async def _follow(where: tuple[str, str, int], path: str, headers: Mapping[str, str]) -> int:
    """Redirects within the host are followed; one that leads elsewhere counts as success."""
    scheme, host, port = where
    for _ in range(_REDIRECTS):
        status, location = await _get((scheme, host, port), path, headers)
        if not (300 <= status < 400 and location):
            return status
        following = urlsplit(location)
        if following.hostname and following.hostname != host:
            return status
        scheme = following.scheme or scheme
        port = following.port or (port if not following.hostname else _DEFAULT[scheme])
        path = following.path or "/"
        if following.query:
            path += f"?{following.query}"
    raise ValueError(f"stopped after {_REDIRECTS} redirects")


_DEFAULT = {"http": 80, "https": 443}


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _get(
    where: tuple[str, str, int], path: str, headers: Mapping[str, str]
) -> tuple[int, str]:
    """(status, Location); one connection for one request, the body is left unread."""
    scheme, host, port = where
    given = {name.lower(): value for name, value in headers.items()}
    sent = {
        "host": given.pop("host", f"{_bracket(host)}:{port}"),
        "user-agent": given.pop("user-agent", _USER_AGENT),
        "accept": given.pop("accept", "*/*"),
        "connection": "close",
        **given,
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items() if v), "", ""]
    context = _no_check() if scheme == "https" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        location = ""
        for line in head[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "location":
                location = value.strip()
        return status, location
    finally:
        writer.close()


def _no_check() -> ssl.SSLContext:
    """Probes do not verify certificates: the address is the pod's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
