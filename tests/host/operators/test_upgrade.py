"""Plans on a real control plane, by the real operators, over simulated nodes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from operators.upgrade.base import REPORT
from operators.upgrade.spec import PATH
from tests.fakes.clock import FakeClock
from tests.fakes.operators_cluster import Cluster, condition, new_cluster
from tests.fakes.upgrade import SERVER
from tests.fakes.upgrade_agent import BROKEN, V1, V2, V3, Agent, request_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
OPERATORS = "operators.run"
NODES = "/api/v1/nodes"
EVENTS = "/api/v1/namespaces/default/events"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("upgrade")) as made:
        made.start(OPERATORS)
        yield made


@pytest.fixture
def tidy(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for name in cluster.names(PATH):
        cluster.delete(f"{PATH}/{name}")
    for name in cluster.names(NODES):
        cluster.delete(f"{NODES}/{name}")


class Fleet:
    """Nodes that answer whenever something about them changes, in a thread of their own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.agents: dict[str, Agent] = {}
        self.order: list[tuple[str, str]] = []  # each phase that a node entered
        self.switched: list[str] = []
        self._ended = threading.Event()
        self._clock = FakeClock()

    def add(self, name: str, *, server: bool = False, **more: Any) -> None:
        agent = self.agents[name] = Agent(name, **more)
        labels = {SERVER: "true"} if server else {}
        self.cluster.create(NODES, {"metadata": {"name": name, "labels": labels}})
        self._report(agent)

    @contextmanager
    def answering(self) -> Iterator[None]:
        thread = threading.Thread(target=self._answer)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            # Any change of a node lets the watch of the thread look up.
            self.cluster.merge(
                f"{NODES}/{next(iter(self.agents))}", {"metadata": {"labels": {"x": "y"}}}
            )
            thread.join(30)
            assert not thread.is_alive()

    def _answer(self) -> None:
        listed = self.cluster.get(NODES)
        for body in listed["items"]:
            self._step(body)
        version = listed["metadata"]["resourceVersion"]
        for event in self.cluster._watch(f"{NODES}?watch=1&resourceVersion={version}"):
            if self._ended.is_set():
                return
            if event["type"] in {"ADDED", "MODIFIED"}:
                self._step(event["object"])

    def _step(self, body: Any) -> None:
        agent = self.agents[body["metadata"]["name"]]
        if agent.step(request_of(body), self._clock.now()):
            self.order.append((agent.name, agent.phase))
            self._report(agent)

    def _report(self, agent: Agent) -> None:
        now = "2100-01-01T00:00:00Z"  # nobody sends heartbeats, and nobody shall miss them
        status = agent.status()
        status["conditions"][0]["lastHeartbeatTime"] = now
        self.cluster.merge(f"{NODES}/{agent.name}/status", {"status": status})
        self.cluster.merge(f"{NODES}/{agent.name}", {"metadata": agent.metadata()})


def source(folder: Path, *versions: str) -> str:
    for version in versions:
        (folder / f"pinnace-{version}-x86-64.raucb").write_bytes(b"bundle")
    return str(folder)


def plan(cluster: Cluster, name: str = "fleet", **spec: Any) -> None:
    kind = {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan"}
    given = {"soakSeconds": 0, **spec}
    cluster.create(PATH, {**kind, "metadata": {"name": name}, "spec": given})


def phase(wanted: str) -> Any:
    return lambda found: ((found or {}).get("status") or {}).get("phase") == wanted


def reasons(cluster: Cluster, name: str) -> set[str]:
    listed = cluster.get(f"{EVENTS}?fieldSelector=involvedObject.name%3D{name}")["items"]
    return {event["reason"] for event in listed}


def test_a_fleet_is_upgraded_and_says_so(tidy: Cluster, tmp_path: Path) -> None:
    fleet = Fleet(tidy)
    fleet.add("s0", server=True)
    for number in range(2):
        fleet.add(f"a{number}")
    with fleet.answering():
        after = {"labels": {"upgraded": "$(VERSION)"}}
        check = {"name": "api", "tcp": {"host": "127.0.0.1", "port": tidy.port}}
        where = source(tmp_path, V2)
        plan(
            tidy, version=V2, source=where, postComplete=after, healthChecks=[check], concurrency=2
        )
        found = tidy.until(PATH, "fleet", phase("Complete"))
    assert found["status"]["progress"] == "3/3"
    assert condition(found, "Ready")["status"] == "True"
    assert fleet.order[0] == ("s0", "Downloading")
    for name in fleet.agents:
        node = tidy.get(f"{NODES}/{name}")
        assert not node["spec"].get("unschedulable")
        assert node["metadata"]["labels"]["upgraded"] == V2.replace("+", "-")
    assert {"UpgradeStarted", "UpgradeSucceeded"} <= reasons(tidy, "a1")
    assert {"Resolved", "Complete"} <= reasons(tidy, "fleet")


def test_a_broken_version_is_left_and_the_plan_says_why(tidy: Cluster, tmp_path: Path) -> None:
    fleet = Fleet(tidy)
    fleet.add("a0", conduct=BROKEN)
    fleet.add("a1")
    with fleet.answering():
        plan(tidy, version=V3, source=source(tmp_path, V3))
        found = tidy.until(PATH, "fleet", phase("Paused"))
        assert "kube-dns" in found["status"]["message"]
        assert [node["phase"] for node in found["status"]["nodes"]] == ["RolledBack", "Pending"]
        assert fleet.agents["a0"].running == V1
        assert "UpgradeFailed" in reasons(tidy, "a0")
        fleet.agents["a0"].conduct = "good"
        tidy.merge(f"{PATH}/fleet", {"spec": {"retryFailed": True}})
        tidy.until(PATH, "fleet", phase("Complete"))


def test_operators_that_are_killed_go_on(tidy: Cluster, tmp_path: Path) -> None:
    fleet = Fleet(tidy)
    for number in range(3):
        fleet.add(f"a{number}")
    with fleet.answering():
        plan(tidy, version=V2, source=source(tmp_path, V2), concurrency=3)
        for word in ("Installed", "Trial"):
            tidy.until(NODES, "a1", partial(says, word))
            tidy.kill(OPERATORS)
            tidy.start(OPERATORS)
        tidy.until(PATH, "fleet", phase("Complete"))
    assert all(agent.told.count("Trial") == 1 for agent in fleet.agents.values())
    assert not any(node["spec"].get("unschedulable") for node in tidy.get(NODES)["items"])


def says(word: str, node: Any) -> bool:
    annotations = ((node or {}).get("metadata") or {}).get("annotations") or {}
    return f'"{word}"' in str(annotations.get(REPORT))


def test_a_plan_of_system_upgrade_controller_is_done_and_goes_with_it(
    tidy: Cluster, tmp_path: Path
) -> None:
    fleet = Fleet(tidy)
    fleet.add("a0")
    body = {
        "apiVersion": "upgrade.cattle.io/v1",
        "kind": "Plan",
        "metadata": {
            "name": "agents",
            "annotations": {"upgrade.pinnace.dev/source": source(tmp_path, V2)},
        },
        "spec": {
            "concurrency": 1,
            "version": V2,
            "nodeSelector": {
                "matchExpressions": [{"key": "pinnace.dev/board", "operator": "Exists"}]
            },
            "upgrade": {"image": "rancher/k3s-upgrade"},
        },
    }
    plans = "/apis/upgrade.cattle.io/v1/namespaces/default/plans"
    with fleet.answering():
        tidy.create(plans, body)
        done = tidy.until(
            plans, "agents", lambda p: condition(p, "Complete").get("status") == "True"
        )
        assert done["status"]["latestVersion"]
        [made] = tidy.names(PATH)
        tidy.delete(f"{plans}/agents")
        tidy.until(PATH, made, lambda found: found is None)
    assert fleet.agents["a0"].running == V2


def test_what_waits_in_a_deleted_plan_is_cancelled(tidy: Cluster, tmp_path: Path) -> None:
    fleet = Fleet(tidy)
    fleet.add("a0")
    fleet.add("a1")
    tidy_source = source(tmp_path, V2)
    with fleet.answering():
        plan(
            tidy,
            version=V2,
            source=tidy_source,
            window={"days": ["0"], "startTime": "1", "endTime": "2"},
        )
        tidy.until(PATH, "fleet", lambda found: bool((found or {}).get("status")))
        tidy.delete(f"{PATH}/fleet")
        tidy.until(PATH, "fleet", lambda found: found is None)
        plan(tidy, "again", version=V2, source=tidy_source)
        tidy.until(PATH, "again", phase("Complete"))
