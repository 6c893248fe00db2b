"""
The cluster DNS server: sockets on the cluster DNS address of this node.

The address sits on the loopback interface of every node, so a pod's question never
leaves its node, needs no translation and does not depend on the service proxy.
The Service ``kube-system/kube-dns`` has the same address for those who look it up;
the proxy leaves it alone, because a node that answers itself passes the address to
``ServiceProxy`` as one of its ``own_ips``.
"""

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

from controlplane.client.base import Change, Feed
from controlplane.objects.resources import CONFIG_MAPS, ENDPOINT_SLICES, NODES, SERVICES
from node.config import Config
from node.dns import cache, custom, wire
from node.dns.forward import Forwarder, Unanswered
from node.dns.index import Index
from node.dns.plan import HOST_TTL, Follow, Zone, answer, host_answer
from node.dns.resolv import ResolvConf
from node.dns.wire import Answer, Query
from node.host.links import SCOPE_HOST, Links

log = logging.getLogger(__name__)
PORT = 53
_CACHE_BYTES = 1 << 20
_MOST_ANSWERS = 1024  # answers about the cluster kept ready; dropped at each change
_BURST = 64  # questions taken from the socket before others get their turn
_MOST_CONNECTIONS = 128
_TCP_PATIENCE = 10.0  # seconds that a TCP client may be silent
_RETRY = 5.0  # seconds until we try again to take the address


class DnsServer:
    """
    Answers for the cluster's names, and forwards the rest.

    ``feed`` should know all current objects when :meth:`run` is called: until then
    names that exist would be denied. ``custom_feed``: where ``coredns-custom``
    comes from; None: it is not looked at. ``netns``: where the address goes; the sockets
    are those of ``open_socket``.

    Mutable state, changed on the event loop only: the index, answers kept ready, the
    cache of the forwarder, the user's additions.
    """

    def __init__(
        self,
        config: Config,
        feed: Feed,
        *,
        custom_feed: Feed | None = None,
        netns: str = "",
        open_socket: Callable[[socket.SocketKind], socket.socket] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = str(config.cluster_dns)
        self._feed = feed
        self._custom_feed = custom_feed
        self._netns = netns
        self._open = open_socket or _open
        self._clock = clock
        self._zone = Zone(
            domain=config.cluster_domain.rstrip(".").lower(),
            dns_address=self._address,
            networks=(config.service_cidr, config.cluster_cidr),
        )
        self._index = Index()
        self._custom = custom.NOTHING
        path = Path(config.resolv_conf or "/etc/resolv.conf")
        self._resolv = ResolvConf(path, not_these=[self._address])
        self._outside = cache.Cache(_CACHE_BYTES)
        self._forwarders: dict[tuple[object, ...], Forwarder] = {}
        self._ready: dict[tuple[str, int], Answer | Follow | None] = {}
        self._ready_version = 0
        self._turn = 0  # round robin
        self._connections = 0
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Without end; ends by cancellation only. The address stays on the interface."""
        unsubscribe = [self._feed.subscribe([SERVICES, ENDPOINT_SLICES, NODES], self._deliver)]
        if self._custom_feed is not None:
            unsubscribe.append(self._custom_feed.subscribe([CONFIG_MAPS], self._on_config_map))
        try:
            datagrams, stream = await self._take_address()
            with datagrams, stream:
                async with asyncio.TaskGroup() as group:
                    self._listening.set()
                    group.create_task(self._serve_datagrams(datagrams, group))
                    group.create_task(self._serve_streams(stream, group))
        finally:
            self._listening.clear()
            for end in unsubscribe:
                end()

    async def wait_listening(self) -> None:
        await self._listening.wait()

    async def cleanup(self) -> None:
        """Take the address off the node."""
        await asyncio.to_thread(self._remove_address)

    def respond(self, data: bytes, *, tcp: bool = False) -> bytes | Query | None:
        """
        The answer; a :class:`Query` if somebody outside must be asked; None: say nothing.

        Never waits.
        """
        try:
            query = wire.parse_query(data)
        except wire.Malformed:
            return None
        except wire.Rejected as error:
            return wire.reject(data, error.code)
        if query.klass != wire.IN or query.type == wire.AXFR:
            return wire.build(query, Answer(wire.REFUSED, authoritative=False))
        found = self._look_up(query.name, query.type)
        limit = 0 if tcp else query.limit
        if isinstance(found, Answer):
            self._turn += 1
            return wire.build(query, found, first=self._turn, limit=limit)
        if found is None:
            entry = self._forwarder(query.name).cached(_key(query))
            if entry is not None:
                return cache.render(entry, query, self._clock(), limit=limit)
        return query

    async def resolve(self, query: Query, *, tcp: bool = False) -> bytes:
        """Ask outside; SERVFAIL where nobody answers."""
        limit = 0 if tcp else query.limit
        found = self._look_up(query.name, query.type)
        try:
            if isinstance(found, Follow):
                answered = await self._follow(found, query, tcp=tcp)
                return wire.build(query, answered, limit=limit)
            entry = await self._forwarder(query.name).ask(_key(query), tcp=tcp)
            return cache.render(entry, query, self._clock(), limit=limit)
        except Unanswered as error:
            log.debug("%s: %s", query.name, error)
            return wire.build(query, Answer(wire.SERVFAIL, authoritative=False))

    def _look_up(self, name: str, kind: int) -> Answer | Follow | None:
        if self._ready_version != self._index.version:
            self._ready.clear()
            self._ready_version = self._index.version
        key = (name, kind)
        try:
            return self._ready[key]
        except KeyError:
            pass
        found = answer(name, kind, self._index, self._zone)
        if found is None and (addresses := self._custom.hosts.get(name)) is not None:
            found = host_answer(addresses, kind, self._zone, HOST_TTL)
        if len(self._ready) >= _MOST_ANSWERS:
            self._ready.clear()
        # What is forwarded would fill the memory with names that are asked for once.
        if found is not None:
            self._ready[key] = found
        return found

    async def _follow(self, found: Follow, query: Query, *, tcp: bool) -> Answer:
        """The alias and what its target has outside; the alias alone if nobody answers."""
        key = cache.Key(found.target, query.type, query.dnssec_ok)
        try:
            entry = await self._forwarder(found.target).ask(key, tcp=tcp)
            records = wire.copy_records(entry.message, found.target)
        except (Unanswered, wire.Malformed, struct.error):
            records = ()
        return Answer(answers=(*found.records, *records))

    def _forwarder(self, name: str) -> Forwarder:
        """One for each set of servers, so that zones with servers of their own share no cache."""
        servers = self._custom.upstreams(name)
        key = tuple(servers) if servers is not None else ()
        forwarder = self._forwarders.get(key)
        if forwarder is None:
            if servers is None:
                forwarder = Forwarder(self._resolv.upstreams, self._outside, clock=self._clock)
            else:
                forwarder = Forwarder(
                    lambda: servers, cache.Cache(_CACHE_BYTES // 4), clock=self._clock
                )
            self._forwarders[key] = forwarder
        return forwarder

    def _deliver(self, change: Change) -> None:
        match change.resource.plural:
            case "services":
                self._index.on_service(change)
            case "endpointslices":
                self._index.on_slice(change)
            case _:
                self._index.on_node(change)

    def _on_config_map(self, change: Change) -> None:
        if (change.namespace, change.name) != (custom.NAMESPACE, custom.NAME):
            return
        new = change.new
        self._custom = custom.parse((new.get("data") or {}) if new is not None else {})
        for line in self._custom.refused:
            log.warning("%s/%s: %s", custom.NAMESPACE, custom.NAME, line)
        self._forwarders.clear()
        self._ready.clear()

    async def _take_address(self) -> tuple[socket.socket, socket.socket]:
        while True:
            try:
                await asyncio.to_thread(self._add_address)
                return self._bind(socket.SOCK_DGRAM), self._bind(socket.SOCK_STREAM)
            except OSError as error:
                log.error("cannot listen on %s port %d: %s", self._address, PORT, error)  # noqa: TRY400
                await asyncio.sleep(_RETRY)

    def _bind(self, kind: socket.SocketKind) -> socket.socket:
        bound = self._open(kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._address, PORT))
            if kind == socket.SOCK_STREAM:
                bound.listen(_MOST_CONNECTIONS)
            else:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            bound.setblocking(False)
        except OSError:
            bound.close()
            raise
        return bound

    def _add_address(self) -> None:
        with Links(netns=self._netns) as links:
            loopback = links.find("lo")
            if loopback is None:
                raise OSError("there is no loopback interface")
            # Of host scope: it is never chosen as the source of anything else.
            address = IPv4Interface(f"{self._address}/32")
            links.add_address(loopback.index, address, scope=SCOPE_HOST)

    def _remove_address(self) -> None:
        with Links(netns=self._netns) as links:
            loopback = links.find("lo")
            if loopback is not None:
                links.remove_address(loopback.index, IPv4Interface(f"{self._address}/32"))

    async def _serve_datagrams(self, datagrams: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(datagrams, self._read_datagrams, datagrams, group)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(datagrams)

    def _read_datagrams(self, datagrams: socket.socket, group: asyncio.TaskGroup) -> None:
        for _ in range(_BURST):
            try:
                data, client = datagrams.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier answer
            found = self.respond(data)
            if isinstance(found, Query):
                group.create_task(self._resolve_datagram(datagrams, found, client))
            elif found is not None:
                with contextlib.suppress(OSError):  # the client asks again
                    datagrams.sendto(found, client)

    async def _resolve_datagram(
        self, datagrams: socket.socket, query: Query, client: tuple[str, int]
    ) -> None:
        found = await self.resolve(query)
        with contextlib.suppress(OSError):
            datagrams.sendto(found, client)

    async def _serve_streams(self, stream: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(stream)
            except OSError:
                await asyncio.sleep(0.1)  # out of descriptors, most likely
                continue
            if self._connections >= _MOST_CONNECTIONS:
                connection.close()
                continue
            group.create_task(self._serve_stream(connection))

    async def _serve_stream(self, connection: socket.socket) -> None:
        self._connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                await self._converse(reader, writer)
            finally:
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client's trouble
        finally:
            self._connections -= 1

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_TCP_PATIENCE):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                data = await reader.readexactly(length)
            found = self.respond(data, tcp=True)
            if isinstance(found, Query):
                found = await self.resolve(found, tcp=True)
            if found is None:
                return
            async with asyncio.timeout(_TCP_PATIENCE):
                writer.write(struct.pack("!H", len(found)) + found)
                await writer.drain()


def _open(kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)


def _key(query: Query) -> cache.Key:
    return cache.Key(query.name, query.type, query.dnssec_ok)
