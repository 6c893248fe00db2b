"""
Gets small files from HTTP servers and folders, and asks for no more than is new.

Everything is bounded: a server that answers without end, or never, costs a plan nothing but its
turn. Addresses in messages are without the password that may be in them.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp

from operators.upgrade.base import OfferError

CONNECT_SECONDS, ALL_SECONDS = 10.0, 60.0
_KEPT = 16  # files that are remembered: one for each channel
_CHUNK = 64 << 10
_MOVED = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes 0-0/(\d+)")


class Missing(Exception):
    """There is no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    etag: str
    modified: str
    body: bytes
    beside: bytes  # its signature, which is fetched with it


def unreachable(place: str, why: object) -> OfferError:
    return OfferError("ChannelUnreachable", f"{shown(place)}: {why}")


def shown(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_web(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def folder_of(place: str) -> Path | None:
    """None: it is neither an absolute path nor ``file:///…``."""
    path = place
    if place.startswith("file:"):
        parts = urlsplit(place)
        path = parts.path if parts.netloc in {"", "localhost"} else ""
    return Path(path) if path.startswith("/") else None


class Web:
    """
    Its state: the files that did not change, and a connection that lives as long as a question.

    ``proxy``: HTTP_PROXY and its like, in either spelling.
    """

    def __init__(self, proxy: Mapping[str, str]) -> None:
        self._proxies = {
            name.lower().removesuffix("_proxy"): value for name, value in proxy.items() if value
        }
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    async def pair(
        self, url: str, beside: str, limit: int, *, afresh: bool = False
    ) -> tuple[bytes, bytes]:
        """
        A file and the one beside it; both as they were where the first has not changed.

        Raises :class:`Missing` where one of them is not there, and :class:`OfferError`.
        """
        kept = None if afresh else self._kept.get(url)
        headers = _conditions(kept) if kept else {"Cache-Control": "no-cache"} if afresh else {}
        async with self._session() as session:
            body, answer = await self._get(session, url, limit, headers)
            if body is None and kept:
                self._kept.move_to_end(url)
                return kept.body, kept.beside
            second, _ = await self._get(session, beside, limit, {"Cache-Control": "no-cache"})
        found = Kept(
            etag=answer.get("ETag", ""),
            modified=answer.get("Last-Modified", ""),
            body=body or b"",
            beside=second or b"",
        )
        self._kept[url] = found
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found.body, found.beside

    async def text(self, url: str, limit: int) -> str:
        """Raises :class:`Missing` and :class:`OfferError`."""
        async with self._session() as session:
            body, _ = await self._get(session, url, limit, {})
        return (body or b"").decode(errors="replace")

    async def size(self, url: str) -> int:
        """
        Of a file, 0 where the server does not say.

        Raises :class:`Missing` and :class:`OfferError`.
        """
        try:
            async with self._session() as session:
                async with session.head(url, allow_redirects=True, proxy=self._proxy(url)) as head:
                    _check(url, head.status, tolerated={403, 405, 501})
                    if head.status < 300:
                        return int(head.headers.get("Content-Length") or 0)
                # Some answer only to GET: those to whom an address was signed for.
                headers = {"Range": "bytes=0-0"}
                async with session.get(url, headers=headers, proxy=self._proxy(url)) as answer:
                    _check(url, answer.status)
                    total = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                    whole = answer.headers.get("Content-Length") if answer.status == 200 else None
                    return int(total[1] if total else whole or 0)
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise unreachable(url, str(err) or type(err).__name__) from err

    async def last_of(self, url: str) -> str:
        """
        The last part of where a channel server sends to: K3s's servers name a version so.

        A server that does not redirect is named by its own address. Raises :class:`OfferError`.
        """
        try:
            async with (
                self._session() as session,
                session.get(url, allow_redirects=False, proxy=self._proxy(url)) as answer,
            ):
                if not 200 <= answer.status < 400:
                    raise unreachable(url, f"the server answered {answer.status}")
                moved = answer.status in _MOVED
                target = urljoin(url, answer.headers.get("Location", "")) if moved else url
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise unreachable(url, str(err) or type(err).__name__) from err
        return urlsplit(target).path.rstrip("/").rpartition("/")[2]

    async def _get(
        self, session: aiohttp.ClientSession, url: str, limit: int, headers: Mapping[str, str]
    ) -> tuple[bytes | None, Mapping[str, str]]:
        """None: it has not changed."""
        try:
            async with session.get(url, headers=headers, proxy=self._proxy(url)) as answer:
                if answer.status == 304:
                    return None, answer.headers
                _check(url, answer.status)
                body = bytearray()
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    body += chunk
                    if len(body) > limit:
                        raise unreachable(url, f"is larger than {limit >> 10} KiB")
                return bytes(body), answer.headers
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise unreachable(url, str(err) or type(err).__name__) from err

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"User-Agent": "pinnace-upgrade"},
            timeout=aiohttp.ClientTimeout(total=ALL_SECONDS, sock_connect=CONNECT_SECONDS),
            connector=aiohttp.TCPConnector(limit=4),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        found = self._proxies.get(parts.scheme)
        host = parts.netloc.rpartition("@")[2]
        if not found or proxy_bypass_environment(host, self._proxies):
            return None
        return found if "://" in found else f"http://{found}"


def _conditions(kept: Kept) -> dict[str, str]:
    given = {"If-None-Match": kept.etag, "If-Modified-Since": kept.modified}
    return {name: value for name, value in given.items() if value}


def _check(url: str, status: int, tolerated: frozenset[int] | set[int] = frozenset()) -> None:
    if status in {404, 410}:
        raise Missing(shown(url))
    if status >= 300 and status not in tolerated:
        raise unreachable(url, f"the server answered {status}")


async def read(path: Path, limit: int) -> bytes:
    """Of a folder of this machine. Raises :class:`Missing` and :class:`OfferError`."""
    try:
        return await asyncio.to_thread(_read, path, limit)
    except FileNotFoundError as err:
        raise Missing(str(path)) from err
    except (OSError, ValueError) as err:
        raise unreachable(str(path), getattr(err, "strerror", None) or err) from err


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"is larger than {limit >> 10} KiB")
    return data
