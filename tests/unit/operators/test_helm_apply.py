from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from operators.helm.apply import Charts
from operators.helm.base import HelmError
from operators.helm.plan import FINALIZER, UNMANAGED
from tests.fakes.operators_api import FakeApi, FakeChecker, FakeHelm
from tests.fakes.operators_config import config as told

KEY = "kube-system/web"
PATH = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/web"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {}}]
"""


class World:
    def __init__(self, kubeconfig: Path) -> None:
        self.api = FakeApi()
        self.helm = FakeHelm(self.api)
        self.checker = FakeChecker()
        self.seconds = 0.0
        kubeconfig.write_text(KUBECONFIG)
        config = told(
            kubeconfig=kubeconfig,
            kubernetes_api="127.0.0.1:6443",
            python="",
            program_dir=Path("/"),
            path="",
        )
        self.charts = Charts(
            config,
            self.api,
            self.helm,
            checker=self.checker,
            now=lambda: NOW,
            clock=lambda: self.seconds,
        )
        self.api.objects["/api/v1/namespaces/kube-system"] = {"metadata": {"name": "kube-system"}}

    def put(self, **spec: Any) -> dict[str, Any]:
        metadata = {"name": "web", "namespace": "kube-system", "uid": "u", "resourceVersion": "1"}
        spec = {"chartContent": "dGd6"} | spec
        self.api.objects[PATH] = {"metadata": metadata, "spec": spec}
        return self.api.objects[PATH]

    def condition(self, kind: str) -> dict[str, Any]:
        found = self.api.objects[PATH]["status"]["conditions"]
        return next(condition for condition in found if condition["type"] == kind)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubeconfig")


async def test_the_finalizer_comes_before_the_install(world: World) -> None:
    world.put()
    assert await world.charts.reconcile(KEY) is None
    assert world.helm.calls == ["install"]
    assert world.api.writes[0] == ("merge", PATH)
    assert world.api.objects[PATH]["metadata"]["finalizers"] == [FINALIZER]
    assert (
        world.condition("Ready")["message"]
        == "release web: chart hello-0.1.0, app version 1, revision 1"
    )
    assert world.api.events == ["ApplyJob", "Deployed"]


async def test_another_look_writes_nothing(world: World) -> None:
    world.put()
    await world.charts.reconcile(KEY)
    world.api.writes.clear()
    await world.charts.reconcile(KEY)
    assert (world.helm.calls, world.api.writes) == (["install"], [])


async def test_a_failure_comes_again_later_each_time(world: World) -> None:
    world.put(failurePolicy="retry")
    world.helm.failures = [HelmError("KubeError", "away")] * 3
    assert await world.charts.reconcile(KEY) == 10.0
    assert world.condition("Failed")["message"] == "away"
    # Woken too early, as by its own status: it waits on.
    world.seconds = 4.0
    assert await world.charts.reconcile(KEY) == 6.0
    world.seconds = 10.0
    assert await world.charts.reconcile(KEY) == 20.0
    world.seconds = 30.0
    assert await world.charts.reconcile(KEY) == 40.0
    world.seconds = 70.0
    assert await world.charts.reconcile(KEY) is None
    assert world.helm.calls == ["install", "upgrade", "upgrade", "upgrade"]
    assert world.condition("Failed")["status"] == "False"


async def test_it_gives_up_at_the_limit_until_the_chart_changes(world: World) -> None:
    world.put(backOffLimit=0)
    world.helm.failures = [HelmError("KubeError", "away")]
    assert await world.charts.reconcile(KEY) is None
    assert world.condition("Failed")["reason"] == "BackoffLimitExceeded"
    world.seconds = 1000.0
    assert await world.charts.reconcile(KEY) is None
    assert world.helm.calls == ["install"]

    world.api.objects[PATH]["spec"]["values"] = {"a": 1}
    await world.charts.reconcile(KEY)
    assert world.helm.calls == ["install", "uninstall", "install"]


async def test_a_permanent_error_is_not_tried_again(world: World) -> None:
    world.put()
    world.helm.failures = [HelmError("ChartLoadError", "no chart", permanent=True)]
    assert await world.charts.reconcile(KEY) is None
    assert await world.charts.reconcile(KEY) is None
    assert world.helm.calls == ["install"]
    assert world.condition("Failed")["reason"] == "ChartLoadError"


async def test_what_is_unmanaged_is_not_touched(world: World) -> None:
    world.put()["metadata"]["annotations"] = {UNMANAGED: "true"}
    await world.charts.reconcile(KEY)
    assert (world.helm.calls, world.api.writes) == ([], [])


async def test_a_deleted_chart_is_uninstalled_and_let_go(world: World) -> None:
    world.put()
    await world.charts.reconcile(KEY)
    metadata = world.api.objects[PATH]["metadata"]
    metadata |= {"deletionTimestamp": "now", "finalizers": ["other", FINALIZER]}
    await world.charts.reconcile(KEY)
    assert world.helm.calls == ["install", "uninstall"]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == ["other"]


async def test_a_chart_in_a_namespace_that_goes_is_let_go(world: World) -> None:
    world.put()
    await world.charts.reconcile(KEY)
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    world.api.objects["/api/v1/namespaces/kube-system"]["metadata"]["deletionTimestamp"] = "now"
    await world.charts.reconcile(KEY)
    assert world.helm.calls == ["install"]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == []


async def test_a_missing_secret_is_waited_for_without_an_attempt(world: World) -> None:
    world.put(valuesSecrets=[{"name": "s", "keys": ["k"]}])
    assert await world.charts.reconcile(KEY) is None
    assert world.condition("Ready")["reason"] == "Waiting"
    assert world.helm.calls == []


async def test_a_chart_that_is_gone_is_no_work(world: World) -> None:
    assert await world.charts.reconcile(KEY) is None
