"""
The nft program: rulesets go in as one transaction, or not at all.

A process for each call rather than libnftables in ours: parsing a large ruleset
needs tens of megabytes once, and the kernel gives them back only when the process ends.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any


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
