"""A pod on each node that may have one, and updates that keep their limits."""

from typing import Any

from controlplane.controllers.daemonset import controller, nodes
from controlplane.objects.meta import rfc3339
from controlplane.objects.resources import CONTROLLER_REVISIONS, DAEMON_SETS, EVENTS, NODES, PODS
from controlplane.reconcile.revisions import HASH_LABEL
from tests.fakes.running import Running, running

LABELS = {"app": "agent"}
HOSTS = ("n1", "n2", "n3")


def template(image: str = "one", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": image}]
    return {"metadata": {"labels": LABELS}, "spec": {"containers": containers, **spec}}


def daemon_set(pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": LABELS}, "template": pod or template(), **spec},
    }


def rolling(unavailable: Any = 1, surge: Any = 0) -> dict[str, Any]:
    limits = {"maxUnavailable": unavailable, "maxSurge": surge}
    return {"type": "RollingUpdate", "rollingUpdate": limits}


def put_nodes(run: Running, *names: str, **spec: Any) -> None:
    for name in names:
        run.world.put(NODES, {"metadata": {"name": name}, "spec": spec})


def placed(run: Running) -> dict[str, list[str]]:
    """The images on each node."""
    found: dict[str, list[str]] = {}
    for pod in run.world.list(PODS):
        image = pod["spec"]["containers"][0]["image"]
        found.setdefault(nodes.target(pod), []).append(image)
    return {node: sorted(images) for node, images in found.items()}


def status(run: Running) -> dict[str, Any]:
    return dict(run.world.objects["apps", "daemonsets", "default", "agent"]["status"])


def events(run: Running) -> set[str]:
    return {event["reason"] for event in run.world.list(EVENTS)}


async def make_ready(run: Running, image: str = "") -> None:
    """Bind and start the pods, or those of one image."""
    for pod in run.world.list(PODS):
        if image in ("", pod["spec"]["containers"][0]["image"]):
            since = rfc3339(run.clock.now())
            ready = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
            fields = {"status": {"phase": "Running", "conditions": ready}}
            run.world.change(PODS, "default", pod["metadata"]["name"], **fields)
    await run.settle()


async def test_every_node_that_fits_gets_one_pod() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1", "n2")
        put_nodes(run, "tainted", taints=[{"key": "x", "effect": "NoSchedule"}])
        put_nodes(
            run,
            "cordoned",
            unschedulable=True,
            taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
        )
        run.world.put(DAEMON_SETS, daemon_set())
        await run.settle()
        assert set(placed(run)) == {"n1", "n2", "cordoned"}
        put_nodes(run, "n3")
        await run.settle()
        assert set(placed(run)) == {"n1", "n2", "n3", "cordoned"}
        assert status(run) == {
            "observedGeneration": 1,
            "desiredNumberScheduled": 4,
            "currentNumberScheduled": 4,
            "updatedNumberScheduled": 4,
            "numberMisscheduled": 0,
            "numberReady": 0,
            "numberUnavailable": 4,
        }


async def test_a_pod_is_bound_to_its_node_by_affinity_and_tolerates_its_troubles() -> None:
    affinity: dict[str, Any] = {"podAntiAffinity": {}, "nodeAffinity": {"preferredDuring": []}}
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        run.world.put(DAEMON_SETS, daemon_set(template(hostNetwork=True, affinity=affinity)))
        await run.settle()
        (pod,) = run.world.list(PODS)
        field = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
        required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        assert pod["spec"]["affinity"] == {
            "podAntiAffinity": {},
            "nodeAffinity": {
                "preferredDuring": [],
                "requiredDuringSchedulingIgnoredDuringExecution": required,
            },
        }
        tolerated = {(t["key"].split("/")[1], t["effect"]) for t in pod["spec"]["tolerations"]}
        assert tolerated == {
            ("not-ready", "NoExecute"),
            ("unreachable", "NoExecute"),
            ("disk-pressure", "NoSchedule"),
            ("memory-pressure", "NoSchedule"),
            ("pid-pressure", "NoSchedule"),
            ("unschedulable", "NoSchedule"),
            ("network-unavailable", "NoSchedule"),
        }
        (revision,) = run.world.list(CONTROLLER_REVISIONS)
        hashed = revision["metadata"]["labels"][HASH_LABEL]
        assert pod["metadata"]["labels"] == {**LABELS, HASH_LABEL: hashed}


async def test_only_an_evicting_taint_sends_a_running_pod_away() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1", "n2")
        run.world.put(DAEMON_SETS, daemon_set())
        await run.settle()
        for name, effect in (("n1", "NoSchedule"), ("n2", "NoExecute")):
            run.world.change(NODES, "", name, spec={"taints": [{"key": "x", "effect": effect}]})
        await run.settle()
        assert placed(run) == {"n1": ["one"]}
        assert status(run)["numberMisscheduled"] == 1
        assert status(run)["desiredNumberScheduled"] == 0


async def test_a_heartbeat_of_a_node_makes_nobody_work() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        run.world.put(DAEMON_SETS, daemon_set())
        await run.settle()
        before = run.loop.counters["daemonset-controller"].passes
        run.world.change(NODES, "", "n1", status={"conditions": []})
        await run.settle()
        assert run.loop.counters["daemonset-controller"].passes == before


async def test_failed_pods_are_replaced_later_and_later() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        run.world.put(DAEMON_SETS, daemon_set())
        await run.settle()

        async def fail() -> str:
            (pod,) = run.world.list(PODS)
            name = str(pod["metadata"]["name"])
            run.world.change(PODS, "default", name, status={"phase": "Failed"})
            await run.settle()
            return name

        def names() -> list[str]:
            return [pod["metadata"]["name"] for pod in run.world.list(PODS)]

        assert await fail() not in names()
        second = await fail()
        assert names() == [second]
        await run.advance(1.1)
        third = await fail()
        assert third != second
        await run.advance(1.1)
        assert names() == [third]
        await run.advance(1.1)
        assert third not in names()
        assert "FailedDaemonPod" in events(run)


async def test_an_update_replaces_no_more_pods_than_may_be_missing() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, *HOSTS)
        run.world.put(DAEMON_SETS, daemon_set(updateStrategy=rolling()))
        await run.settle()
        await make_ready(run)
        run.world.put(DAEMON_SETS, with_template(run, template("two")))
        for updated in (1, 2, 3):
            await run.settle()
            images = [image for found in placed(run).values() for image in found]
            assert images.count("two") == updated
            await make_ready(run, "two")
        assert status(run)["updatedNumberScheduled"] == 3
        assert status(run)["numberAvailable"] == 3


def with_template(run: Running, pod: dict[str, Any]) -> dict[str, Any]:
    old = run.world.objects["apps", "daemonsets", "default", "agent"]
    meta = {**old["metadata"], "generation": old["metadata"]["generation"] + 1}
    return {**old, "metadata": meta, "spec": {**old["spec"], "template": pod}}


async def test_a_surge_starts_the_new_pod_before_the_old_one_goes() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1", "n2")
        run.world.put(DAEMON_SETS, daemon_set(updateStrategy=rolling(0, 1)))
        await run.settle()
        await make_ready(run)
        run.world.put(DAEMON_SETS, with_template(run, template("two")))
        await run.settle()
        assert sorted(placed(run).values()) == [["one"], ["one", "two"]]
        await make_ready(run, "two")
        assert sorted(placed(run).values()) == [["one", "two"], ["two"]]
        await make_ready(run, "two")
        assert sorted(placed(run).values()) == [["two"], ["two"]]


async def test_pods_are_updated_on_deletion_only_where_that_is_asked_for() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1", "n2")
        run.world.put(DAEMON_SETS, daemon_set(updateStrategy={"type": "OnDelete"}))
        await run.settle()
        await make_ready(run)
        run.world.put(DAEMON_SETS, with_template(run, template("two")))
        await run.settle()
        assert placed(run) == {"n1": ["one"], "n2": ["one"]}
        gone = run.world.list(PODS)[0]
        run.world.remove(PODS, "default", gone["metadata"]["name"])
        await run.settle()
        assert sorted(placed(run).values()) == [["one"], ["two"]]


async def test_going_back_takes_the_old_revision_up_again_and_old_ones_are_dropped() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        run.world.put(DAEMON_SETS, daemon_set(revisionHistoryLimit=1))
        await run.settle()
        await make_ready(run)
        for image in ("two", "three", "one"):
            run.world.put(DAEMON_SETS, with_template(run, template(image)))
            await run.settle()
            await make_ready(run)
        kept = {
            item["revision"]: item["data"]["spec"]["template"]["spec"]["containers"][0]["image"]
            for item in run.world.list(CONTROLLER_REVISIONS)
        }
        assert kept == {3: "three", 4: "one"}
        data = run.world.list(CONTROLLER_REVISIONS)[0]["data"]["spec"]["template"]
        assert list(data) == ["$patch", "metadata", "spec"]
        assert data["$patch"] == "replace"
        assert data["spec"]["containers"][0]["resources"] == {}


async def test_a_ready_pod_becomes_available_after_a_while() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        run.world.put(DAEMON_SETS, daemon_set(minReadySeconds=10))
        await run.settle()
        await make_ready(run)
        assert status(run)["numberReady"] == 1
        assert "numberAvailable" not in status(run)
        await run.advance(10.5)
        assert status(run)["numberAvailable"] == 1


async def test_orphans_are_adopted_and_extra_pods_go() -> None:
    async with running(controller.make()) as run:
        put_nodes(run, "n1")
        for name in ("a", "b"):
            meta = {"name": name, "namespace": "default", "labels": LABELS}
            spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "one"}]}
            run.world.put(PODS, {"metadata": meta, "spec": spec})
        run.world.put(DAEMON_SETS, daemon_set(updateStrategy={"type": "OnDelete"}))
        await run.settle()
        left = {pod["metadata"]["name"]: pod["metadata"] for pod in run.world.list(PODS)}
        assert left["a"]["ownerReferences"][0]["kind"] == "DaemonSet"
        assert "deletionTimestamp" not in left["a"]
        assert left["b"]["deletionTimestamp"]
