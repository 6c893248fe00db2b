"""
The nft program: rulesets go in as one transaction, or not at all.

A process for each call rather than libnftables in ours: parsing a large ruleset
needs tens of megabytes once, and the kernel gives them back only when the process ends.
"""

import asyncio
import errno
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from node.host.netlink import Netlink, NetlinkError, attribute, is_absent, open_socket

_NETFILTER = 12
_GET_TABLE = 10 << 8 | 1
_TABLE_NAME = 1
_CHANGES = 7  # the multicast group for changes to any ruleset
_FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
_ADD_MEMBERSHIP, _SOL_NETLINK = 1, 270


class NftError(Exception):
    """nft refused the ruleset; nothing of it was applied. The text is nft's own."""


class NftMissing(Exception):
    """The nft program is not installed."""


class Nft:
    """
    Runs nft in the network namespace of this process, or in another.

    ``netns``: the path of a namespace, such as /run/netns/x; "" is our own.
    """

    def __init__(self, *, netns: str = "", program: str = "nft") -> None:
        prefix = ("nsenter", f"--net={netns}", "--") if netns else ()
        self._command = (*prefix, program)

    async def load(self, ruleset: str | Sequence[Any]) -> None:
        """
        Apply in one transaction: nft's language as text, or a list of commands as JSON.

        :class:`NftError` where nft or the kernel refused it.
        """
        if isinstance(ruleset, str):
            await self._run(("-f", "-"), ruleset.encode())
        else:
            await self._run(("-j", "-f", "-"), json.dumps({"nftables": ruleset}).encode())

    async def list_table(self, family: str, name: str) -> str | None:
        """The table in nft's language; None: there is no such table."""
        try:
            return await self._run(("list", "table", family, name), b"")
        except NftError as error:
            if "No such file or directory" in str(error):
                return None
            raise

    async def delete_table(self, family: str, name: str) -> None:
        """Remove a table with all its rules; one that is absent is fine."""
        # "destroy" would say so in one word, but nft 1.0.6 does not have it.
        await self.load(f"add table {family} {name}\ndelete table {family} {name}\n")

    async def _run(self, arguments: tuple[str, ...], given: bytes) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise NftMissing("nft is not installed: install the package nftables") from error
        try:
            output, message = await process.communicate(given)
        except asyncio.CancelledError:
            # The kernel applies a transaction whole, so killing nft leaves before or after.
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode != 0:
            raise NftError(message.decode(errors="replace").strip())
        return output.decode()


async def wait_until_lost(family: str, table: str, *, netns: str = "") -> None:
    """
    Return once a table is gone: ``nft flush ruleset``, which reloading a firewall does, takes all.

    Woken by the kernel, not by a timer. Ends at once if the table is absent already.
    """
    changes = open_socket(_NETFILTER, netns=netns)
    try:
        changes.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _CHANGES)
        changes.setblocking(False)
        while has_table(family, table, netns=netns):
            await _readable(changes)
            _drain(changes)
    finally:
        changes.close()


def has_table(family: str, table: str, *, netns: str = "") -> bool:
    body = struct.pack("=BBH", _FAMILIES[family], 0, 0)
    body += attribute(_TABLE_NAME, table.encode() + b"\0")
    with Netlink(_NETFILTER, netns=netns) as netlink:
        try:
            netlink.get(_GET_TABLE, body)
        except NetlinkError as error:
            if is_absent(error):
                return False
            raise
    return True


async def _readable(watched: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(watched, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(watched)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _drain(watched: socket.socket) -> None:
    """Throw away what is queued: that something changed is all we want to know."""
    while True:
        try:
            watched.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more changes than the queue holds: still a change
                raise
