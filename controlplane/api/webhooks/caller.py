"""
Speaks to webhooks: one POST over TLS to a URL or to a Service.

A Service is resolved to one of its ready endpoints here, so that no service proxy is
needed on this machine; its certificate must be for ``<name>.<namespace>.svc``. The client
is made for the first call, and a connection is kept for the next ones for a while.
"""

import asyncio
import os
import ssl
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiohttp
import orjson
from yarl import URL

from controlplane.api import targets
from controlplane.api.call import Parts
from controlplane.api.server import NO_CHECK_TIME
from controlplane.objects.errors import StatusError
from controlplane.objects.moment import trusts_dates

_LARGEST_ANSWER = 16 * 2**20  # bytes
_KEPT_SECONDS = 30.0
_SHOWN = 1000  # characters of what a webhook says that is no answer


class CallError(Exception):
    """The webhook gave no answer; the text says why, in the words of upstream's client."""


@dataclass(frozen=True, slots=True)
class _Place:
    shown: str  # the address, as errors name it
    url: str  # where to connect
    server_name: str | None  # that the certificate must be for; None: the URL's host


class Caller:
    """``parts``: known only after the admission plugins that hold this are made."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(
        self, client: Mapping[str, Any], body: Mapping[str, Any], *, seconds: float
    ) -> dict[str, Any]:
        """``client``: a WebhookClientConfig. Raises :class:`CallError`."""
        try:
            place = self._place(client, seconds)
        except StatusError as err:
            raise CallError(f"failed to call webhook: {err.message}") from err
        try:
            async with asyncio.timeout(seconds):
                dated = trusts_dates(self._parts().clock())
                trust = _trust(client.get("caBundle") or "", dated=dated)
                return await self._send(place, trust, body)
        except TimeoutError as err:
            why = "context deadline exceeded"
            raise CallError(f'failed to call webhook: Post "{place.shown}": {why}') from err
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise CallError(f'failed to call webhook: Post "{place.shown}": {_told(err)}') from err

    async def _send(
        self, place: _Place, trust: ssl.SSLContext, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        async with self._client().post(
            URL(place.url, encoded=True),
            data=orjson.dumps(body),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            ssl=trust,
            server_hostname=place.server_name,
            allow_redirects=False,
        ) as answer:
            data = await answer.content.read(_LARGEST_ANSWER)
            if not answer.content.at_eof():
                raise CallError(f"failed to call webhook: more than {_LARGEST_ANSWER} bytes")
            if answer.status != 200:
                raise CallError(f"failed to call webhook: {_refusal(answer.status, data)}")
        return _decoded(data)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _place(self, client: Mapping[str, Any], seconds: float) -> _Place:
        asked = f"timeout={seconds:.0f}s"
        if service := client.get("service"):
            name, namespace = service["name"], service["namespace"]
            port, path = service.get("port") or 443, service.get("path") or "/"
            target = targets.service_target(self._parts(), namespace, f"https:{name}:{port}")
            host = f"{name}.{namespace}.svc"
            question = f"/{path.lstrip('/')}?{asked}"
            return _Place(f"https://{host}:{port}{question}", target.origin + question, host)
        url = str(client.get("url") or "")
        url += ("&" if "?" in url else "?") + asked
        return _Place(url, url, None)


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CallError("failed to call webhook: the answer is no JSON object")
    return answer


def _told(err: Exception) -> str:
    """In Go's words, without what aiohttp shows of its own objects."""
    if isinstance(err, aiohttp.ClientConnectorCertificateError):
        why = getattr(err.certificate_error, "verify_message", err.certificate_error)
        return f"tls: failed to verify certificate: {why}"
    if isinstance(err, aiohttp.ClientConnectorError):
        known = err.os_error.errno is not None and not isinstance(err, aiohttp.ClientSSLError)
        why = os.strerror(err.os_error.errno or 0).lower() if known else str(err.os_error)
        return f"dial tcp {err.host}:{err.port}: connect: {why}"
    return str(err)


def _refusal(status: int, data: bytes) -> str:
    if status == 404:
        return "the server could not find the requested resource"
    said = data[:_SHOWN].decode(errors="replace").strip() or f"status {status}"
    return f'an error on the server ("{said}") has prevented the request from succeeding'


@lru_cache(maxsize=32)
def _trust(bundle: str, *, dated: bool = True) -> ssl.SSLContext:
    """
    ``bundle``: PEM in base64; without one, the authorities of this machine. ValueError.

    Not ``dated``: what is of the bundle counts, whatever the time.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if bundle:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Certificates of many webhooks are of an authority of their own, made by hand.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not dated:
            context.verify_flags |= NO_CHECK_TIME
        try:
            context.load_verify_locations(cadata=b64decode(bundle).decode())
        except (ssl.SSLError, UnicodeDecodeError, ValueError) as err:
            raise ValueError(f"unable to load root certificates: {err}") from err
    context.set_alpn_protocols(["http/1.1"])
    return context
