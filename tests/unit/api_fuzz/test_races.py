"""
Many writers on few objects: what was acknowledged happened, once, in one order that all see.

The order is that of a single watch. Writers note what they were told; afterwards
the watch must hold every acknowledged revision, and no counter may have lost one.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.base import Object, PatchType
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import CONFIG_MAPS
from controlplane.store.sqlite import SqliteStore
from tests.fakes.api_server import Served, serving
from tests.unit.api_fuzz.checks import MERGE
from tests.unit.api_fuzz.server import fuzzed

TASKS, TURNS = 50, 10
NAMES = ("a", "b", "c")
EXPECTED = {404, 409}  # somebody else was faster


class Witness:
    """What one watch was told, from the beginning."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []  # type, name, revision
        self.states: dict[str, Object] = {}
        self.told = asyncio.Event()

    async def follow(self, served: Served) -> None:
        async for event in served.client.watch(CONFIG_MAPS, after="0"):
            if event.type == "BOOKMARK":
                continue
            metadata = event.object["metadata"]
            name = metadata["name"]
            assert (event.type == "ADDED") is (name not in self.states)
            self.told.set()
            self.events.append((event.type, name, int(metadata["resourceVersion"])))
            if event.type == "DELETED":
                del self.states[name]
            else:
                self.states[name] = event.object

    async def until(self, revision: int) -> None:
        async with asyncio.timeout(20):
            while not self.events or self.events[-1][2] < revision:
                self.told.clear()
                await self.told.wait()


class Writers:
    """What was acknowledged, by the uid of the object that it was about."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.revisions: set[tuple[str, int]] = set()
        self.deletions = 0
        self.counts: dict[str, list[int]] = defaultdict(list)
        self.marks: dict[str, dict[str, str]] = defaultdict(dict)
        self.unexpected: list[StatusError] = []

    async def work(self, number: int) -> None:
        rng = random.Random(number)
        for turn in range(TURNS):
            name = rng.choice(NAMES)
            act = rng.choice(
                (self._create_again, self._count, self._count, self._mark, self._apply)
            )
            try:
                if rng.random() < 0.05:
                    await self._delete(name)
                else:
                    await act(name, f"t{number}", str(turn))
            except StatusError as error:
                if error.code not in EXPECTED:
                    self.unexpected.append(error)

    def _told(self, obj: Object) -> str:
        metadata = obj["metadata"]
        self.revisions.add((metadata["name"], int(metadata["resourceVersion"])))
        return str(metadata["uid"])

    async def _create_again(self, name: str, _field: str, _value: str) -> None:
        await self.create(name)

    async def create(self, name: str) -> None:
        body = {"metadata": {"name": name, "namespace": "default"}, "data": {"n": "0"}}
        self._told(await self._served.client.create(CONFIG_MAPS, body))

    async def _count(self, name: str, _field: str, _value: str) -> None:
        """Read, add one, write back what was read: 409 if it has changed since."""
        found = await self._served.client.get(CONFIG_MAPS, "default", name)
        number = int((found.get("data") or {}).get("n", "0")) + 1
        body = {**found, "data": {**(found.get("data") or {}), "n": str(number)}}
        uid = self._told(await self._served.client.update(CONFIG_MAPS, body))
        self.counts[uid].append(number)

    async def _mark(self, name: str, field: str, value: str) -> None:
        """A patch names no resourceVersion: it is tried again until it holds."""
        body = {"data": {field: value}}
        answer = await self._served.client.patch(CONFIG_MAPS, "default", name, body=body)
        self.marks[self._told(answer)][field] = value

    async def _apply(self, name: str, field: str, value: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {f"apply-{field}": value},
        }
        answer = await self._served.client.patch(
            CONFIG_MAPS,
            "default",
            name,
            body=body,
            type=PatchType.APPLY,
            options={"fieldManager": field, "force": "true"},
        )
        self.marks[self._told(answer)][f"apply-{field}"] = value

    async def _delete(self, name: str) -> None:
        await self._served.client.delete(CONFIG_MAPS, "default", name)
        self.deletions += 1


@asynccontextmanager
async def on(kind: str, folder: Path) -> AsyncIterator[Served]:
    changes: dict[str, Any] = {}
    if kind == "sqlite":
        changes["store"] = await SqliteStore.open(folder / "state.db")
    async with serving(**changes) as served:
        yield served


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_acknowledged_write_is_seen_once_and_in_order(
    tmp_path: Path, kind: str
) -> None:
    async with on(kind, tmp_path) as served:
        witness, writers = Witness(), Writers(served)
        watching = asyncio.ensure_future(witness.follow(served))
        for name in NAMES:
            await writers.create(name)
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(writers.work(number))
        await witness.until(served.parts.cache.bucket("/core/configmaps/").changed)
        watching.cancel()
        assert not writers.unexpected
        assert len(writers.revisions) > TURNS
        revisions = [revision for _, _, revision in witness.events]
        assert revisions == sorted(set(revisions))
        assert writers.revisions <= {(name, revision) for _, name, revision in witness.events}
        assert writers.deletions == sum(type_ == "DELETED" for type_, _, _ in witness.events)
        listed = await served.client.list(CONFIG_MAPS)
        assert {obj["metadata"]["name"]: obj for obj in listed.items} == witness.states
        assert all(len(counts) == len(set(counts)) for counts in writers.counts.values())
        for obj in listed.items:
            uid, data = obj["metadata"]["uid"], obj.get("data") or {}
            assert int(data.get("n", "0")) == max(writers.counts[uid], default=0)
            assert data.items() >= writers.marks[uid].items()


async def test_an_object_leaves_with_its_last_finalizer_whoever_races_for_it() -> None:
    async with serving() as served:
        client = served.client
        for round_ in range(20):
            name = f"f{round_}"
            finalizers = [f"example.com/{at}" for at in range(4)]
            metadata = {"name": name, "namespace": "default", "finalizers": finalizers}
            await client.create(CONFIG_MAPS, {"metadata": metadata})

            async def let_go(finalizer: str, name: str = name) -> None:
                while True:
                    found = await client.get(CONFIG_MAPS, "default", name)
                    left = [f for f in found["metadata"].get("finalizers") or () if f != finalizer]
                    body = {**found, "metadata": {**found["metadata"], "finalizers": left}}
                    try:
                        await client.update(CONFIG_MAPS, body)
                    except StatusError as error:
                        if error.code != 409:
                            raise
                        continue
                    return

            async with asyncio.TaskGroup() as group:
                for finalizer in finalizers:
                    group.create_task(let_go(finalizer))
                group.create_task(client.delete(CONFIG_MAPS, "default", name))
            with pytest.raises(StatusError, match="not found"):
                await client.get(CONFIG_MAPS, "default", name)


async def test_nothing_is_created_in_a_namespace_once_it_is_terminating(tmp_path: Path) -> None:
    async with fuzzed(tmp_path) as served:
        wire = served.wire
        path = "/api/v1/namespaces/team/configmaps"
        await wire.send("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
        codes: list[int] = []
        terminating = asyncio.Event()

        async def create(number: int) -> None:
            late = terminating.is_set()
            body = {"metadata": {"name": f"m{number}", "namespace": "team"}}
            try:
                await served.client.create(CONFIG_MAPS, body)
            except StatusError as error:
                codes.append(error.code)
            else:
                assert not late, "created although the deletion had been acknowledged"

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(create(number))
                if number == 30:
                    assert (await wire.send("DELETE", "/api/v1/namespaces/team")).code == 200
                    terminating.set()
        assert set(codes) <= {403, 404}
        assert len(codes) >= 29
        refused = await wire.send("PATCH", f"{path}/m1", {"data": {"a": "b"}}, Content_Type=MERGE)
        assert refused.code in (200, 404)
