"""
A cable of a machine, held in the hand: Ethernet frames in and out, and questions by multicast DNS.

QEMU's own network passes no multicast; its socket network puts each frame into a UDP datagram.
Source: RFC 6762; QEMU, "-netdev socket,udp".
"""

import re
import socket
import struct
import time
from types import TracebackType
from typing import Self

import dnslib

from tests.vm.qemu import free_port

MAC = "52:54:00:0a:0b:0c"  # of the machine's end
_OURS = bytes.fromhex("525400aabbcc")
_GROUP, _PORT = "224.0.0.251", 5353
_GROUP_MAC = bytes.fromhex("01005e0000fb")


class Wire:
    """Use it in a ``with``; ``options`` are for QEMU."""

    def __init__(self, address: str) -> None:
        """``address``: ours, in the network of the machine's interface."""
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._far = free_port()
        near = self._socket.getsockname()[1]
        self.options = (
            "-netdev",
            f"socket,id=wire,udp=127.0.0.1:{near},localaddr=127.0.0.1:{self._far}",
            "-device",
            f"virtio-net-pci,netdev=wire,mac={MAC}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def resolve(self, name: str, kind: str = "A", seconds: float = 60) -> set[str]:
        """What is answered to a question that everybody hears; empty where nobody answers."""
        question = dnslib.DNSRecord(dnslib.DNSHeader(id=0, qr=0, rd=0))
        question.add_question(dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, kind)))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._send(question.pack())
            if found := self._answers(name, kind, min(2.0, deadline - time.monotonic())):
                return found
        return set()

    def defend(self, name: str, address: str, seconds: float) -> str:
        """
        Say that a name is ours when somebody asks for it, and what the other one is called then.

        "" where nobody took another name in time.
        """
        answer = dnslib.DNSRecord(dnslib.DNSHeader(id=0, qr=1, aa=1, rd=0))
        # With the highest bit of the class: all other records of the name are to be forgotten.
        answer.add_answer(
            dnslib.RR(name, dnslib.QTYPE.A, rclass=0x8001, ttl=120, rdata=dnslib.A(address))
        )
        host = name.partition(".")[0]
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self._hear(left)
            if message is None:
                continue
            if any(str(question.qname).rstrip(".") == name for question in message.questions):
                self._send(answer.pack())
            for record in message.rr if message.header.qr else ():
                other = str(record.rname).rstrip(".")
                if re.fullmatch(rf"{host}\d+\.local", other):
                    return other
        return ""

    def _answers(self, name: str, kind: str, seconds: float) -> set[str]:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            message = self._hear(left)
            if message is None or not message.header.qr:
                continue
            found = {
                str(record.rdata)
                for record in (*message.rr, *message.ar)
                if str(record.rname).rstrip(".") == name and dnslib.QTYPE.get(record.rtype) == kind
            }
            if found:
                return found
        return set()

    def _hear(self, seconds: float) -> dnslib.DNSRecord | None:
        """The next message of multicast DNS; None where the next frame is none, or none comes."""
        self._socket.settimeout(seconds)
        try:
            return _message(self._socket.recv(65536))
        except TimeoutError:
            return None

    def _send(self, payload: bytes) -> None:
        udp = struct.pack("!HHHH", _PORT, _PORT, 8 + len(payload), 0) + payload
        ends = socket.inet_aton(self._address), socket.inet_aton(_GROUP)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 255, 17, 0, *ends)
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
        frame = _GROUP_MAC + _OURS + b"\x08\x00" + head + udp
        self._socket.sendto(frame, ("127.0.0.1", self._far))


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _message(frame: bytes) -> dnslib.DNSRecord | None:
    """Of a frame of multicast DNS over IPv4."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    start = 14 + (frame[14] & 0x0F) * 4
    if struct.unpack_from("!H", frame, start)[0] != _PORT:
        return None
    try:
        return dnslib.DNSRecord.parse(frame[start + 8 :])
    except dnslib.DNSError:
        return None
