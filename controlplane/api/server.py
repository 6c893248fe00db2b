"""
The listener: TLS, client certificates, keep-alive, and an orderly end.

Client certificates are asked for but not demanded: tokens are as good, and
probes come with nothing. TLS buffers are kept small, since hundreds of watches
stay open and asyncio's default reserves a quarter of a megabyte for each.
"""

import asyncio
import logging
import socket
import ssl
from asyncio import sslproto
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from controlplane.api.app import ApiServer, audit_id

_TLS_BUFFER = 16 * 1024
_STOP_SECONDS = 5.0
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME


def server_tls(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """
    For the listener: PEM files; ``client_ca`` may hold several authorities.

    Blocks on the files: call it before serving, or in a thread.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    # Who was somebody does not cease to be it because the clock was set: see authn.
    context.verify_flags |= NO_CHECK_TIME
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_tls(certificate: Path, key: Path, server_ca: Path | None) -> ssl.SSLContext:
    """
    For speaking to kubelets with a client certificate.

    Theirs must be of the CA and for the address that was asked: one node must not pose
    as another. Without a CA nothing is checked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if server_ca is not None:
        context.load_verify_locations(server_ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificate, key)
    return context


class Listener:
    """An API server on its sockets. :meth:`start`, then :meth:`stop`; used once."""

    def __init__(self, api: ApiServer, *, tls: ssl.SSLContext | None) -> None:
        """``tls`` None serves plain HTTP: tests and benchmarks."""
        self._api = api
        self._tls = tls
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """``port`` 0: any free one, to be read from :attr:`port`."""
        # A constant of the class: every connection made from now on has it.
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            keepalive_timeout=180.0,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
            # As upstream, which knows no compressed requests; what is proxied passes as it is.
            auto_decompress=False,
            access_log=None,
            logger=_protocol_log(),
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        listening = _socket(address, port)
        self.port = listening.getsockname()[1]
        site = web.SockSite(self._runner, listening, ssl_context=self._tls, backlog=512)
        await site.start()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._api.handle(request)
        if not response.prepared:
            response.headers["Audit-Id"] = audit_id(request)
            # Else kubectl keeps what a server whose clock was ahead said, until that time comes.
            response.headers["Cache-Control"] = "no-cache, private"
            if "Upgrade" in request.headers:
                response.force_close()  # the parser has taken the rest for another protocol
        return response

    async def stop(self) -> None:
        """End the watches, finish what runs, then close."""
        await self._api.stop()
        if self._runner is not None:
            await asyncio.shield(self._runner.cleanup())
            self._runner = None


def _protocol_log() -> logging.Logger:
    """Of the HTTP parser: what strangers send that is no HTTP gets a 400, not a traceback each."""
    log = logging.getLogger("controlplane.api.http")
    if not log.filters:
        log.addFilter(_is_ours)
    return log


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, port))
    listening.setblocking(False)
    return listening
