"""
The node's own address, where nobody chose one: found at the start, and again when it changed.

A board starts before its router does, or moves to another network. A node that has an address no
longer, or had none, gets its children started anew with the one that it has now; its pods
run on. One more address beside the one in use changes nothing, nor does a cable that is out.
"""

import contextlib
import logging
import socket
from collections.abc import Mapping
from typing import Any

from node import settings as settings_of
from node.host.netlink import open_socket

LOG = logging.getLogger(__name__)
NOWHERE = "127.0.0.1"  # what a node without any network has
_ROUTE_PROTOCOL = 0  # NETLINK_ROUTE
_ADDRESSES = 0x10  # RTMGRP_IPV4_IFADDR
_DRAIN = 1 << 16


def moved(own: str, found: str, present: frozenset[str]) -> bool:
    """Whether the node must change from ``own`` to ``found``; ``present``: of all its links."""
    return found not in {own, NOWHERE} and own not in present


class Addresses:
    """Its mutable state is the address that the children were started with."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._is_found = bool(settings.get(settings_of.FOUND))
        self._own = settings["node-ip"][0]
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """From here on the socket is readable when an address came or went."""
        if not self._is_found:
            return
        with contextlib.suppress(OSError):
            self.socket = open_socket(_ROUTE_PROTOCOL, groups=_ADDRESSES)

    def heard(self) -> None:
        """Take what the kernel said: that something changed is all of it that counts."""
        assert self.socket is not None
        with contextlib.suppress(BlockingIOError, OSError):
            while self.socket.recv(_DRAIN, socket.MSG_DONTWAIT):
                pass

    def look(self) -> bool:
        """True: the children have to be started with another address."""
        found = settings_of.own_address()
        if not moved(self._own, found, settings_of.own_addresses()):
            return False
        LOG.info("the address of this node is %s now, and was %s", found, self._own)
        return True

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def current(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with the address that the machine has now, where nobody chose one."""
    if not settings.get(settings_of.FOUND):
        return settings
    found = settings_of.own_address()
    own = settings["node-ip"][0]
    keeps = own in settings_of.own_addresses() or found == NOWHERE
    return {**settings, "node-ip": (own if keeps else found,)}
