"""
Netlink messages: a socket to the kernel, requests and answers, attributes.

Our own few hundred lines because the general library costs 14 MiB in every process
that imports it. What the messages mean is in :mod:`node.host.links` (rtnetlink)
and :mod:`node.host.conntrack` (ctnetlink). Calls are synchronous: the kernel
answers at once; only dumps of large tables belong in a thread.

Source: netlink(7), RFC 3549.
"""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self, TypeVar

T = TypeVar("T")
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, EXCLUSIVE, REPLACE, APPEND = 0x400, 0x200, 0x100, 0x800
NESTED = 0x8000  # marks an attribute that holds attributes
_DONE, _ERROR = 3, 2
_DUMP_INTERRUPTED = 0x10
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 18
_EXTENDED_ACK, _SOL_NETLINK = 11, 270


class NetlinkError(OSError):
    """The kernel refused a request; ``errno`` says why."""


class Message(NamedTuple):
    type: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + padding


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> Mapping[int, bytes]:
    """By kind, flags taken off; of a repeated one the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[Message]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield Message(kind, flags, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def open_socket(protocol: int, *, netns: str = "", groups: int = 0) -> socket.socket:
    """
    A bound netlink socket in our network namespace, or in the one at a path.

    ``groups``: a bit for each kind of change that the kernel shall tell of.
    """

    def work() -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        opened = socket.socket(socket.AF_NETLINK, kind, protocol)
        opened.bind((0, groups))
        return opened

    return run_inside(netns, work)


def run_inside(netns: str, work: Callable[[], T]) -> T:
    """
    Call something within a network namespace; "" is our own.

    A thread has a namespace of its own, and what it opens stays there after it ended.
    """
    if not netns:
        return work()
    result: list[T] = []
    failure: list[OSError] = []

    def body() -> None:
        try:
            enter_namespace(netns)
            result.append(work())
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def enter_namespace(path: str) -> None:
    """Move the calling thread to a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(descriptor)


class Netlink:
    """Requests over one socket, one after another; not for use by two threads at a time."""

    def __init__(self, protocol: int, *, netns: str = "") -> None:
        self._socket = open_socket(protocol, netns=netns)
        self._socket.settimeout(5)  # the kernel answers at once; never hang if it does not
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, *, flags: int = 0) -> None:
        """Have something done; :class:`NetlinkError` where the kernel refused."""
        self._send(kind, REQUEST | ACK | flags, body)
        for _ in self._answers():
            pass

    def get(self, kind: int, body: bytes) -> Message:
        """One object."""
        self._send(kind, REQUEST | ACK, body)
        (found,) = self._answers()
        return found

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """All objects of a kind; taken again where a change interrupted the kernel."""
        found: list[Message] = []
        for _ in range(5):
            self._send(kind, REQUEST | DUMP, body)
            found = list(self._answers())
            if not any(message.flags & _DUMP_INTERRUPTED for message in found):
                break
        return found

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags, self._sequence, 0) + body)

    def _answers(self) -> Iterator[Message]:
        while True:
            data = self._socket.recv(_RECEIVE)
            for message in messages(data):
                if message.type == _DONE:
                    return
                if message.type == _ERROR:
                    (code,) = struct.unpack_from("=i", message.body)
                    if code == 0:
                        return
                    raise NetlinkError(-code, os.strerror(-code))
                yield message


def is_absent(error: OSError) -> bool:
    """What was to be removed or looked up is not there."""
    return error.errno in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)
