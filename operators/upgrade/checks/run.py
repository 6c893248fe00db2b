"""Joins the kinds of checks: all at the same time, each within its own time, one verdict."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from operators.client import ApiError, Client
from operators.config import read_kubeconfig
from operators.upgrade.base import Verdict
from operators.upgrade.checks import objects
from operators.upgrade.checks.objects import Cel, Check, CheckError, Exec, Http, Pods, Tcp

AT_ONCE = 8
PASSED = Verdict(passed=True, message="")
_LONGEST = 900  # characters of a message: an Event's message holds 1024
_ADDRESS_SECONDS = 10.0


class HealthChecks:
    """
    A :class:`~operators.upgrade.base.Checks`.

    ``kubeconfig``: with what commands in pods are asked for. Its state is what the API's
    discovery said about kinds.
    """

    def __init__(self, client: Client, *, kubeconfig: Path) -> None:
        self._client = client
        self._kubeconfig = kubeconfig
        self._kinds: Any = None

    async def verdict(self, checks: Sequence[Mapping[str, Any]], *, node: str) -> Verdict:
        try:
            parsed = await self._parse(checks, node)
        except CheckError as err:
            return Verdict(passed=False, message=str(err)[:_LONGEST])
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(check: Check) -> str:
            async with turn:
                return await self._within_its_time(check)

        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(one(check)) for check in parsed]
        found = zip(parsed, looks, strict=True)
        bad = [(check.name, look.result()) for check, look in found if look.result()]
        if not bad:
            return PASSED
        name, why = bad[0]
        others = f" (and {', '.join(other for other, _ in bad[1:])})" if bad[1:] else ""
        return Verdict(passed=False, message=f"check {name}: {why[:_LONGEST]}{others[:_LONGEST]}")

    async def _parse(self, checks: Sequence[Mapping[str, Any]], node: str) -> list[Check]:
        address = await self._address(node) if objects.names_address(checks) else ""
        found = []
        for item in checks:
            try:
                found.append(objects.parse(objects.substituted(item, name=node, ip=address)))
            except CheckError as err:
                name = item.get("name") or "?"
                raise CheckError(f"check {name}: {err}".replace("\n", "; ")) from err
        return found

    async def _address(self, node: str) -> str:
        try:
            async with asyncio.timeout(_ADDRESS_SECONDS):
                found = await self._client.get(f"/api/v1/nodes/{node}")
        except (ApiError, TimeoutError) as err:
            why = str(err) or "no answer"
            raise CheckError(f"cannot ask for the address of node {node}: {why}") from err
        addresses = (found.get("status") or {}).get("addresses") or ()
        for address in addresses:
            if address["type"] == "InternalIP":
                return str(address["address"])
        raise CheckError(f"node {node} has no address")

    async def _within_its_time(self, check: Check) -> str:
        try:
            async with asyncio.timeout(check.seconds):
                return await self._look(check.what)
        except TimeoutError:
            return f"no answer within {check.seconds:.0f} s"
        except ApiError as err:
            return str(err) or f"the API answered {err.code}"
        except Exception as err:
            # Whatever it is, it is no reason to think that the node is well.
            return f"{type(err).__name__}: {err}"

    async def _look(self, what: Http | Tcp | Exec | Cel | Pods) -> str:
        # Each with its own module, and none of them before somebody has such a check.
        match what:
            case Http():
                from operators.upgrade.checks import web

                return await web.look(what)
            case Tcp():
                from operators.upgrade.checks import web

                return await web.connect(what)
            case Exec():
                from operators.upgrade.checks import pods

                return await pods.run(what, self._client, lambda: read_kubeconfig(self._kubeconfig))
            case Pods():
                from operators.upgrade.checks import pods

                return await pods.look(what, self._client)
            case Cel():
                from operators.upgrade.checks import expression

                if self._kinds is None:
                    self._kinds = expression.Kinds(self._client)
                return await expression.look(what, self._client, self._kinds)
