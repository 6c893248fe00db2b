"""
What the cluster's names are made of, kept up to date change by change.

Only what answers need is kept of each object. Queries read it synchronously.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from controlplane.client.base import Change

_SERVICE_NAME_LABEL = "kubernetes.io/service-name"


class Key(NamedTuple):
    namespace: str
    name: str


class Port(NamedTuple):
    name: str
    protocol: str  # tcp, udp, sctp
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: Key
    addresses: tuple[str, ...]  # cluster IPs; empty: headless or an alias
    alias: str  # of ExternalName, in lower case, without the last dot; "": none
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    address: str
    label: str  # its own name below the service: the hostname, else the address with dashes
    ports: tuple[Port, ...]  # shared by the whole slice


class Index:
    """
    Services, their ready endpoints, and the nodes' names.

    Mutable state: the dictionaries below, changed by the ``on_…`` methods only.
    ``version`` grows with every change that could change an answer.
    """

    def __init__(self) -> None:
        self.version = 1
        self._services: dict[Key, Service] = {}
        self._per_namespace: dict[str, int] = {}
        self._endpoints: dict[Key, dict[str, tuple[Endpoint, ...]]] = {}
        self._slice_owner: dict[Key, Key] = {}
        self._by_address: dict[str, set[Key]] = {}  # cluster IP → services
        self._by_endpoint: dict[str, dict[Key, int]] = {}  # endpoint → services, counted
        self._nodes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}  # names, addresses
        self._hosts: dict[str, tuple[str, ...]] = {}  # name → addresses, of the nodes

    def service(self, key: Key) -> Service | None:
        return self._services.get(key)

    def has_namespace(self, namespace: str) -> bool:
        """Whether any service is in it: more is not known here."""
        return namespace in self._per_namespace

    def endpoints(self, key: Key) -> list[Endpoint]:
        """The ready ones."""
        return [e for found in self._endpoints.get(key, {}).values() for e in found]

    def services_at(self, address: str) -> list[Key]:
        return sorted(self._by_address.get(address, ()))

    def endpoints_at(self, address: str) -> list[tuple[Key, str]]:
        """(service, label) of each service that has this endpoint."""
        keys = sorted(self._by_endpoint.get(address, ()))
        found = [
            (key, e.label) for key in keys for e in self.endpoints(key) if e.address == address
        ]
        return list(dict.fromkeys(found))

    def host(self, name: str) -> tuple[str, ...] | None:
        """The addresses of the node with this name."""
        return self._hosts.get(name)

    def host_at(self, address: str) -> str | None:
        for names, addresses in self._nodes.values():
            if address in addresses:
                return names[0]
        return None

    def on_service(self, change: Change) -> None:
        key = Key(change.namespace, change.name)
        new = change.new
        old, parsed = self._services.get(key), _service(key, new) if new is not None else None
        if parsed == old:
            return
        self.version += 1
        if old is not None:
            del self._services[key]
            self._count(key.namespace, -1)
            for address in old.addresses:
                _discard(self._by_address, address, key)
        if parsed is not None:
            self._services[key] = parsed
            self._count(key.namespace, 1)
            for address in parsed.addresses:
                self._by_address.setdefault(address, set()).add(key)

    def on_slice(self, change: Change) -> None:
        where = Key(change.namespace, change.name)
        new = change.new
        owner = _owner(new) if new is not None else None
        endpoints = _endpoints(new) if new is not None and owner is not None else ()
        before = self._slice_owner.get(where)
        old = self._endpoints[before][change.name] if before is not None else ()
        if (before, old) == (owner, endpoints):
            return
        self.version += 1
        if before is not None:
            del self._slice_owner[where]
            self._take_out(before, change.name, old)
        if owner is not None:
            self._slice_owner[where] = owner
            self._endpoints.setdefault(owner, {})[change.name] = endpoints
            for endpoint in endpoints:
                services = self._by_endpoint.setdefault(endpoint.address, {})
                services[owner] = services.get(owner, 0) + 1

    def on_node(self, change: Change) -> None:
        node = change.new
        parsed = _node(node) if node is not None else None
        if parsed == self._nodes.get(change.name):
            return
        self.version += 1
        self._nodes.pop(change.name, None)
        if parsed is not None:
            self._nodes[change.name] = parsed
        self._hosts = {name: there for names, there in self._nodes.values() for name in names}

    def _take_out(self, owner: Key, name: str, endpoints: Iterable[Endpoint]) -> None:
        slices = self._endpoints[owner]
        del slices[name]
        if not slices:
            del self._endpoints[owner]
        for endpoint in endpoints:
            services = self._by_endpoint[endpoint.address]
            services[owner] -= 1
            if not services[owner]:
                del services[owner]
            if not services:
                del self._by_endpoint[endpoint.address]

    def _count(self, namespace: str, difference: int) -> None:
        count = self._per_namespace.get(namespace, 0) + difference
        if count:
            self._per_namespace[namespace] = count
        else:
            del self._per_namespace[namespace]


def _discard(index: dict[str, set[Key]], address: str, key: Key) -> None:
    index[address].discard(key)
    if not index[address]:
        del index[address]


def _service(key: Key, service: Mapping[str, Any]) -> Service:
    spec = service.get("spec") or {}
    alias = ""
    addresses: list[str] = []
    if spec.get("type") == "ExternalName":
        alias = spec.get("externalName", "").rstrip(".").lower()
    else:
        addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return Service(
        key=key,
        addresses=tuple(address for address in addresses if address not in ("", "None")),
        alias=alias,
        ports=tuple(_port(port) for port in spec.get("ports") or []),
    )


def _port(port: Mapping[str, Any]) -> Port:
    return Port(port.get("name") or "", port.get("protocol", "TCP").lower(), port.get("port") or 0)


def _owner(endpoint_slice: Mapping[str, Any]) -> Key | None:
    metadata = endpoint_slice["metadata"]
    name = (metadata.get("labels") or {}).get(_SERVICE_NAME_LABEL)
    return Key(metadata["namespace"], name) if name else None


def _endpoints(endpoint_slice: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    if endpoint_slice.get("addressType") not in ("IPv4", "IPv6"):
        return ()
    ports = tuple(_port(port) for port in endpoint_slice.get("ports") or [])
    found = []
    for entry in endpoint_slice.get("endpoints") or []:
        if (entry.get("conditions") or {}).get("ready") is False:
            continue
        for address in entry.get("addresses") or []:
            label = entry.get("hostname") or address.replace(".", "-").replace(":", "-")
            found.append(Endpoint(address=address, label=label.lower(), ports=ports))
    return tuple(found)


def _node(node: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    addresses = (node.get("status") or {}).get("addresses") or []
    names = [a["address"].lower() for a in addresses if a["type"] == "Hostname"]
    names = list(dict.fromkeys([node["metadata"]["name"].lower(), *names]))
    internal = tuple(a["address"] for a in addresses if a["type"] == "InternalIP")
    return tuple(names), internal
