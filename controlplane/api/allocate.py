"""
Cluster addresses and node ports: who has which, and the next free one.

The live Services are the only record. The allocator follows them through the
cache and holds what a write in flight has taken, so that two writers never get
the same. Numbers are drawn from the upper part of a range; its first part is
left to those who ask for a certain number (KEP-3070, KEP-3668).
"""

import random
from collections.abc import Callable, Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from controlplane.api.call import Network
from controlplane.client.base import Change, Feed
from controlplane.objects.kinds import Resource

SERVICES = Resource("", "v1", "services", True)
_TRIES = 64


class Taken(Exception):
    """Cannot be had; the message is the API's."""


class Allocator:
    """Its mutable state: numbers by the service that has them, and those of writes in flight."""

    def __init__(self, network: Network) -> None:
        self._network = network
        first = int(network.service_cidr.network_address)
        self._addresses = range(first + 1, first + network.service_cidr.num_addresses - 1)
        self._ports = range(network.node_ports[0], network.node_ports[1] + 1)
        self._address_owner: dict[int, str] = {}
        self._port_owner: dict[int, str] = {}
        self._held: set[int] = set()  # addresses and ports; they cannot be confused
        self._reserved = {int(IPv4Address(address)) for address in network.reserved}

    def follow(self, feed: Feed) -> Callable[[], None]:
        """Learn of every Service that exists and will; the result ends it."""
        return feed.subscribe((SERVICES,), self._changed)

    def _changed(self, change: Change) -> None:
        who = f"{change.namespace}/{change.name}"
        old, new = change.old, change.new
        for owners, numbers in (
            (self._address_owner, _addresses),
            (self._port_owner, _node_ports),
        ):
            for number in numbers(old) if old is not None else ():
                if owners.get(number) == who:
                    del owners[number]
            for number in numbers(new) if new is not None else ():
                owners[number] = who

    # Addresses

    def take_address(self, wanted: str, hold: "Hold") -> str:
        """``wanted`` "" means any. Raises :class:`Taken`."""
        if wanted:
            return self._take_wanted_address(wanted, hold)
        offset = min(max(16, len(self._addresses) // 16), 256)
        number = self._draw(self._addresses, offset, self._address_owner)
        if number is None:
            raise Taken("range is full")
        self._hold(number, hold)
        return str(IPv4Address(number))

    def _take_wanted_address(self, wanted: str, hold: "Hold") -> str:
        try:
            number = int(IPv4Address(wanted))
        except AddressValueError:
            raise Taken("the provided network does not match the current range") from None
        if number not in self._addresses:
            raise Taken(
                f"the provided IP ({wanted}) is not in the valid range. "
                f"The range of valid IPs is {self._network.service_cidr}"
            )
        if number in self._held or number in self._address_owner:
            raise Taken("provided IP is already allocated")
        self._hold(number, hold)
        return wanted

    # Ports

    def take_port(self, wanted: int, hold: "Hold") -> int:
        """``wanted`` 0 means any. Raises :class:`Taken`."""
        if wanted:
            if wanted not in self._ports:
                first, last = self._network.node_ports
                raise Taken(
                    "provided port is not in the valid range. "
                    f"The range of valid ports is {first}-{last}"
                )
            if wanted in self._held or wanted in self._port_owner:
                raise Taken("provided port is already allocated")
            self._hold(wanted, hold)
            return wanted
        offset = min(max(16, len(self._ports) // 32), 128)
        number = self._draw(self._ports, offset, self._port_owner)
        if number is None:
            raise Taken("range is full")
        self._hold(number, hold)
        return number

    def _draw(self, numbers: range, offset: int, owners: Mapping[int, str]) -> int | None:
        upper = numbers[offset:] if len(numbers) > 2 * offset else numbers
        for _ in range(_TRIES):
            number: int = random.choice(upper)  # noqa: S311 - a spread, not a secret
            if self._free(number, owners):
                return number
        for number in (*upper, *numbers[:offset]):
            if self._free(number, owners):
                return number
        return None

    def _free(self, number: int, owners: Mapping[int, str]) -> bool:
        return number not in owners and number not in self._held and number not in self._reserved

    def _hold(self, number: int, hold: "Hold") -> None:
        self._held.add(number)
        hold.numbers.add(number)

    def release(self, hold: "Hold") -> None:
        """The write is over: stored, and known from the feed, or failed."""
        self._held -= hold.numbers
        hold.numbers.clear()


class Hold:
    """What one write has taken until it is over."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: set[int] = set()


def _addresses(service: Mapping[str, Any]) -> Iterator[int]:
    for address in service.get("spec", {}).get("clusterIPs") or ():
        if address and address != "None" and ":" not in address:
            yield int(IPv4Address(address))


def _node_ports(service: Mapping[str, Any]) -> Iterator[int]:
    spec = service.get("spec", {})
    for port in spec.get("ports") or ():
        if port.get("nodePort"):
            yield port["nodePort"]
    if spec.get("healthCheckNodePort"):
        yield spec["healthCheckNodePort"]
