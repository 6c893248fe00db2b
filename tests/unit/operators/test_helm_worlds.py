"""Random lives of a chart: whatever happened before, it comes to what it says, and to rest."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.client import ApiError
from operators.helm.base import HelmError
from tests.fakes.operators_api import Died
from tests.fakes.operators_helm import PATH, TARGET, World

POLICIES = ("reinstall", "retry", "rollback", "abort")
DRIFT = ("True", "Drifted", "ConfigMap a: /data")


class Life:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.policy = self.random.choice(POLICIES)
        self.told: list[str] = []

    async def step(self) -> None:
        happens: Callable[[], None] = self.random.choice(
            [
                self.changes,
                self.changes,
                self.touched,
                self.helm_will_fail,
                self.helm_will_fail,
                self.api_will_fail,
                self.restarts,
                self.waits,
                self.clock_jumps,
                self.drifts,
                self.loses_a_record,
                self.loses_its_records,
                self.loses_its_status,
                self.somebody_rolls_back,
                self.somebody_leaves_rubbish,
                self.somebody_is_at_work,
            ]
        )
        self.told.append(happens.__name__)
        happens()
        for _ in range(self.random.randrange(4)):
            await self.look()

    async def look(self) -> None:
        try:
            again = await self.world.look()
        except ApiError:
            again = 1.0
        except Died:
            self.world.restart()
            again = 5.0
        if again and self.random.random() < 0.7:
            self.world.seconds += again

    def changes(self) -> None:
        self.world.put(values={"n": self.random.randrange(3)})

    def touched(self) -> None:
        self.world.put(timeout=f"{self.random.randrange(1, 9)}m")

    def helm_will_fail(self) -> None:
        reasons = ("ReleaseError", "RepoError", "StorageError", "WorkerDied", "KubeError")
        failure: HelmError | Died = HelmError(self.random.choice(reasons), "no")
        self.world.helm.failures.append(self.random.choice([failure, failure, Died()]))

    def api_will_fail(self) -> None:
        code = self.random.choice([0, 409, 429, 500])
        before = [None] * self.random.randrange(12)
        self.world.api.faults = iter([*before, ApiError(code, "", "no answer")])

    def restarts(self) -> None:
        self.world.restart()

    def waits(self) -> None:
        self.world.seconds += self.random.choice([1, 30, 1000, 10_000])

    def clock_jumps(self) -> None:
        # Backwards only with a restart: the clock of a process does not.
        self.world.seconds -= self.random.choice([100, 100_000])
        self.world.restart()

    def drifts(self) -> None:
        self.world.checker.said = [DRIFT]

    def loses_a_record(self) -> None:
        if records := self.records():
            del self.world.api.objects[self.world.helm.path(TARGET, records[-1])]

    def loses_its_records(self) -> None:
        for number in self.records():
            del self.world.api.objects[self.world.helm.path(TARGET, number)]

    def loses_its_status(self) -> None:
        self.world.api.objects[PATH].pop("status", None)

    def somebody_rolls_back(self) -> None:
        if len(records := self.records()) > 1:
            old = self.world.api.objects[self.world.helm.path(TARGET, records[0])]
            labels = {**old["metadata"]["labels"], "version": str(records[-1] + 1)}
            self.world.helm.put(TARGET, records[-1] + 1, "deployed", labels)

    def somebody_leaves_rubbish(self) -> None:
        number = (self.records() or [0])[-1] + 1
        self.world.helm.put(TARGET, number, "failed", {})
        self.world.api.objects[self.world.helm.path(TARGET, number)]["data"] = {"release": "?"}

    def somebody_is_at_work(self) -> None:
        number = (self.records() or [0])[-1] + 1
        at = {"modifiedAt": str(int(self.world.now.timestamp()) + self.random.choice([0, 10**6]))}
        self.world.helm.put(TARGET, number, "pending-upgrade", at)

    def records(self) -> list[int]:
        return sorted(int(number) for number in self.world.revisions())


async def lived(folder: Path, seed: int) -> Life:
    world = World(folder / "kubeconfig")
    life = Life(world, seed)
    mode = life.random.choice(["", "detect", "correct"])
    world.put(failurePolicy=life.policy, driftDetection={"mode": mode})
    for _ in range(25):
        await life.step()
    world.api.faults = iter(())
    world.helm.failures = []
    world.checker.said = []
    return life


@pytest.mark.parametrize("seeds", [range(n, n + 50) for n in range(0, 150, 50)])
async def test_a_changed_chart_is_deployed_whatever_happened_before(
    tmp_path: Path, seeds: range
) -> None:
    for seed in seeds:
        life = await lived(tmp_path, seed)
        world = life.world
        world.put(values={"final": True}, failurePolicy="retry")
        await world.queued()
        assert world.ready == ("True", "Deployed"), (seed, life.told)
        assert world.helm.jobs[-1].values == ('{"final": true}',), (seed, life.told)
        assert list(world.revisions().values()).count("deployed") == 1, (seed, life.told)


@pytest.mark.parametrize("seeds", [range(n, n + 50) for n in range(0, 150, 50)])
async def test_every_chart_comes_to_rest_and_writes_nothing_more(
    tmp_path: Path, seeds: range
) -> None:
    for seed in seeds:
        life = await lived(tmp_path, seed)
        world = life.world
        await world.queued()
        reason = world.ready[1]
        allowed = {"reinstall": set(), "retry": set(), "rollback": set(), "abort": {"Aborted"}}
        # RolledBack also where a person went back from what had failed.
        assert reason in {"Deployed", "RolledBack"} | allowed[life.policy], (seed, life.told)
        await world.settle()  # what was corrected is in order now
        calls = list(world.helm.calls)
        world.api.writes.clear()
        for _ in range(3):
            world.restart()
            world.seconds += 100_000
            assert await world.settle() is None, (seed, life.told)
        assert (world.helm.calls, world.api.writes) == (calls, []), (seed, life.told)


@pytest.mark.parametrize("seeds", [range(50)])
async def test_every_chart_can_be_removed(tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        life = await lived(tmp_path, seed)
        world = life.world
        metadata = world.api.objects[PATH]["metadata"]
        metadata["deletionTimestamp"] = "now"
        await world.queued()
        assert not world.api.objects[PATH]["metadata"].get("finalizers"), (seed, life.told)
