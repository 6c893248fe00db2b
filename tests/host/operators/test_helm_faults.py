"""Helm and the operators die at every step, and the API fails in every way: all ends well."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.charts import packing
from tests.fakes.api_faults import Fault, Faults, Request, misbehaving
from tests.fakes.operators_cluster import Cluster, condition, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
OPERATORS = "operators.run"
WORKER = "operators.helm.worker"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
SECRETS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"
OBJECTS = 8
Picks = Callable[[Request], bool]


@dataclass(frozen=True)
class Scene:
    """A control plane, the operators, and between them a proxy that does as it is told."""

    cluster: Cluster
    faults: Faults

    def crash(self) -> None:
        """The operators, and with them the Helm that they run."""
        self.cluster.kill(OPERATORS)

    def restart(self) -> None:
        self.cluster.start(OPERATORS)

    def dies(self, step: str, picks: Picks) -> None:
        """The operators, started anew, when they come to this step; it is not made."""
        with self.faults.holding(picks) as hold:
            self.restart()
            hold.wait(step)
            self.crash()

    def kill_worker(self) -> bool:
        """Whether there was one."""
        found = self.cluster.pids(OPERATORS, WORKER)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(found)

    def put(self, name: str, number: int, *, service: str = "ClusterIP", **spec: Any) -> None:
        """A HelmChart whose release is of this number, made or changed."""
        words = {"words": {"number": str(number)}, "service": {"type": service}}
        values = {"objects": OBJECTS, **words}
        more = {"targetNamespace": "default", "values": values, "failurePolicy": "retry", **spec}
        spec = {"chartContent": packing.content("big"), **more}
        if name in self.cluster.names(CHARTS):
            self.cluster.merge(f"{CHARTS}/{name}", {"spec": spec})
            return
        body = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "spec": spec}
        self.cluster.create(CHARTS, {**body, "metadata": {"name": name}})

    def delete(self, name: str) -> None:
        if name in self.cluster.names(CHARTS):
            self.cluster.delete(f"{CHARTS}/{name}")

    def deployed(self, name: str, number: int, *, pauses: int = 0) -> dict[int, str]:
        """
        Once it is as wanted; then all of it is there once, and of one revision.

        ``pauses``: how often it may be waited for again, as the operators wait after failures.
        """
        for left in range(pauses, -1, -1):
            try:
                self.cluster.until(CHARTS, name, lambda chart: says(chart, "Ready", "True"))
                break
            except AssertionError:
                if not left:
                    raise
        revisions = self.revisions(name)
        assert max(revisions.items())[1] == "deployed", revisions
        assert list(revisions.values()).count("deployed") == 1, revisions
        assert not any(s.startswith(("pending", "uninstalling")) for s in revisions.values())
        assert self.number(name) == number
        assert len(self.objects(name)) == OBJECTS + 1
        return revisions

    def gone(self, name: str) -> None:
        self.cluster.until(CHARTS, name, lambda chart: chart is None)
        assert self.revisions(name) == {}
        assert self.objects(name) == []
        others = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        assert not self.labelled(others, name)
        assert not self.labelled("/apis/apps/v1/deployments", name)

    def revisions(self, name: str) -> dict[int, str]:
        query = f"?labelSelector=owner%3Dhelm,name%3D{name}"
        labels = [item["metadata"]["labels"] for item in self.cluster.get(SECRETS + query)["items"]]
        return {int(label["version"]): label["status"] for label in labels}

    def number(self, name: str) -> int:
        found = self.cluster.get(f"{MAPS}/{name}-big-conf")
        return int(found["data"]["number"])

    def objects(self, name: str) -> list[str]:
        return self.labelled(MAPS, name)

    def labelled(self, path: str, name: str) -> list[str]:
        query = f"?labelSelector=app.kubernetes.io/instance%3D{name}"
        return [item["metadata"]["name"] for item in self.cluster.get(path + query)["items"]]


def says(chart: Any, kind: str, status: str, reason: str = "") -> bool:
    """Of what it is now."""
    found = condition(chart, kind)
    now = chart["metadata"]["generation"] if chart else None
    said = found.get("status") == status and reason in {"", found.get("reason")}
    return said and found.get("observedGeneration") == now


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data = tmp_path_factory.mktemp("faults")
    with new_cluster(data) as cluster, misbehaving(data / "agent" / "operators.kubeconfig") as made:
        cluster.start(OPERATORS)
        yield Scene(cluster, made)
        made.rule = lambda _: None
        assert cluster.stop(OPERATORS) == 0, cluster.log(OPERATORS)


@pytest.fixture(autouse=True)
def no_fault_outlives_its_test(scene: Scene) -> Iterator[None]:
    yield
    scene.faults.rule = lambda _: None


# -- killed at each step


def is_record(request: Request, *methods: str) -> bool:
    return request.path.startswith(SECRETS) and request.method in methods


def is_object(request: Request, *methods: str) -> bool:
    return request.path.startswith(MAPS) and request.method in methods


def is_chart(request: Request) -> bool:
    return request.path.startswith(CHARTS) and request.method == "PATCH"


def is_status(request: Request) -> bool:
    return is_chart(request) and request.path.endswith("/status")


INSTALL: dict[str, Picks] = {
    "the finalizer": lambda r: is_chart(r) and not is_status(r),
    "the first status": is_status,
    "before the record": lambda r: is_record(r, "POST"),
    "before the objects": lambda r: is_object(r, "POST", "PATCH"),
    "before it is deployed": lambda r: is_record(r, "PUT", "PATCH"),
}
UPGRADE: dict[str, Picks] = {
    "before the record": lambda r: is_record(r, "POST"),
    "before the objects": lambda r: is_object(r, "PUT", "PATCH"),
    "before either record says so": lambda r: is_record(r, "PUT", "PATCH"),
    "the status": is_status,
}
UNINSTALL: dict[str, Picks] = {
    "before the record says so": lambda r: is_record(r, "PUT", "PATCH"),
    "before the objects": lambda r: is_object(r, "DELETE"),
    "before the record goes": lambda r: is_record(r, "DELETE"),
    "the finalizer": lambda r: is_chart(r) and not is_status(r),
}


def test_an_install_goes_on_however_often_the_operators_die(scene: Scene) -> None:
    """At each step once, one after the other, on one release."""
    scene.crash()
    scene.put("install", 1)
    for step, picks in INSTALL.items():
        scene.dies(step, picks)
    scene.restart()
    assert scene.deployed("install", 1)
    scene.delete("install")
    scene.gone("install")


def test_upgrades_go_on_wherever_the_operators_die(scene: Scene) -> None:
    scene.put("upgrade", 1)
    scene.deployed("upgrade", 1)
    for number, (step, picks) in enumerate(UPGRADE.items(), start=2):
        with scene.faults.holding(picks) as hold:
            scene.put("upgrade", number)
            hold.wait(step)
            scene.crash()
        scene.restart()
        scene.deployed("upgrade", number)
    scene.delete("upgrade")
    scene.gone("upgrade")


def test_an_uninstall_goes_on_however_often_the_operators_die(scene: Scene) -> None:
    scene.put("uninstall", 1)
    scene.deployed("uninstall", 1)
    scene.crash()
    scene.delete("uninstall")
    for step, picks in UNINSTALL.items():
        scene.dies(step, picks)
    scene.restart()
    scene.gone("uninstall")


def test_the_worker_alone_may_die_at_any_moment(scene: Scene) -> None:
    scene.put("worker", 0)
    scene.deployed("worker", 0)
    for number, step in enumerate(("before the record", "before the objects"), start=1):
        with scene.faults.holding(UPGRADE[step]) as hold:
            scene.put("worker", number)
            hold.wait(step)
            assert scene.kill_worker()
        failed = scene.cluster.until(CHARTS, "worker", lambda c: says(c, "Failed", "True"))
        assert "was killed by signal 9" in condition(failed, "Failed")["message"]
    scene.put("worker", 3)
    scene.deployed("worker", 3)
    scene.delete("worker")
    scene.gone("worker")


def test_a_rollback_goes_on_when_the_operators_die(scene: Scene) -> None:
    """Before its record, and before its objects; what ran before the bad upgrade runs after it."""
    for name, picks in (("back-record", Nth(2, UPGRADE["before the record"])), ("back", None)):
        scene.put(name, 1, failurePolicy="rollback")
        scene.deployed(name, 1)
        with scene.faults.holding(picks or AfterRecords(2, UPGRADE["before the objects"])) as hold:
            scene.put(name, 2, failurePolicy="rollback", service="Nothing")
            hold.wait(name)
            scene.crash()
        scene.restart()
        chart = scene.cluster.until(CHARTS, name, lambda c: says(c, "Failed", "True", "RolledBack"))
        assert "Nothing" in condition(chart, "Failed")["message"]
        revisions = scene.revisions(name)
        assert list(revisions.values()).count("deployed") == 1
        assert revisions[max(revisions)] == "deployed"
        assert scene.number(name) == 1
        scene.put(name, 3, failurePolicy="rollback")
        scene.deployed(name, 3)
        scene.delete(name)
        scene.gone(name)


class Nth:
    """The n-th of those that are picked."""

    def __init__(self, number: int, picks: Picks) -> None:
        self._left, self._picks = number, picks

    def __call__(self, request: Request) -> bool:
        self._left -= self._picks(request)
        return self._left == 0 and self._picks(request)


class AfterRecords:
    """The first that is picked once so many records have been made."""

    def __init__(self, number: int, picks: Picks) -> None:
        self._left, self._picks = number, picks

    def __call__(self, request: Request) -> bool:
        self._left -= is_record(request, "POST")
        return self._left <= 0 and self._picks(request)


# -- killed at random


@pytest.mark.timeout(400)
def test_twenty_deaths_at_any_moment_end_well(scene: Scene) -> None:
    """What is wanted changes all the time, and who works on it dies; the moments are drawn."""
    chosen = random.Random(36)
    wanted: dict[str, int] = {}
    for number in range(1, 21):
        name = chosen.choice(("alpha", "beta", "gamma"))
        if name in wanted and chosen.random() < 0.3:
            scene.delete(name)
            del wanted[name]
        else:
            # One that is on its way out is finished first: a name is of one HelmChart at a time.
            if name not in wanted:
                scene.cluster.until(CHARTS, name, lambda chart: chart is None)
            scene.put(name, number)
            wanted[name] = number
        # A moment later, which is the n-th request from now.
        with scene.faults.holding(Counted(chosen.randint(1, 40)), lost=False) as hold:
            hold.reached.wait(3)
            if chosen.random() < 0.5:
                scene.kill_worker()
            else:
                scene.crash()
                scene.restart()
    for name, number in wanted.items():
        # A worker that was killed is tried again after a pause; a change ends the pause.
        scene.put(name, number + 100)
        scene.deployed(name, number + 100)
        scene.delete(name)
    for name in ("alpha", "beta", "gamma"):
        scene.gone(name)


class Counted:
    """Picks the n-th request that does not only watch."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, request: Request) -> bool:
        self._left -= not request.watch
        return self._left == 0


# -- the API fails


def is_write(request: Request) -> bool:
    return request.method not in {"GET", "HEAD"} and "/events" not in request.path


class Some:
    """A share of the requests, drawn, gets one of these; so many at most, so that it ends."""

    def __init__(self, faults: Sequence[Fault], *, share: float, most: int) -> None:
        self._faults, self._share = faults, share
        self._chosen = random.Random(7)
        self.left = most

    def __call__(self, request: Request) -> Fault | None:
        if request.watch or self.left == 0 or self._chosen.random() >= self._share:
            return None
        fault = self._chosen.choice(self._faults)
        if (fault.done or fault.code == 409) and not is_write(request):
            return None
        self.left -= 1
        return fault


PASSING = (Fault(code=429, retry_after=1), Fault(code=503, retry_after=1))
HARD = (
    Fault(code=409),
    Fault(code=429),
    Fault(code=500),
    Fault(code=503),
    Fault(after=0.3),  # no answer, and nothing done
    Fault(done=True),  # done, and no answer
    Fault(code=504, after=0.3, done=True),
)


def test_an_api_that_asks_to_come_later_is_no_failure(scene: Scene) -> None:
    scene.faults.rule = some = Some(PASSING, share=0.1, most=5)
    scene.put("patient", 1)
    scene.deployed("patient", 1)
    scene.put("patient", 2)
    assert scene.deployed("patient", 2) == {1: "superseded", 2: "deployed"}
    assert some.left < 5
    scene.delete("patient")
    scene.gone("patient")


class Once:
    """The first that is picked gets this."""

    def __init__(self, fault: Fault, picks: Picks) -> None:
        self._fault, self._picks = fault, picks
        self.given = False

    def __call__(self, request: Request) -> Fault | None:
        if self.given or not self._picks(request):
            return None
        self.given = True
        return self._fault


def test_what_helm_could_not_write_down_is_written_all_the_same(scene: Scene) -> None:
    """The last write of an install, and that of the revision before, fail without a word of it."""
    for number, expected in ((1, {1: "deployed"}), (2, {1: "superseded", 2: "deployed"})):
        scene.faults.rule = once = Once(Fault(code=500), lambda r: is_record(r, "PUT", "PATCH"))
        scene.put("unsaid", number)
        assert scene.deployed("unsaid", number) == expected
        assert once.given
    scene.delete("unsaid")
    scene.gone("unsaid")


def test_whatever_the_api_answers_all_end_as_wanted(scene: Scene) -> None:
    names = ("first", "second", "third")
    scene.faults.rule = some = Some(HARD, share=0.08, most=10)
    for number in (1, 2):
        for name in names:
            scene.put(name, number)
        for name in names:
            scene.deployed(name, number, pauses=3)
    for name in names:
        scene.delete(name)
    for name in names:
        scene.gone(name)
    assert some.left < 5


# -- records that go


def test_records_that_somebody_deletes_are_no_loss(scene: Scene) -> None:
    scene.put("records", 1)
    scene.deployed("records", 1)
    for number in (2, 3):
        records = [f"{SECRETS}/sh.helm.release.v1.records.v{r}" for r in scene.revisions("records")]
        scene.cluster.delete(records[-1])
        scene.put("records", number)
        scene.deployed("records", number)
    scene.cluster.merge(
        f"{SECRETS}/sh.helm.release.v1.records.v{max(scene.revisions('records'))}",
        {"data": {"release": "bm90aGluZw=="}},
    )
    scene.put("records", 4)
    scene.deployed("records", 4)
    scene.delete("records")
    scene.gone("records")
