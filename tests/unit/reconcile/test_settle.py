"""A pass is over only when Reads shows what it wrote, so that nothing is done twice."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CONFIG_MAPS, SECRETS
from controlplane.reconcile.base import Controller, Create, Delete, Key, SetStatus, Write
from tests.fakes.reads import World
from tests.fakes.running import running


class Lagging(World):
    """Shows and tells each change only a while after it was written."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[Any, dict[str, Any]] = {}
        self._lagging: list[tuple[Resource, Callable[[Change], None]]] = []

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._shown.get((resource.group, resource.plural, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        return [
            item
            for address, item in self._shown.items()
            if address[:2] == (resource.group, resource.plural)
            and (not namespace or address[2] == namespace)
        ]

    def subscribe(
        self, resources: Iterable[Resource], deliver: Callable[[Change], None]
    ) -> Callable[[], None]:
        self._lagging += [(resource, deliver) for resource in resources]
        return self._lagging.clear

    def _tell(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        address = (resource.group, resource.plural, meta.get("namespace", ""), meta["name"])
        shown = dict(new) if new is not None else None
        loop = asyncio.get_running_loop()
        lag = 0.05 if resource == CONFIG_MAPS else 0.001
        loop.call_later(lag, self._show, resource, address, shown)

    def _show(self, resource: Resource, address: Any, new: dict[str, Any] | None) -> None:
        old = self._shown.pop(address, None)
        if new is not None:
            self._shown[address] = new
        change = Change(
            resource,
            address[2],
            address[3],
            (lambda: old) if old is not None else None,
            (lambda: new) if new is not None else None,
        )
        for wanted, deliver in list(self._lagging):
            if wanted == resource:
                deliver(change)


def ensure_two(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    """Two ConfigMaps with generated names: made four times by a controller with a stale view."""
    for _ in range(2 - len(reads.list(CONFIG_MAPS))):
        meta = {"generateName": "c-", "namespace": "default"}
        yield Create(CONFIG_MAPS, {"metadata": meta})


def secret() -> dict[str, Any]:
    return {"metadata": {"name": "s", "namespace": "default"}, "status": {}}


def controller(reconcile: Callable[[Key, Reads, datetime], Iterable[Write]]) -> Controller:
    return Controller(
        name="test",
        primary=SECRETS,
        reads=frozenset(),
        writes=frozenset({SECRETS, CONFIG_MAPS}),
        reconcile=reconcile,
    )


async def settled(run: Any, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await run.settle()


async def test_nothing_is_made_twice_though_the_view_lags() -> None:
    async with running(controller(ensure_two), world=Lagging()) as run:
        first = asyncio.Event()
        run.world.refuse = lambda *_: first.set()
        run.world.put(SECRETS, secret())
        async with asyncio.timeout(10):
            await first.wait()
        # Brings the key back while the first pass's writes do not show yet.
        run.world.change(SECRETS, "default", "s", data={"a": "b"})
        await settled(run, lambda: run.loop.counters["test"].passes >= 2)
        made = [verb for verb, what, _ in run.world.writes if what == "configmaps"]
        assert made == ["create", "create"]


async def test_a_status_before_a_deletion_is_not_waited_for() -> None:
    def reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        found = reads.get(SECRETS, key.namespace, key.name)
        if found is not None:
            yield SetStatus(SECRETS, found, {"phase": "Failed"})
            yield Delete(SECRETS, found)

    async with running(controller(reconcile), world=Lagging()) as run:
        run.world.put(SECRETS, secret())
        await settled(run, lambda: run.loop.counters["test"].passes > 0)
        async with asyncio.timeout(2):  # less than the bound after which waiting is given up
            await run.loop.wait_idle()
        assert run.loop.counters["test"].errors == 0
