"""
gRPC without an event loop, for a process that moves much data and does nothing else meanwhile.

grpclib costs such a process 12 MiB and most of its time: it looks at each frame of
16 KiB, and calls the kernel for it. This one has one call at a time, and writes
a whole message at once. It speaks as much of HTTP/2 as a client without TLS needs.
"""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from hpack import Decoder, Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_INITIAL_WINDOW, _MAX_FRAME = 4, 5  # settings
_WINDOW = 1 << 20  # what the server may send before we take it
_READ = 1 << 16
_HEAD = struct.Struct(">HBBBI")  # length in 24 bits, type, flags, stream

NOT_FOUND, ALREADY_EXISTS, UNAVAILABLE = 5, 6, 14


class CallFailed(Exception):
    """The server's own words, and gRPC's number of the status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message or f"gRPC status {status}")
        self.status = status


class Connection:
    """To a unix socket. Its mutable state is that of HTTP/2: windows, header tables, the call."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        """``metadata`` goes with every call. Raises ``OSError`` where nobody listens."""
        self.metadata = dict(metadata)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._received = bytearray()
        self._encoder, self._decoder = Encoder(), Decoder()
        self._window = self._initial_window = 65_535
        self._max_frame = 16_384
        self._next_id = 1
        self._call: Call | None = None
        self._block, self._ends = b"", False  # headers that are not complete yet
        settings = struct.pack(">HIHI", 2, 0, _INITIAL_WINDOW, _WINDOW)  # 2: no pushes
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        )

    def close(self) -> None:
        self._socket.close()

    def call(self, path: str, request: bytes) -> bytes:
        """One message for another. Raises :class:`CallFailed` and ``OSError``."""
        call = self.open(path)
        call.send([request], end=True)
        return b"".join(call.rest())

    def open(self, path: str) -> "Call":
        """A call of many messages; the one before it must be at its end, or is cancelled."""
        if self._call is not None:
            self._call.cancel()
        self._call = Call(self, self._next_id, self._initial_window)
        self._next_id += 2
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *self.metadata.items(),
        ]
        block = self._encoder.encode(headers, huffman=False)
        self._socket.sendall(_frame(HEADERS, END_HEADERS, self._call.id, block))
        return self._call

    def _send(self, call: "Call", pieces: Sequence[bytes | memoryview], *, end: bool) -> None:
        """The pieces as DATA, as far as the windows let them go at a time."""
        total = sum(map(len, pieces))
        left, chunks = total, _Chunks(pieces)
        while left and not call.ended:
            allowed = min(self._window, call.window, left)
            if allowed <= 0:
                self._take()
                continue
            out: list[bytes | memoryview] = []
            self._window -= allowed
            call.window -= allowed
            while allowed:
                size = min(allowed, self._max_frame)
                allowed -= size
                left -= size
                flags = END_STREAM if end and not left else 0
                out.append(_head(DATA, flags, call.id, size))
                out.extend(chunks.take(size))
            self._socket.sendall(b"".join(out))
        if end and not total:
            self._socket.sendall(_frame(DATA, END_STREAM, call.id, b""))

    def _take(self) -> None:
        """Wait for something from the server, and take all frames that are complete."""
        data = self._socket.recv(_READ)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._received += data
        while len(self._received) >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._received)
            size = high << 8 | low
            if len(self._received) < 9 + size:
                return
            payload = bytes(self._received[9 : 9 + size])
            del self._received[: 9 + size]
            self._handle(kind, flags, stream & 0x7FFFFFFF, payload)

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        call = self._call if self._call is not None and self._call.id == stream else None
        if kind == SETTINGS and not flags & ACK:
            self._set(payload)
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._widen(call, stream, struct.unpack(">I", payload)[0] & 0x7FFFFFFF)
        elif kind in {HEADERS, CONTINUATION}:
            self._headers(call, kind, flags, payload)
        elif kind == DATA:
            self._data(call, flags, payload)
        elif kind == RST_STREAM and call is not None and not call.ended:
            call.end(UNAVAILABLE, f"the server ended the call ({payload.hex()})")
        elif kind == GOAWAY:
            raise ConnectionResetError(f"the server goes away: {payload[8:].decode('latin-1')}")

    def _set(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                if self._call is not None:
                    self._call.window += value - self._initial_window
                self._initial_window = value
            elif name == _MAX_FRAME:
                self._max_frame = value
        self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))

    def _widen(self, call: "Call | None", stream: int, by: int) -> None:
        if not stream:
            self._window += by
        elif call is not None:
            call.window += by

    def _headers(self, call: "Call | None", kind: int, flags: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._ends = bool(flags & END_STREAM)
            self._block = b""
            payload = _unpadded(flags, payload)[5 if flags & PRIORITY else 0 :]
        self._block += payload
        if not flags & END_HEADERS:
            return
        found = {str(name): str(value) for name, value in self._decoder.decode(self._block)}
        if call is None:
            return
        if "grpc-status" in found:
            call.end(int(found["grpc-status"]), unquote(found.get("grpc-message", "")))
        elif found.get(":status", "200") != "200" or self._ends:
            call.end(UNAVAILABLE, f"no gRPC: HTTP status {found.get(':status')}")

    def _data(self, call: "Call | None", flags: int, payload: bytes) -> None:
        if payload:
            more = struct.pack(">I", len(payload))
            update = _frame(WINDOW_UPDATE, 0, 0, more)
            if call is not None:
                update += _frame(WINDOW_UPDATE, 0, call.id, more)
            self._socket.sendall(update)
        if call is not None:
            call.feed(_unpadded(flags, payload))


class Call:
    """One call: messages in both directions, and its end."""

    def __init__(self, connection: Connection, id_: int, window: int) -> None:
        self.id = id_
        self.window = window
        self.ended = False
        self._connection = connection
        self._answers: list[bytes] = []
        self._partial = bytearray()
        self._failure: CallFailed | None = None

    def send(self, pieces: Sequence[bytes | memoryview], *, end: bool = False) -> None:
        """One message, in pieces. Where the call has ended meanwhile, :meth:`receive` says why."""
        size = sum(map(len, pieces))
        prefix = b"\0" + struct.pack(">I", size)
        self._connection._send(self, [prefix, *pieces], end=end)

    def receive(self) -> bytes | None:
        """The next message; None at the end. Raises :class:`CallFailed`."""
        while not self._answers:
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return None
            self._connection._take()
        return self._answers.pop(0)

    def rest(self) -> Iterator[bytes]:
        """All messages up to the end."""
        while (answer := self.receive()) is not None:
            yield answer

    def finish(self) -> None:
        """Say that no more messages come, and wait for the end."""
        if not self.ended:
            self._connection._send(self, (), end=True)
        for _ in self.rest():
            pass

    def cancel(self) -> None:
        if not self.ended:
            self.ended = True
            reset = _frame(RST_STREAM, 0, self.id, struct.pack(">I", 8))
            self._connection._socket.sendall(reset)

    # -- from the connection

    def feed(self, data: bytes) -> None:
        self._partial += data
        while len(self._partial) >= 5:
            size = int.from_bytes(self._partial[1:5])
            if len(self._partial) < 5 + size:
                return
            self._answers.append(bytes(self._partial[5 : 5 + size]))
            del self._partial[: 5 + size]

    def end(self, status: int, message: str) -> None:
        self.ended = True
        if status:
            self._failure = CallFailed(status, message)


class _Chunks:
    """Takes so many bytes at a time off a row of pieces, without copies."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._pieces = [memoryview(piece) for piece in reversed(pieces) if len(piece)]

    def take(self, size: int) -> Iterator[memoryview]:
        while size:
            piece = self._pieces.pop()
            yield piece[:size]
            if len(piece) > size:
                self._pieces.append(piece[size:])
            size -= min(size, len(piece))


def _head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _head(kind, flags, stream, len(payload)) + payload


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
