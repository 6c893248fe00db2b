"""
Elements of sets and maps, put in and taken out over netlink as one transaction.

Most changes are no more than that: a pod that starts, a peer that goes. Starting nft for
one of them takes longer than all the rest of a pod's wait, and nft reads every set of the
machine first. What declares something or has rules is nft's.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from operators.netpol.netlink import ACK, NESTED, NETFILTER, RECEIVE, attribute, messages, packed
from operators.netpol.rules import TABLE

_SUBSYSTEM = 10
_BEGIN, _END = 0x10, 0x11
_ADD, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_CREATE = 0x400
_INET = 1
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _DATA = 1, 1, 2
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2
_GOTO = -4
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_CHUNK = 200  # elements of a message: an attribute has 64 KiB at most
_ERROR = 2

Gone = Mapping[str, Sequence[str]]  # set → keys
Fresh = Mapping[str, Sequence[tuple[str, str]]]  # set → keys with values, "" of a set


def change(gone: Gone, fresh: Fresh) -> None:
    """All of it or nothing; OSError where the kernel refused. Blocks for a moment."""
    batch = [*_messages(_DELETE, 0, {n: [(k, "") for k in keys] for n, keys in gone.items()})]
    batch += _messages(_ADD, _CREATE, fresh)
    if not batch:
        return
    frame = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    kind, flags, body = batch[-1]
    batch[-1] = kind, flags | ACK, body
    every = [(_BEGIN, 0, frame), *batch, (_END, 0, frame)]
    data = b"".join(packed(number, *message) for number, message in enumerate(every, 1))
    kind_of = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind_of, NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5)
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(len(data) * 2, 1 << 16))
        netlink.send(data)
        _until_acknowledged(netlink)


def _until_acknowledged(netlink: socket.socket) -> None:
    """The first error ends it; the acknowledgement of the last message comes with the commit."""
    while True:
        for kind, body in messages(netlink.recv(RECEIVE)):
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", body)
                if code:
                    raise OSError(-code, os.strerror(-code))
                return


def _messages(kind: int, flags: int, sets: Fresh) -> Iterator[tuple[int, int, bytes]]:
    for name, elements in sets.items():
        for first in range(0, len(elements), _CHUNK):
            some = elements[first : first + _CHUNK]
            body = (
                struct.pack(">BBH", _INET, 0, 0)
                + _text(_TABLE, TABLE)
                + _text(_SET, name)
                + _nested(_ELEMENTS, (_element(key, value) for key, value in some))
            )
            yield kind, flags, body


def _element(key: str, value: str) -> bytes:
    parts = [_nested(_KEY, [attribute(_VALUE, encoded(key))])]
    if value:
        chain = value.removeprefix("goto ")
        verdict = [attribute(_CODE, struct.pack(">i", _GOTO)), _text(_CHAIN, chain)]
        parts.append(_nested(_DATA, [_nested(_VERDICT, verdict)]))
    return _nested(_ELEMENT, parts)


def encoded(key: str) -> bytes:
    """``10.42.0.2 . tcp . 80``; each field of a concatenation fills whole registers."""
    fields = [_field(text) for text in key.split(" . ")]
    if len(fields) == 1:
        return fields[0]
    return b"".join(field + b"\0" * (-len(field) % 4) for field in fields)


def _field(text: str) -> bytes:
    if text in _PROTOCOLS:
        return bytes([_PROTOCOLS[text]])
    if text.isdecimal():
        return int(text).to_bytes(2, "big")
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _nested(kind: int, attributes: Iterable[bytes]) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))
