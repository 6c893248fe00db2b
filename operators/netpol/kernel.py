"""
This node's kernel: load rules, notice when somebody removes them, forget connections.

nft runs as a process for each change rather than as a library in ours: parsing a large
ruleset takes tens of megabytes once, and only the end of a process gives them back.
"""

import asyncio
import logging
import struct
from collections.abc import Sequence
from pathlib import Path

from operators.netpol import conntrack, elements
from operators.netpol.conntrack import Flow
from operators.netpol.netlink import (
    ADD_MEMBERSHIP,
    SOL_NETLINK,
    Netfilter,
    attribute,
    drain,
    is_absent,
    subheader,
)
from operators.netpol.rules import FAMILY, TABLE
from operators.netpol.table import Difference

LOG = logging.getLogger(__name__)
_GET_TABLE = 10 << 8 | 1
_TABLE_NAME = 1
_CHANGES = 7  # the multicast group for changes to any ruleset
_INET = 1
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_BRIDGED6 = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")


class KernelError(Exception):
    """The rules could not be loaded, and nothing of them was; the text says why in one line."""


class Kernel:
    """``path``: where programs are looked for."""

    def __init__(self, *, path: str) -> None:
        self._environment = {"PATH": path}

    async def load(self, text: str) -> None:
        """Apply nft's language as one transaction: all of it or nothing."""
        await self._nft(text, "-f", "-")

    async def check(self, text: str) -> None:
        """Only whether nft understands it."""
        await self._nft(text, "-c", "-f", "-")

    async def _nft(self, text: str, *words: str) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                "nft",
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
        except FileNotFoundError as err:
            raise KernelError("nft is not installed: install the package nftables") from err
        try:
            _, message = await process.communicate(text.encode())
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise KernelError(" ".join(message.decode(errors="replace").split())[:500])

    async def change(self, difference: Difference) -> None:
        """The same for a difference to what is loaded, without nft where it can do without."""
        if not difference.elements_only:
            await self.load(difference.text)
            return
        try:
            await asyncio.to_thread(elements.change, difference.gone, difference.fresh)
        except OSError as err:
            raise KernelError(f"elements of sets: {err}") from err

    def exists(self) -> bool:
        """Is the table there? Costs some microseconds."""
        name = attribute(_TABLE_NAME, TABLE.encode() + b"\0")
        with Netfilter() as netfilter:
            try:
                netfilter.ask(_GET_TABLE, subheader(_INET) + name)
            except OSError as error:
                if is_absent(error):
                    return False
                raise
        return True

    async def remove(self) -> None:
        if self.exists():
            await self.load(f"delete table {FAMILY} {TABLE}\n")

    async def wait_until_lost(self) -> None:
        """Until the table is gone: ``nft flush ruleset``, which reloading a firewall does."""
        with Netfilter() as changes:
            # Some kernels count a member's group as a number of 32 bits, all in host order.
            changes.socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, struct.pack("=I", _CHANGES))
            changes.socket.setblocking(False)
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(changes.socket, told.set)
            try:
                while self.exists():
                    await told.wait()
                    drain(changes.socket)
                    told.clear()
            finally:
                loop.remove_reader(changes.socket)

    async def flows(self, addresses: frozenset[str]) -> list[Flow]:
        """Tracked connections that begin or end at one of these."""
        return await asyncio.to_thread(conntrack.flows, addresses)

    async def forget(self, flows: Sequence[Flow]) -> None:
        if flows:
            await asyncio.to_thread(conntrack.forget, flows)

    async def own_addresses(self) -> frozenset[str]:
        return await asyncio.to_thread(conntrack.own_addresses)

    def why_not_bridged(self) -> str:
        """
        Why packets between two pods on the bridge would not pass the rules; "": they do.

        The pod network sets it too; a machine's own settings may have come later.
        """
        try:
            for path in (_BRIDGED, *filter(Path.exists, [_BRIDGED6])):
                if path.read_text().strip() != "1":
                    path.write_text("1")
        except FileNotFoundError:
            return "this kernel has no br_netfilter, so traffic between pods cannot be filtered"
        except OSError as err:
            return f"cannot have traffic on bridges filtered: {err}"
        return ""
