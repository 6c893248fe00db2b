"""
The kernel's netfilter over netlink: messages, and one question with its answers.

The programs nft and conntrack do much more, but conntrack takes a process for each
connection that is to be forgotten, and neither waits for one table to go without
printing everything else that happens.

Source: netlink(7), linux/netfilter/nfnetlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping

NETFILTER = 12
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
NESTED = 0x8000
SOL_NETLINK, ADD_MEMBERSHIP = 270, 1
RECEIVE = 1 << 18
_NO_OP, _ERROR, _DONE = 1, 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_SUBHEADER = struct.Struct(">BBH")  # family, version, resource in network order


class Netfilter:
    """One socket; calls block, and the kernel answers at once. Not for two threads at a time."""

    def __init__(self) -> None:
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER
        )
        self.socket.bind((0, 0))
        self.socket.settimeout(5)
        self._sequence = 0

    def __enter__(self) -> "Netfilter":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, kind: int, body: bytes, *, flags: int = ACK) -> list[bytes]:
        """The bodies of the answers, behind the subheader; OSError where the kernel refused."""
        self._sequence += 1
        self.socket.send(packed(self._sequence, kind, flags, body))
        return list(self._answers())

    def _answers(self) -> Iterator[bytes]:
        while True:
            for kind, body in messages(self.socket.recv(RECEIVE)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code == 0:
                        return
                    raise OSError(-code, os.strerror(-code))
                yield body[_SUBHEADER.size :]


def packed(sequence: int, kind: int, flags: int, body: bytes) -> bytes:
    """A request as it goes to the kernel."""
    padding = b"\0" * (-len(body) % 4)
    return (
        _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body + padding
    )


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind != _NO_OP:
            yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def subheader(family: int, resource: int = 0) -> bytes:
    return _SUBHEADER.pack(family, 0, resource)


def after_subheader(body: bytes) -> bytes:
    return body[_SUBHEADER.size :]


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> Mapping[int, bytes]:
    """By kind, flags taken off; of a repeated one the last."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def is_absent(error: OSError) -> bool:
    return error.errno == errno.ENOENT


def drain(watched: socket.socket) -> None:
    """Throw away what is queued: that something happened is all we want to know."""
    while True:
        try:
            watched.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more than the queue holds: still something
                raise
