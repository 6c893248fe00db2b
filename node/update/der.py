"""
Just enough of DER to read and write the signature of a bundle.

Reading is strict (definite lengths in their shortest form, nothing behind the end), so that the
same signature cannot be written in two ways. Writing is deterministic.
Source: ITU-T X.690, sections 8 and 10.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

INTEGER, OCTETS, NULL, OID = 0x02, 0x04, 0x05, 0x06
UTC_TIME, GENERAL_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31


class DerError(ValueError):
    """These bytes are no DER, or not of the shape that was expected."""


@dataclass(frozen=True, slots=True)
class Element:
    tag: int  # one byte: class, constructed, number below 31
    body: bytes
    raw: bytes  # with tag and length

    def parts(self) -> list["Element"]:
        if not self.tag & 0x20:
            raise DerError(f"tag {self.tag:#04x} has no parts")
        return elements(self.body)

    def expect(self, tag: int) -> "Element":
        if self.tag != tag:
            raise DerError(f"tag {self.tag:#04x} where {tag:#04x} belongs")
        return self


def elements(data: bytes) -> list[Element]:
    """All that stand one after another in ``data``, which they fill."""
    found = []
    at = 0
    while at < len(data):
        head, length = header(data[at : at + 6])
        end = at + head + length
        if end > len(data):
            raise DerError("an element is longer than what holds it")
        found.append(Element(data[at], data[at + head : end], data[at:end]))
        at = end
    return found


def element(data: bytes) -> Element:
    """The one that fills ``data``."""
    found = elements(data)
    if len(found) != 1:
        raise DerError(f"{len(found)} elements where one belongs")
    return found[0]


def header(data: bytes) -> tuple[int, int]:
    """How long tag and length are, and how long the body is, from the first six bytes."""
    if len(data) < 2:
        raise DerError("it ends within a length")
    if data[0] & 0x1F == 0x1F:
        raise DerError("a tag of several bytes")
    if data[1] < 0x80:
        return 2, data[1]
    count = data[1] & 0x7F
    if not 1 <= count <= 4:
        raise DerError("a length that is not definite, or too large")
    body = data[2 : 2 + count]
    length = int.from_bytes(body)
    if len(body) < count or length < 0x80 or not body[0]:
        raise DerError("a length that is cut off, or not in its shortest form")
    return 2 + count, length


def oid_text(found: Element) -> str:
    """``1.2.840.113549.1.7.2``"""
    body = found.expect(OID).body
    if not body or body[-1] & 0x80:
        raise DerError("an object identifier that does not end")
    arcs, value = [], 0
    for byte in body:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def time_of(found: Element) -> datetime:
    """UTCTime or GeneralizedTime, both with seconds and in UTC as CMS wants them."""
    form = {UTC_TIME: "%y%m%d%H%M%SZ", GENERAL_TIME: "%Y%m%d%H%M%SZ"}.get(found.tag)
    if form is None:
        raise DerError(f"tag {found.tag:#04x} is no time")
    try:
        when = datetime.strptime(found.body.decode("ascii"), form).replace(tzinfo=UTC)
    except ValueError as err:
        raise DerError(f"no time: {err}") from err
    if found.tag == UTC_TIME and when.year >= 2050:  # strptime's pivot is 2069
        when = when.replace(year=when.year - 100)
    return when


def encode(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + body


def sequence(*parts: bytes) -> bytes:
    return encode(SEQUENCE, b"".join(parts))


def set_of(parts: Iterable[bytes]) -> bytes:
    return encode(SET, b"".join(sorted(parts)))


def integer(value: int) -> bytes:
    """Of a number that is not negative."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    body = bytearray()
    for arc in (40 * first + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(arc & 0x7F | 0x80)
        body += bytes(reversed(digits))
    return encode(OID, bytes(body))


def time(when: datetime) -> bytes:
    """RFC 5652, 11.3: two digits of the year until 2049, four from then on."""
    if 1950 <= when.year < 2050:
        return encode(UTC_TIME, f"{when:%y%m%d%H%M%S}Z".encode())
    return encode(GENERAL_TIME, f"{when.year:04}{when:%m%d%H%M%S}Z".encode())
