"""
A whole API server for these tests, and a client that sends what it is told, byte by byte.

All admission, the real authorizer, definitions that become kinds; users are whom
their bearer token names, so that tests can be anybody.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import orjson

from controlplane import assemble
from controlplane.api.app import ApiServer, Around
from controlplane.api.base import MASTERS_GROUP, Credentials, User
from controlplane.api.bootstrap_objects import ensure_bootstrap_objects
from controlplane.api.bootstrap_policy import ensure_policy
from controlplane.api.call import Parts
from controlplane.api.customresources.serve import CustomKinds
from controlplane.api.local import LocalClient
from controlplane.api.server import Listener
from controlplane.config import Config
from controlplane.controllers import clusterrole, customresources
from controlplane.objects.facts import schema_by_name
from controlplane.objects.resources import SERVICE_ACCOUNTS
from controlplane.pki.ensure import ensure_pki
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.store.memory import MemoryStore

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


class NamedByToken:
    """``Bearer admin`` is the administrator, ``Bearer <name>,<group>,…`` anybody else."""

    async def authenticate(self, credentials: Credentials) -> User | None:
        name, *groups = credentials.bearer_token.split(",")
        if name == "admin":
            return User(name="admin", groups=(MASTERS_GROUP,))
        return User(name=name, groups=tuple(groups)) if name else None


class Failures(logging.Handler):
    """What the server logged that it should never have to."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


@dataclass
class Reply:
    code: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


class Wire:
    """One connection, made again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self, method: str, path: str, body: Any = None, /, token: str = "admin", **headers: str
    ) -> Reply:
        """``body``: bytes as they are, None for none, all else as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        named = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(raw))}
        if token:
            named["Authorization"] = f"Bearer {token}"
        named |= {key.replace("_", "-"): value for key, value in headers.items()}
        head = "".join(f"{key}: {value}\r\n" for key, value in named.items())
        return await self.exchange(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)

    async def exchange(self, raw: bytes) -> Reply:
        """One request, one answer; code 0 where the server closed without one."""
        async with asyncio.timeout(20):
            if self._streams is None:
                self._streams = await asyncio.open_connection(
                    "127.0.0.1", self._port, limit=1 << 26
                )
            reader, writer = self._streams
            with suppress(ConnectionError):
                writer.write(raw)
                await writer.drain()
            try:
                reply = await read_reply(reader, head_only=raw.startswith(b"HEAD "))
            except (asyncio.IncompleteReadError, ConnectionError):
                reply = Reply(0, {}, b"")
            if not reply.code or reply.headers.get("connection", "") == "close":
                self.close()
            return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def read_reply(reader: asyncio.StreamReader, *, head_only: bool = False) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    code = int(first.split(" ")[1])
    if code == 100:
        return await read_reply(reader)
    if head_only or code in (204, 304):
        return Reply(code, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        body = bytearray()
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return Reply(code, headers, bytes(body))
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(code, headers, raw)


@dataclass
class Fuzzed:
    parts: Parts
    api: ApiServer
    client: LocalClient
    port: int
    wire: Wire
    failures: Failures
    listener: Listener
    work: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def revision(self) -> int:
        return self.parts.cache.revision


def config_in(folder: Path) -> Config:
    return Config(
        data_dir=folder,
        bind_address="127.0.0.1",
        https_port=6443,
        advertise_address="127.0.0.1",
        tls_sans=(),
        cluster_cidr=IPv4Network("10.42.0.0/16"),
        service_cidr=IPv4Network("10.43.0.0/16"),
        node_port_range=(30000, 32767),
        cluster_dns=IPv4Address("10.43.0.10"),
        cluster_domain="cluster.local",
        node_name="n",
        node_ips=("127.0.0.1",),
        disable=frozenset(),
        write_kubeconfig=folder / "admin.yaml",
        write_kubeconfig_mode=0o600,
        token="",
        datastore_endpoint="",
    )


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def fuzzed(folder: Path, *, authenticate: bool = False) -> AsyncIterator[Fuzzed]:
    """Serving on a free port, the default namespaces and roles made; users by name or for real."""
    config = config_in(folder)
    pki = await asyncio.to_thread(ensure_pki, config, now())
    base = assemble.foundation(config, pki, MemoryStore())
    await base.cache.load(base.store)
    parts = assemble.parts(base)
    if not authenticate:
        parts = replace(parts, authenticators=(NamedByToken(),))
    api = ApiServer(parts, Around(address="127.0.0.1:6443"))
    metadata = schema_by_name(_META)
    CustomKinds(base.kinds, base.schemas, metadata=metadata, changed=api.kinds_changed).follow(
        base.cache
    )
    client = LocalClient(parts, assemble.ITSELF)
    loop = Loop(
        (customresources.CONTROLLER, clusterrole.CLUSTERROLE),
        client=client,
        reads=base.cache,
        feed=base.cache,
        clock=LoopClock(now),
        kinds=base.kinds,
    )
    listener = Listener(api, tls=None)
    await listener.start("127.0.0.1", 0)
    work = [asyncio.ensure_future(base.cache.follow(base.store)), asyncio.ensure_future(loop.run())]
    failures = Failures()
    logging.getLogger().addHandler(failures)
    await ensure_bootstrap_objects(client, base.cache, pki)
    await ensure_policy(client, base.cache)
    account = {"metadata": {"name": "default", "namespace": "default"}}
    await client.create(SERVICE_ACCOUNTS, account)
    wire = Wire(listener.port)
    try:
        yield Fuzzed(parts, api, client, listener.port, wire, failures, listener, work)
    finally:
        logging.getLogger().removeHandler(failures)
        wire.close()
        await api.stop()
        await listener.stop()
        for task in work:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await base.store.close()
