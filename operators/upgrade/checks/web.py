"""
HTTP and TCP: somebody answers, and as was said.

A redirect is followed within the host that the user named, with the user's headers, and nowhere
else: whoever answers there decides nothing about where those headers go.
"""

import asyncio
import os
import ssl
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

import aiohttp

from operators.upgrade.checks.objects import Http, Tcp

BODY = 1 << 20  # bytes of it that are looked at
_CHUNK = 64 << 10
_REDIRECTS = 10
_MOVED = frozenset({301, 302, 303, 307, 308})
_AGENT = "pinnace-upgrade"


async def look(wanted: Http) -> str:
    """Why it is not so; "" if it is. Time limits are the caller's."""
    try:
        trust = await _trust(wanted)
        connector = aiohttp.TCPConnector(ssl=trust, limit=1, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _AGENT, **dict(wanted.headers)},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session:
            return await _ask(session, wanted)
    except (aiohttp.ClientError, OSError, ValueError) as err:
        return f"GET {wanted.url}: {str(err) or type(err).__name__}"


async def _ask(session: aiohttp.ClientSession, wanted: Http) -> str:
    url, away = wanted.url, ""
    for _ in range(_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as answer:
            target = urljoin(url, answer.headers.get("Location", ""))
            moved = answer.status in _MOVED and target != url
            if not moved or (away := _elsewhere(url, target)):
                return await _judge(answer, wanted, away)
        url = target
    return f"GET {wanted.url}: more than {_REDIRECTS} redirects"


def _elsewhere(url: str, target: str) -> str:
    """Where a redirect must not be followed to; "": it may."""
    here, there = urlsplit(url), urlsplit(target)
    unsafe = here.scheme == "https" and there.scheme != "https"
    if here.hostname != there.hostname or unsafe:
        return target
    return ""


async def _judge(answer: aiohttp.ClientResponse, wanted: Http, away: str) -> str:
    if not any(low <= answer.status <= high for low, high in wanted.expected):
        ranges = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in wanted.expected)
        also = f" (redirects to {away}, which is not followed)" if away else ""
        return f"GET {wanted.url} answered {answer.status}{also}, expected {ranges}"
    if wanted.contains and not await _contains(answer, wanted.contains.encode()):
        return f"GET {wanted.url}: {wanted.contains!r} is not in the answer"
    return ""


async def _contains(answer: aiohttp.ClientResponse, text: bytes) -> bool:
    seen = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        # Only what is new, and as much before as may belong to it.
        start = max(0, len(seen) - len(text) + 1)
        seen += chunk[: BODY - len(seen)]
        if seen.find(text, start) >= 0:
            return True
        if len(seen) >= BODY:
            return False
    return False


async def _trust(wanted: Http) -> ssl.SSLContext | bool:
    if not wanted.url.startswith("https:"):
        return False
    # The authorities of a whole machine take a while to read.
    context = await asyncio.to_thread(ssl.create_default_context, cadata=wanted.authorities or None)
    if wanted.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect(wanted: Tcp) -> str:
    """Somebody takes the connection. Why it is not so; "" if it is."""
    try:
        _, writer = await asyncio.open_connection(wanted.host, wanted.port)
    except (OSError, ValueError) as err:
        return f"{wanted.host} port {wanted.port}: {_short(err)}"
    writer.close()
    with suppress(OSError):  # it was there, which is all that was asked
        await writer.wait_closed()
    return ""


def _short(err: OSError | ValueError) -> str:
    """asyncio's own text does not say whether it was refused or nobody is there."""
    if isinstance(err, OSError) and err.errno and err.errno > 0:
        return os.strerror(err.errno)
    return getattr(err, "strerror", "") or str(err) or type(err).__name__
