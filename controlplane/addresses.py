"""
The addresses of this machine, for the API server's certificate: those it has now, as they change.

People reach a server by whatever address their network gives it, and by several (a cable, Wi-Fi,
IPv6). The certificate names all of them; one that comes later is added when the kernel tells of it.

Source: rtnetlink(7).
"""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import replace

from controlplane.config import Config

LOG = logging.getLogger(__name__)
_NOT_OURS = re.compile(r"lo|cni0|flannel|pinnace|veth|docker|dummy|br-|kube-|virbr")
_ALL = frozenset({"", "0.0.0.0", "::"})
_ROUTE_PROTOCOL = 0  # NETLINK_ROUTE
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_TOGETHER_SECONDS = 2.0  # addresses of one network come one after the other
_DRAIN = 1 << 16


def own() -> frozenset[str]:
    """Addresses of both families that others can use: not of pods, not of a link alone."""
    import psutil

    found = set()
    for link, addresses in psutil.net_if_addrs().items():
        if _NOT_OURS.match(link):
            continue
        for one in addresses:
            text = one.address.partition("%")[0]
            usable = one.family in (socket.AF_INET, socket.AF_INET6)
            if usable and not text.startswith(("fe80", "127.", "::1", "169.254.")):
                found.add(text)
    return frozenset(found)


def answers_at_all(bind_address: str) -> bool:
    """Whether a server bound so is reached by whatever address the machine gets."""
    return bind_address in _ALL


def named_in(config: Config) -> Config:
    """The configuration whose certificate has the addresses that it answers at, as they are now."""
    if not answers_at_all(config.bind_address):
        return replace(config, tls_sans=(*config.tls_sans, config.bind_address))
    return replace(config, tls_sans=tuple(dict.fromkeys([*config.tls_sans, *sorted(own())])))


async def follow(bind_address: str, changed: Callable[[], None]) -> None:
    """
    Call ``changed`` after addresses came that were not there before; of a server that is bound to
    one address, nobody.

    One that went stays in the certificate until another comes: a cable that is out for a moment
    must not cost two certificates.
    """
    if not answers_at_all(bind_address):
        return
    with contextlib.ExitStack() as opened:
        try:
            kernel = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE_PROTOCOL
            )
            opened.callback(kernel.close)
            kernel.bind((0, _GROUPS))
        except OSError as err:
            LOG.warning("addresses that change are not followed: %s", err)
            return
        kernel.setblocking(False)
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(kernel, told.set)
        opened.callback(loop.remove_reader, kernel)
        known = own()
        while True:
            await told.wait()
            await asyncio.sleep(_TOGETHER_SECONDS)
            _drain(kernel)
            told.clear()
            now = own()
            if not now <= known:
                known = now
                changed()


def _drain(kernel: socket.socket) -> None:
    """That something changed is all that counts of what the kernel says."""
    with contextlib.suppress(OSError):
        while kernel.recv(_DRAIN):
            pass
