"""
Pods as network namespaces, probed all at once from one process; and objects in few words.

Sockets are opened inside a namespace by a thread that moves there, and stay there.
"""

import contextlib
import errno
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from node.host import sysctl
from node.host.netlink import enter_namespace, run_inside
from tests.fakes.host import Host, Namespace, new_host

Object = dict[str, Any]
PATIENCE = 3.0  # seconds, for an answer to a probe; what is denied is refused at once


def pod(
    name: str,
    ip: str,
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    ports: Sequence[Mapping[str, Any]] = (),
    node: str = "n1",
    version: int = 1,
    **status: Any,
) -> Object:
    ips = [{"ip": one} for one in ip.split(",") if one]
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}-{name}",
            "labels": dict(labels or {}),
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": list(ports)}]},
        "status": {"phase": "Running", "podIPs": ips, **status},
    }


def policy(
    name: str, spec: Mapping[str, Any], *, namespace: str = "default", version: int = 1
) -> Object:
    metadata = {"namespace": namespace, "name": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"podSelector": {}, **spec}}


def namespace_object(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


class Probe(NamedTuple):
    source: str  # the name of a namespace of :class:`Net`
    target: str  # an address
    protocol: str  # TCP or UDP
    port: int


@dataclass
class Net:
    """A node with pods on its bridge and a client outside; servers in all of them."""

    host: Host
    names: dict[str, Namespace] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    _served: list[socket.socket] = field(default_factory=list)
    _end: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        sysctl.ensure("net.bridge.bridge-nf-call-iptables", "1", netns=self.host.node.path)
        # As on a node, where the translation of addresses tracks connections before we come.
        nat = (
            "add table ip t; add chain ip t c { type nat hook postrouting priority srcnat; }; "
            "add rule ip t c ip saddr 198.18.0.1 masquerade"
        )
        subprocess.run([*self.enter, "nft", nat], check=True)
        # Every refusal is told at once, also the hundredth in a second.
        for namespace in (self.host.node, self.host.client):
            sysctl.ensure("net.ipv4.icmp_ratemask", "0", netns=namespace.path)
        self.host.client.ip("route", "add", "10.42.0.0/24", "via", "192.0.2.1")
        self.add("node", self.host.node, "192.0.2.1")
        self.add("client", self.host.client, "192.0.2.9")

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={self.host.node.path}", "--")

    def add(self, name: str, namespace: Namespace, address: str) -> None:
        self.names[name], self.addresses[name] = namespace, address

    def add_pod(self, name: str, address: str) -> Namespace:
        self.add(name, self.host.add_pod(address), address)
        sysctl.ensure("net.ipv4.icmp_ratemask", "0", netns=self.names[name].path)
        return self.names[name]

    def serve(self, tcp: Iterable[int], udp: Iterable[int]) -> None:
        """On these ports, in every namespace."""

        def open_all() -> list[socket.socket]:
            found = [_listening(socket.SOCK_STREAM, port) for port in tcp]
            return found + [_listening(socket.SOCK_DGRAM, port) for port in udp]

        for namespace in self.names.values():
            self._served += run_inside(namespace.path, open_all)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for one in (*self._served, self._end[1]):
                selector.register(one, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._end[1]:
                        return
                    _answer(key.fileobj)

    def close(self) -> None:
        self._end[0].send(b"x")
        if self._thread:
            self._thread.join()
        for one in (*self._served, *self._end):
            one.close()

    def probe(self, probes: Sequence[Probe]) -> list[bool]:
        """Which get through, each from a socket of its own."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._probe, probes).result()

    def _probe(self, probes: Sequence[Probe]) -> list[bool]:
        found = [False] * len(probes)
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            order = sorted(range(len(probes)), key=lambda number: probes[number].source)
            inside = ""
            for number in order:
                one = probes[number]
                if one.source != inside:
                    enter_namespace(self.names[one.source].path)
                    inside = one.source
                opened = stack.enter_context(_begin(one))
                wanted = selectors.EVENT_WRITE if one.protocol == "TCP" else selectors.EVENT_READ
                selector.register(opened, wanted, number)
            waiting = len(probes)
            while waiting:
                ready = selector.select(PATIENCE)
                assert ready, f"no answer to {waiting} probes, neither yes nor no"
                for key, _ in ready:
                    found[key.data] = _came_through(key.fileobj, probes[key.data].protocol)
                    selector.unregister(key.fileobj)
                    waiting -= 1
        return found


def _listening(kind: socket.SocketKind, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, kind)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_DGRAM:
        # From the address that was asked, on a host that has several.
        opened.setsockopt(socket.SOL_IP, 8, 1)  # IP_PKTINFO
    opened.bind(("0.0.0.0", port))
    if kind == socket.SOCK_STREAM:
        opened.listen(512)
    return opened


def _answer(served: Any) -> None:
    with contextlib.suppress(BlockingIOError):
        if served.type == socket.SOCK_STREAM:
            while True:
                served.accept()[0].close()
        while True:
            data, told, _, sender = served.recvmsg(100, 100)
            served.sendmsg([data], [(level, kind, info) for level, kind, info in told], 0, sender)


def _begin(probe: Probe) -> socket.socket:
    kind = socket.SOCK_STREAM if probe.protocol == "TCP" else socket.SOCK_DGRAM
    opened = socket.socket(socket.AF_INET, kind)
    opened.setblocking(False)
    if kind == socket.SOCK_STREAM:
        # No TIME_WAIT: hundreds of probes go the same way.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    code = opened.connect_ex((probe.target, probe.port))
    assert code in (0, errno.EINPROGRESS), (probe, code)
    if kind == socket.SOCK_DGRAM:
        opened.send(b"?")
    return opened


def _came_through(opened: Any, protocol: str) -> bool:
    if protocol == "TCP":
        return bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0)
    try:
        return bool(opened.recv(100) == b"?")
    except OSError:
        return False


@contextlib.contextmanager
def new_net() -> Iterator[Net]:
    with new_host() as host:
        net = Net(host)
        try:
            yield net
        finally:
            net.close()
