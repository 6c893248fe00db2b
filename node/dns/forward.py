"""
Asking the servers outside: each query from a port of its own, with an id of its own.

The servers are asked in order; when one is slow the next is asked as well, and the
first answer counts. One that failed is asked last for a while. Equal questions
that wait at the same time wait for the same answer.
"""

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence

from node.dns import wire
from node.dns.cache import Cache, Entry, Key, make_entry
from node.dns.resolv import Upstream

_PATIENCE = 0.6  # seconds until the next server is asked as well
_DEADLINE = 4.0  # seconds for the whole; resolvers give up after 5
_PENALTY = 10.0  # seconds that a server that failed is asked last
_MOST_WAITING = 512  # questions under way; more are refused rather than queued


class Unanswered(Exception):
    """No server outside answered."""


class Forwarder:
    """
    Questions to the outside, with a cache.

    ``upstreams`` is asked for each question. Mutable state: the cache, the questions
    under way, and until when which server is asked last.
    """

    def __init__(
        self,
        upstreams: Callable[[], Sequence[Upstream]],
        cache: Cache,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._cache = cache
        self._clock = clock
        self._waiting: dict[tuple[Key, bool], asyncio.Future[Entry]] = {}
        self._penalised: dict[Upstream, float] = {}

    def cached(self, key: Key) -> Entry | None:
        return self._cache.get(key, self._clock())

    async def ask(self, key: Key, *, tcp: bool = False) -> Entry:
        """
        From the cache, from a question under way, or from outside; else :class:`Unanswered`.

        ``tcp``: the client has room for all of it; without, the answer may be truncated.
        """
        entry = self.cached(key)
        if entry is not None:
            return entry
        waiting = self._waiting.get((key, tcp))
        if waiting is not None:
            return await asyncio.shield(waiting)
        if len(self._waiting) >= _MOST_WAITING:
            raise Unanswered("too many questions are under way")
        return await self._first(key, tcp=tcp)

    async def _first(self, key: Key, *, tcp: bool) -> Entry:
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiting[key, tcp] = future
        try:
            entry = make_entry(await self._exchange(key, tcp=tcp), self._clock())
            if entry.until > entry.stored:
                self._cache.put(key, entry)
            future.set_result(entry)
        except (wire.Malformed, struct.error) as error:
            future.set_exception(Unanswered(str(error)))
        except BaseException as error:
            failure = error if isinstance(error, Unanswered) else Unanswered("given up")
            future.set_exception(failure)
            future.exception()  # there may be nobody else to look at it
            raise
        finally:
            del self._waiting[key, tcp]
        return future.result()

    async def _exchange(self, key: Key, *, tcp: bool) -> bytes:
        servers = self._in_order()
        if not servers:
            raise Unanswered("there is no upstream server")
        try:
            async with asyncio.timeout(_DEADLINE):
                return await self._race(servers, key, tcp=tcp)
        except TimeoutError as error:
            raise Unanswered("no upstream server answered in time") from error

    async def _race(self, servers: Sequence[Upstream], key: Key, *, tcp: bool) -> bytes:
        """Start with the first; go on to the next when one fails or takes its time."""
        tasks: set[asyncio.Task[bytes]] = set()
        left = list(servers)
        server = left[0]
        last: bytes | None = None
        try:
            while left or tasks:
                if left:
                    server = left.pop(0)
                    tasks.add(asyncio.ensure_future(self._attempt(server, key, tcp=tcp)))
                done, tasks = await asyncio.wait(
                    tasks,
                    timeout=_PATIENCE if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    self._penalise(server)
                for task in done:
                    if task.exception() is not None:
                        continue
                    last = task.result()
                    # A server in trouble says so; another may know.
                    if last[3] & 0xF not in (wire.SERVFAIL, wire.REFUSED):
                        return last
        finally:
            for task in tasks:
                task.cancel()
        if last is not None:
            return last
        raise Unanswered("no upstream server answered")

    async def _attempt(self, server: Upstream, key: Key, *, tcp: bool) -> bytes:
        ident = secrets.randbits(16)
        question = wire.question(ident, key.name, key.type, dnssec_ok=key.dnssec_ok)
        ask = _ask_tcp if tcp else _ask_udp
        try:
            answer = await ask(server, question)
        except (OSError, wire.Malformed):
            self._penalise(server)
            raise
        self._penalised.pop(server, None)
        return answer

    def _penalise(self, server: Upstream) -> None:
        self._penalised[server] = self._clock() + _PENALTY

    def _in_order(self) -> list[Upstream]:
        servers = list(self._upstreams())
        if not self._penalised:
            return servers
        now = self._clock()
        self._penalised = {s: until for s, until in self._penalised.items() if until > now}
        return sorted(servers, key=lambda server: server in self._penalised)


def _is_answer(question: bytes, answer: bytes) -> bool:
    """The same id and the same question; anything else may be a forgery."""
    end = wire.question_end(question)
    return (
        len(answer) >= end
        and answer[:2] == question[:2]
        and bool(answer[2] & 0x80)
        and answer[4:6] == b"\0\1"
        and answer[12:end].lower() == question[12:end].lower()
    )


async def _ask_udp(server: Upstream, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asker:
        # Connected: the kernel takes answers from this server only, and tells if it refuses.
        await loop.sock_connect(asker, (server.address, server.port))
        await loop.sock_sendall(asker, question)
        while True:
            answer = await loop.sock_recv(asker, 65535)
            if _is_answer(question, answer):
                return answer


async def _ask_tcp(server: Upstream, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the server closed the connection") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not _is_answer(question, answer):
        raise wire.Malformed("an answer to another question")
    return answer
