"""
DNS messages as bytes: reading a question, writing an answer.

By hand rather than through a library because it is the one hot path of the
server: an answer about the cluster takes a few dictionary look-ups and one join.
Source: RFC 1035, RFC 2308 (negative answers), RFC 6891 (EDNS).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, AXFR, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
UDP_LIMIT = 512  # bytes, for a client without EDNS
EDNS_LIMIT = 1232  # what we announce and send at most over UDP: never a fragment
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")  # type, class, ttl, length of the data
_OWNER = b"\xc0\x0c"  # a pointer to the question's name
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _WANTS_RECURSION, _RECURSION = (
    0x8000,
    0x0400,
    0x0200,
    0x0100,
    0x0080,
)


class Malformed(ValueError):
    """Not a DNS message that can be read."""


class Rejected(Exception):
    """A query that gets an error code and nothing else."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Query(NamedTuple):
    id: int
    flags: int
    name: str  # in lower case, without the last dot; "" is the root
    type: int
    klass: int
    question: bytes  # as the client wrote it
    limit: int  # bytes that the client takes over UDP
    edns: bool
    dnssec_ok: bool


class Record(NamedTuple):
    owner: str  # "": the name that was asked for
    type: int
    ttl: int  # seconds
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say, apart from the client: the records are encoded already."""

    code: int = NOERROR
    answers: tuple[bytes, ...] = ()
    authority: tuple[bytes, ...] = ()
    additional: tuple[bytes, ...] = ()  # left out first where there is no room
    authoritative: bool = True


def parse_query(data: bytes) -> Query:
    """
    :class:`Malformed` if nothing can be answered (too short, or itself an answer);
    :class:`Rejected` if the answer is an error code.
    """
    if len(data) < 12:
        raise Malformed("shorter than a header")
    ident, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed("an answer, not a question")
    if flags >> 11 & 0xF:
        raise Rejected(NOTIMP)
    if questions != 1 or answers or authority:
        raise Rejected(FORMERR)
    name, end = _plain_name(data)
    if end + 4 > len(data):
        raise Rejected(FORMERR)
    kind, klass = _QUESTION.unpack_from(data, end)
    end += 4
    limit, edns, dnssec_ok = UDP_LIMIT, False, False
    if additional and data[end : end + 3] == b"\0\0\x29" and end + 11 <= len(data):
        edns = True
        size, extension = struct.unpack_from("!HI", data, end + 3)
        limit = min(max(size, UDP_LIMIT), EDNS_LIMIT)
        dnssec_ok = bool(extension & 0x8000)
        if extension >> 16 & 0xFF:
            raise Rejected(BADVERS)
    return Query(ident, flags, name, kind, klass, data[12:end], limit, edns, dnssec_ok)


def _plain_name(data: bytes) -> tuple[str, int]:
    """The name of the question, which has nothing before it that it could point to."""
    offset, labels = 12, []
    size = len(data)
    while offset < size and (length := data[offset]):
        if length > 63 or offset + length + 1 > size:
            raise Rejected(FORMERR)
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += length + 1
    if offset >= size or offset - 12 > 254:
        raise Rejected(FORMERR)
    name = b".".join(labels)
    if name.count(b".") >= max(len(labels), 1):
        raise Rejected(
            FORMERR
        )  # a dot within a label: legal, of no use, and we could not repeat it
    return name.decode("latin-1").lower(), offset + 1


def name_bytes(name: str) -> bytes:
    """In wire form, without compression; dots separate labels and cannot be part of one."""
    if not name:
        return b"\0"
    labels = name.encode("latin-1").split(b".")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def encode_record(record: Record) -> bytes:
    owner = name_bytes(record.owner) if record.owner else _OWNER
    return owner + _RECORD.pack(record.type, IN, record.ttl, len(record.data)) + record.data


def build(query: Query, answer: Answer, *, first: int = 0, limit: int = 0) -> bytes:
    """
    The whole message. ``first``: which of the answers comes first (round robin).

    ``limit`` in bytes, 0: none (TCP). What does not fit is left out: first what is
    additional, silently; then answers, and the message says that it is truncated.
    """
    answers, extra = answer.answers, answer.additional
    if len(answers) > 1 and first:
        first %= len(answers)
        answers = answers[first:] + answers[:first]
    flags = _RESPONSE | _RECURSION | (query.flags & _WANTS_RECURSION) | (answer.code & 0xF)
    if answer.authoritative:
        flags |= _AUTHORITATIVE
    option = _option(answer.code) if query.edns else b""
    room = (limit - 12 - len(query.question) - len(option)) if limit else 1 << 16
    room -= sum(map(len, answer.authority))
    answers, cut = _fit(answers, room)
    if cut:
        flags |= _TRUNCATED
        extra = ()
    elif extra:
        extra, _ = _fit(extra, room - sum(map(len, answers)))
    counts = (1, len(answers), len(answer.authority), len(extra) + query.edns)
    head = _HEADER.pack(query.id, flags, *counts)
    return b"".join((head, query.question, *answers, *answer.authority, *extra, option))


def _fit(records: tuple[bytes, ...], room: int) -> tuple[tuple[bytes, ...], bool]:
    for index, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return records[:index], True
    return records, False


def _option(code: int) -> bytes:
    return b"\0" + _RECORD.pack(OPT, EDNS_LIMIT, (code >> 4) << 24, 0)


def reject(data: bytes, code: int) -> bytes:
    """An answer to a query that could not be read: its header only."""
    ident, flags = struct.unpack_from("!HH", data)
    flags = _RESPONSE | (flags & 0x7900) | _RECURSION | (code & 0xF)
    option = _option(code) if code > 0xF else b""
    return _HEADER.pack(ident, flags, 0, 0, 0, 1 if option else 0) + option


def question(ident: int, name: str, kind: int, *, dnssec_ok: bool = False) -> bytes:
    """A query of our own, with recursion wanted."""
    head = _HEADER.pack(ident, _WANTS_RECURSION, 1, 0, 0, 1)
    option = b"\0" + _RECORD.pack(OPT, EDNS_LIMIT, 0x8000 if dnssec_ok else 0, 0)
    return head + name_bytes(name) + _QUESTION.pack(kind, IN) + option


class Place(NamedTuple):
    """Where a record is in a message, as offsets."""

    section: int  # 0 answers, 1 authority, 2 additional
    start: int
    type: int
    ttl: int  # offset of the TTL
    data: int
    end: int


def places(data: bytes) -> Iterator[Place]:
    """The records of a message with one question; :class:`Malformed` where it is broken."""
    _, _, questions, *counts = _HEADER.unpack_from(data)
    offset = 12
    for _ in range(questions):
        offset = _skip_name(data, offset) + 4
    for section, count in enumerate(counts):
        for _ in range(count):
            start, offset = offset, _skip_name(data, offset)
            if offset + 10 > len(data):
                raise Malformed("a record beyond the end")
            kind, _, _, length = _RECORD.unpack_from(data, offset)
            end = offset + 10 + length
            if end > len(data):
                raise Malformed("data beyond the end")
            yield Place(section, start, kind, offset + 4, offset + 10, end)
            offset = end


def _skip_name(data: bytes, offset: int) -> int:
    while offset < len(data):
        length = data[offset]
        if length == 0:
            return offset + 1
        if length >= 0xC0:
            return offset + 2
        offset += length + 1
    raise Malformed("a name beyond the end")


def read_name(data: bytes, offset: int) -> str:
    """A name anywhere in a message, pointers followed."""
    labels: list[str] = []
    for _ in range(128):  # a loop of pointers ends here
        if offset >= len(data):
            break
        length = data[offset]
        if length == 0:
            return ".".join(labels)
        if length >= 0xC0:
            offset = struct.unpack_from("!H", data, offset)[0] & 0x3FFF
            continue
        labels.append(data[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += length + 1
    raise Malformed("a name without end")


def copy_records(data: bytes, owner: str) -> tuple[bytes, ...]:
    """The addresses and aliases among the answers, each able to stand in another message."""
    found = []
    for place in places(data):
        if place.section != 0 or place.type not in (A, AAAA, CNAME):
            continue
        value = data[place.data : place.end]
        if place.type == CNAME:
            value = name_bytes(read_name(data, place.data))
        name = read_name(data, place.start) or owner
        ttl = struct.unpack_from("!I", data, place.ttl)[0]
        found.append(encode_record(Record(name, place.type, ttl, value)))
    return tuple(found)


def srv_data(port: int, target: str) -> bytes:
    """Priority 0, weight 100: what cluster DNS has always said."""
    return struct.pack("!HHH", 0, 100, port) + name_bytes(target)


def soa_data(zone: str, *, serial: int, minimum: int) -> bytes:
    names = name_bytes(f"ns.dns.{zone}") + name_bytes(f"hostmaster.{zone}")
    return names + struct.pack("!IIIII", serial, 7200, 1800, 86400, minimum)


def txt_data(texts: Sequence[str]) -> bytes:
    return b"".join(bytes((len(text),)) + text.encode() for text in texts)


def question_end(data: bytes) -> int:
    """Where the first record of a message with one question begins."""
    return _skip_name(data, 12) + 4
