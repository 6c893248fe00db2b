"""
A host made of network namespaces: a node with pods on a bridge, and a client outside.

Everything is the kernel's own; sockets are opened inside a namespace and then used
from the test's event loop. Also :class:`Objects`, the feed that the parts under
test subscribe to, and :class:`RecordingNft` for tests without root.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from controlplane.client.base import Change, Object
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import PODS
from node.host import sysctl
from node.host.netlink import run_inside

_numbers = itertools.count()


class Objects:
    """Reads and Feed over a dictionary: what is put is delivered at once."""

    def __init__(self) -> None:
        self._objects: dict[tuple[Resource, str, str], Object] = {}
        self._subscribers: list[tuple[frozenset[Resource], Callable[[Change], None]]] = []

    def put(self, resource: Resource, body: Object) -> None:
        metadata = body["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        old = self._objects.get(key)
        self._objects[key] = body
        self._tell(key, old, body)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        key = (resource, namespace, name)
        self._tell(key, self._objects.pop(key), None)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._objects.get((resource, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        return [
            body
            for (kind, where, _), body in sorted(self._objects.items())
            if kind == resource and namespace in ("", where)
        ]

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        raise NotImplementedError

    def on_node(self, node: str) -> Sequence[Object]:
        return [pod for pod in self.list(PODS) if pod["spec"].get("nodeName") == node]

    def subscribe(
        self, resources: Iterable[Resource], deliver: Callable[[Change], None]
    ) -> Callable[[], None]:
        entry = (frozenset(resources), deliver)
        self._subscribers.append(entry)
        for key, body in list(self._objects.items()):
            if key[0] in entry[0]:
                deliver(_change(key, None, body))
        return lambda: self._subscribers.remove(entry)

    def _tell(self, key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> None:
        for resources, deliver in list(self._subscribers):
            if key[0] in resources:
                deliver(_change(key, old, new))


def _change(key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> Change:
    return Change(
        *key,
        load_old=None if old is None else lambda: old,
        load_new=None if new is None else lambda: new,
    )


def service(name: str, cluster_ip: str, ports: list[dict[str, Any]], **spec: Any) -> Object:
    status = spec.pop("status", {})
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"type": "ClusterIP", "clusterIPs": [cluster_ip], "ports": ports, **spec},
        "status": status,
    }


def endpoint_slice(
    name: str, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]]
) -> Object:
    return {
        "metadata": {
            "namespace": "default",
            "name": f"{name}-x",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def ready(address: str, node: str = "n1", **more: Any) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": {"ready": True}, **more}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """A network namespace of the test, with lo up."""

    def __init__(self, label: str) -> None:
        self.name = f"t{os.getpid()}-{next(_numbers)}-{label}"
        self.path = f"/run/netns/{self.name}"
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


class Host:
    """The node ``n1`` (192.0.2.1, bridge 10.42.0.1/24), a client at 192.0.2.9, pods on request."""

    def __init__(self) -> None:
        self.node = Namespace("node")
        self.client = Namespace("client")
        self._pods: list[Namespace] = []
        connect(End(self.node, "up0", "192.0.2.1/24"), End(self.client, "up0", "192.0.2.9/24"))
        self.node.ip("link", "add", "cni0", "type", "bridge")
        self.node.ip("addr", "add", "10.42.0.1/24", "dev", "cni0")
        self.node.ip("link", "set", "cni0", "up")
        self.node.ip("route", "add", "10.43.0.0/16", "dev", "lo", "src", "192.0.2.1")
        self.client.ip("route", "add", "10.43.0.0/16", "via", "192.0.2.1")
        sysctl.ensure("net.ipv4.ip_forward", "1", netns=self.node.path)
        sysctl.ensure("net.ipv4.conf.all.route_localnet", "1", netns=self.node.path)

    def add_pod(self, address: str) -> Namespace:
        pod = Namespace("pod")
        self._pods.append(pod)
        port = f"v{len(self._pods)}"
        self.node.ip("link", "add", port, "type", "veth", "peer", "eth0", "netns", pod.name)
        self.node.ip("link", "set", port, "master", "cni0")
        self.node.ip("link", "set", port, "type", "bridge_slave", "hairpin", "on")
        self.node.ip("link", "set", port, "up")
        pod.ip("addr", "add", f"{address}/24", "dev", "eth0")
        pod.ip("link", "set", "eth0", "up")
        pod.ip("route", "add", "default", "via", "10.42.0.1")
        return pod

    def remove(self) -> None:
        for namespace in (*self._pods, self.client, self.node):
            namespace.remove()


class End(NamedTuple):
    namespace: Namespace
    port: str
    address: str  # with its prefix length


def connect(one: End, two: End) -> None:
    """A cable between two namespaces."""
    peer = ("peer", two.port, "netns", two.namespace.name)
    one.namespace.ip("link", "add", one.port, "type", "veth", *peer)
    for end in (one, two):
        end.namespace.ip("addr", "add", end.address, "dev", end.port)
        end.namespace.ip("link", "set", end.port, "up")


def open_in(namespace: Namespace, kind: socket.SocketKind) -> socket.socket:
    opened = run_inside(namespace.path, lambda: socket.socket(socket.AF_INET, kind))
    opened.setblocking(False)
    return opened


class Server:
    """A TCP or UDP server in a namespace: answers with its name and the client's address."""

    def __init__(self, namespace: Namespace, name: str, port: int, *, udp: bool = False) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._socket = open_in(namespace, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))
        self._name = name
        self._udp = udp
        self._close: Callable[[], None] = lambda: None

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        if self._udp:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Echo(self._name), sock=self._socket
            )
            self._close = transport.close
        else:
            self._socket.listen()
            server = await asyncio.start_server(self._serve, sock=self._socket)
            self._close = server.close
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        await asyncio.sleep(0)

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self._name} {writer.get_extra_info('peername')[0]}".encode())
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(f"{self._name} {addr[0]}".encode(), addr)


async def ask_tcp(
    namespace: Namespace, address: str, port: int, *, source: str = "", seconds: float = 2
) -> str:
    """What the server says: its name and the client's address as it sees it."""
    loop = asyncio.get_running_loop()
    with open_in(namespace, socket.SOCK_STREAM) as client:
        if source:
            client.bind((source, 0))
        async with asyncio.timeout(seconds):
            await loop.sock_connect(client, (address, port))
            return (await loop.sock_recv(client, 100)).decode()


async def ask_udp(client: socket.socket, address: str, port: int, *, seconds: float = 2) -> str:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        await loop.sock_sendto(client, b"?", (address, port))
        return (await loop.sock_recv(client, 100)).decode()


class RecordingNft:
    """Keeps what was loaded instead of running nft."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    async def load(self, ruleset: str | Sequence[Any]) -> None:
        self.loaded.append(str(ruleset))

    async def list_table(self, family: str, name: str) -> str | None:
        return None

    async def delete_table(self, family: str, name: str) -> None:
        self.loaded.append(f"delete table {family} {name}")


@contextlib.contextmanager
def new_host() -> Iterator[Host]:
    host = Host()
    try:
        yield host
    finally:
        host.remove()
