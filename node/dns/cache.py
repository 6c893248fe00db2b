"""
Answers from outside, kept for as long as they say, within bounds.

They are kept as they came, and only their TTLs, id and question are written anew.
An answer past its time is never given out.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from node.dns import wire
from node.dns.wire import Query

LONGEST = 30  # seconds; as K3s's CoreDNS is set up
_FAILURE = 5  # seconds that an upstream's SERVFAIL is believed
_NEGATIVE_DEFAULT = 5  # seconds, for a negative answer without SOA: RFC 2308 says not to trust it
_OVERHEAD = 200  # bytes that an entry costs besides its message


class Key(NamedTuple):
    name: str
    type: int
    dnssec_ok: bool


@dataclass(frozen=True, slots=True)
class Entry:
    message: bytes  # without OPT
    ttls: tuple[int, ...]  # offsets of the TTLs in the message
    stored: float  # seconds of the loop's clock
    until: float

    @property
    def size(self) -> int:
        return len(self.message) + 8 * len(self.ttls) + _OVERHEAD


class Cache:
    """Bounded by bytes; the longest unused go first. Mutable state: the entries and their size."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[Key, Entry] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def get(self, key: Key, now: float) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        if entry.until <= now:
            self._size -= entry.size
            return None
        self._entries[key] = entry  # at the end: used last
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        if entry.size > self._limit // 8:
            return
        if (old := self._entries.pop(key, None)) is not None:
            self._size -= old.size
        self._entries[key] = entry
        self._size += entry.size
        while self._size > self._limit:
            first = next(iter(self._entries))
            self._size -= self._entries.pop(first).size

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


def make_entry(message: bytes, now: float) -> Entry:
    """
    From an upstream's answer; ``until`` is ``now`` if it must not be kept.

    :class:`wire.Malformed` where it cannot be read.
    """
    kept = list(wire.places(message))
    for index, place in enumerate(kept):
        if place.type == wire.OPT:
            # Its place is at the end. What stands behind it is only additional, and lost.
            count = sum(p.section == 2 for p in kept[:index])
            message = message[:10] + struct.pack("!H", count) + message[12 : place.start]
            kept = kept[:index]
            break
    return Entry(message, tuple(place.ttl for place in kept), now, now + _lifetime(message, kept))


def _lifetime(message: bytes, records: list[wire.Place]) -> float:
    flags = struct.unpack_from("!H", message, 2)[0]
    code = flags & 0xF
    if flags & 0x0200:  # truncated
        return 0
    if code == wire.SERVFAIL:
        return _FAILURE
    if code not in (wire.NOERROR, wire.NXDOMAIN):
        return 0
    answers = [place for place in records if place.section == 0]
    if answers and code == wire.NOERROR:
        return min(LONGEST, *(_number(message, p.ttl) for p in answers))
    for place in records:
        if place.section == 1 and place.type == wire.SOA:
            minimum = _number(message, place.end - 4)
            return min(LONGEST, _number(message, place.ttl), minimum)
    return _NEGATIVE_DEFAULT


def _number(message: bytes, offset: int) -> int:
    return int(struct.unpack_from("!I", message, offset)[0])


def render(entry: Entry, query: Query, now: float, *, limit: int) -> bytes:
    """The answer for one client; ``limit`` in bytes, 0: none (TCP)."""
    passed = int(now - entry.stored)
    flags = struct.unpack_from("!H", entry.message, 2)[0]
    # Not authoritative, not authenticated by us; recursion wanted as the client said.
    flags = 0x8080 | (flags & 0x020F) | (query.flags & 0x0100)
    message = bytearray(entry.message)
    struct.pack_into("!HH", message, 0, query.id, flags)
    message[12 : 12 + len(query.question)] = query.question
    for offset in entry.ttls:
        ttl = struct.unpack_from("!I", message, offset)[0]
        struct.pack_into("!I", message, offset, max(min(ttl, 1 << 31) - passed, 0))
    option = b"\0\0\x29" + struct.pack("!HIH", wire.EDNS_LIMIT, 0, 0) if query.edns else b""
    if limit and len(message) + len(option) > limit:
        message = _cut(message, flags, limit - len(option))
    if option:
        count = struct.unpack_from("!H", message, 10)[0]
        struct.pack_into("!H", message, 10, count + 1)
    return bytes(message) + option


def _cut(message: bytearray, flags: int, limit: int) -> bytearray:
    """As many of the answers as fit, with a note that there are more."""
    end, count = 0, 0
    for place in wire.places(bytes(message)):
        if place.section != 0 or place.end > limit:
            break
        end, count = place.end, count + 1
    if not count:
        end = wire.question_end(bytes(message))
    answers = struct.unpack_from("!H", message, 6)[0]
    flags |= 0x0200 if count < answers else 0
    message = message[:end]
    struct.pack_into("!HHHHH", message, 2, flags, 1, count, 0, 0)
    return message
