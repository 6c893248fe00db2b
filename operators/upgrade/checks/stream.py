"""
A command in a container, through the API: the exec subresource over a WebSocket.

A message is one byte, which names a channel, and data: 1 is standard output, 2 standard error, 3
the end as a Status of the API. Source: KEP-4006 (v5.channel.k8s.io; v4 is the same for us).
"""

import json
from dataclasses import dataclass

import aiohttp

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
OUTPUT = 1 << 20  # bytes; who says more than this is told to stop
_SAID = 2048  # bytes of it that are kept: the last ones
_SHOWN = 200  # characters of its last line
_OUT, _ERR, _STATUS = 1, 2, 3
_HUNG_UP = "the connection ended before the command did"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    code: int  # of the program
    said: str = ""  # its last line
    error: str = ""  # why it has no exit code; then ``code`` is meaningless


async def run(session: aiohttp.ClientSession, url: str, token: str) -> End:
    """``url`` is that of the subresource, with its query; time limits are the caller's."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with session.ws_connect(
            "ws" + url.removeprefix("http"),
            protocols=PROTOCOLS,
            headers=headers,
            max_msg_size=OUTPUT,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        ) as socket:
            return await _follow(socket)
    except aiohttp.WSServerHandshakeError as err:
        return End(code=-1, error=f"the API answered {err.status}: {err.message}")
    except (aiohttp.ClientError, OSError) as err:
        return End(code=-1, error=f"{type(err).__name__}: {err}")


async def _follow(socket: aiohttp.ClientWebSocketResponse) -> End:
    tail, total = b"", 0
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STATUS:
            return end_of(data, _last_line(tail))
        if channel in {_OUT, _ERR}:
            total += len(data)
            tail = (tail + data)[-_SAID:]
            if total > OUTPUT:
                return End(code=-1, error=f"it wrote more than {OUTPUT >> 20} MiB")
    return End(code=-1, error=_HUNG_UP)


def end_of(data: bytes, said: str) -> End:
    """``data``: a Status."""
    try:
        status = json.loads(data)
        causes = (status.get("details") or {}).get("causes") or ()
        code = next((int(c["message"]) for c in causes if c.get("reason") == "ExitCode"), None)
    except (ValueError, KeyError, AttributeError, TypeError):
        return End(code=-1, error=f"an end that cannot be understood: {data[:_SHOWN]!r}")
    if status.get("status") == "Success":
        return End(code=0, said=said)
    if code is not None:
        return End(code=code, said=said)
    return End(code=-1, error=str(status.get("message") or status.get("reason") or "it failed"))


def _last_line(tail: bytes) -> str:
    lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:_SHOWN] if lines else ""
