"""
Just enough of D-Bus to call a method on a socket and read its answer. Blocks.

Source: the D-Bus specification, "Message Protocol" and "Authentication Protocol".
"""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _SIGNATURE = 1, 2, 3, 4, 5, 8
_FIXED = {"y": "<B", "b": "<I", "u": "<I", "i": "<i", "t": "<Q", "x": "<q", "d": "<d"}
_ALIGN = {"y": 1, "g": 1, "v": 1, "t": 8, "x": 8, "d": 8, "(": 8, "{": 8}  # all others: 4


class DBusError(Exception):
    """The other side refused: ``name`` is its error, such as org.freedesktop.DBus.Error.…"""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class Variant(tuple[str, Any]):
    """(signature, value)."""

    __slots__ = ()

    def __new__(cls, signature: str, value: Any) -> "Variant":
        return super().__new__(cls, (signature, value))


def parts(signature: str) -> Iterator[str]:
    """The complete types that a signature is made of."""
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        yield signature[at:end]
        at = end


def _end(signature: str, at: int) -> int:
    while signature[at] == "a":
        at += 1
    closing = {"(": ")", "{": "}"}.get(signature[at])
    if closing is None:
        return at + 1
    opening, depth = signature[at], 0
    for index in range(at, len(signature)):
        depth += (signature[index] == opening) - (signature[index] == closing)
        if not depth:
            return index + 1
    raise ValueError(f"signature {signature!r} does not end")


class Writer:
    """Values to bytes, little-endian."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        self.data += bytes(-len(self.data) % to)

    def put(self, signature: str, value: Any) -> None:
        kind = signature[0]
        self.align(_ALIGN.get(kind, 4))
        if kind in _FIXED:
            self.data += struct.pack(_FIXED[kind], value)
        elif kind in "sog":
            text = value.encode()
            self.data += struct.pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0"
        elif kind == "v":
            self.put("g", value[0])
            self.put(value[0], value[1])
        elif kind == "a":
            self._array(signature[1:], value)
        else:
            for inner, item in zip(parts(signature[1:-1]), value, strict=True):
                self.put(inner, item)

    def _array(self, inner: str, items: Any) -> None:
        at = len(self.data)
        self.data += bytes(4)
        self.align(_ALIGN.get(inner[0], 4))
        began = len(self.data)
        for item in items:
            self.put(inner, item)
        struct.pack_into("<I", self.data, at, len(self.data) - began)


class Reader:
    """Bytes to values; ``order`` is "<" or ">"."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data, self._order, self.at = data, order, 0

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def get(self, signature: str) -> Any:
        kind = signature[0]
        self.align(_ALIGN.get(kind, 4))
        if kind in _FIXED:
            return self._number(_FIXED[kind][1])
        if kind in "sog":
            length = self._number("B" if kind == "g" else "I")
            text = self._data[self.at : self.at + length].decode()
            self.at += length + 1
            return text
        if kind == "v":
            return self.get(self.get("g"))
        if kind == "a":
            length = self._number("I")
            self.align(_ALIGN.get(signature[1], 4))
            end, items = self.at + length, []
            while self.at < end:
                items.append(self.get(signature[1:]))
            return items
        return tuple(self.get(inner) for inner in parts(signature[1:-1]))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(self._order + form, self._data, self.at)
        self.at += struct.calcsize(form)
        return value


class Connection:
    """One peer, without a bus in between. ``OSError`` where nobody answers in time."""

    def __init__(self, path: Path, *, seconds: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._serial = 0
        try:
            self._socket.connect(str(path))
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, path: str, member: str, signature: str, *values: Any) -> list[Any]:
        """``member`` with its interface in front; the values of the answer."""
        interface, _, name = member.rpartition(".")
        self._serial += 1
        fields = [(_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", name)]
        if signature:
            fields.append((_SIGNATURE, "g", signature))
        body = Writer()
        for inner, value in zip(parts(signature), values, strict=True):
            body.put(inner, value)
        head = Writer()
        head.data += struct.pack("<cBBBII", b"l", _CALL, 0, 1, len(body.data), self._serial)
        head.put("a(yv)", [(code, Variant(kind, value)) for code, kind, value in fields])
        head.align(8)
        self._socket.sendall(bytes(head.data + body.data))
        while True:
            kind, answered, result = self._receive()
            if answered == self._serial and kind in (_RETURN, _ERROR):
                return result

    def _authenticate(self) -> None:
        identity = str(os.getuid()).encode().hex()
        # BEGIN at once: systemd overlooks a call that comes in one piece with it.
        self._socket.sendall(f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n"):
            answer += self._exactly(1)  # signals may follow at once
        if not answer.startswith(b"OK "):
            raise PermissionError(f"not let in: {answer.decode(errors='replace').strip()}")

    def _receive(self) -> tuple[int, int, list[Any]]:
        """(type, serial of the call it answers, values); an error answer is raised."""
        start = self._exactly(16)
        order = "<" if start[:1] == b"l" else ">"
        _, kind, _, _, length, _, fields_length = struct.unpack(order + "cBBBIII", start)
        rest = self._exactly(fields_length + -fields_length % 8)
        head = Reader(start + rest, order)
        head.at = 12
        fields = dict(head.get("a(yv)"))
        body = Reader(self._exactly(length), order)
        values = [body.get(inner) for inner in parts(fields.get(_SIGNATURE, ""))]
        answered = fields.get(_REPLY_TO, 0)
        if kind == _ERROR and answered == self._serial:
            raise DBusError(fields.get(_ERROR_NAME, ""), str(values[0]) if values else "")
        return kind, answered, values

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("the connection was closed")
            data += piece
        return data
