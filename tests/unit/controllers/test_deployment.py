"""Rollouts step by step, with the ReplicaSet controller and pods that become ready at once."""

from collections.abc import Callable
from typing import Any

from controlplane.client.base import Change, Object
from controlplane.controllers.deployment.controller import DEPLOYMENT
from controlplane.controllers.deployment.revisions import DESIRED, HASH_LABEL, REVISION
from controlplane.controllers.replicaset import REPLICASET
from controlplane.objects.meta import condition, rfc3339
from controlplane.objects.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS
from tests.fakes.running import Running, running

LABELS = {"app": "web"}


def deployment(replicas: int = 3, image: str = "one", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default", "annotations": {"team": "a"}},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": LABELS},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "template": template(image),
            **spec,
        },
    }


def template(image: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }


def start_kubelet(run: Running, works: Callable[[Object], bool] = lambda pod: True) -> None:
    """Pods that ``works`` say yes to are ready as soon as they exist."""

    def deliver(change: Change) -> None:
        pod = change.new
        if pod is not None and change.old is None and works(pod):
            listed = [
                {
                    "type": "Ready",
                    "status": "True",
                    "lastTransitionTime": rfc3339(run.clock.now()),
                }
            ]
            fields = {"phase": "Running", "conditions": listed}
            run.world.change(PODS, "default", change.name, status=fields)

    run.world.subscribe([PODS], deliver)


def get(run: Running) -> dict[str, Any]:
    return run.world.objects["apps", "deployments", "default", "web"]


def sizes(run: Running) -> dict[str, int]:
    """Replicas by image."""
    return {
        s["spec"]["template"]["spec"]["containers"][0]["image"]: s["spec"]["replicas"]
        for s in run.world.list(REPLICA_SETS)
    }


def progressing(run: Running) -> tuple[str, str]:
    found = condition(get(run), "Progressing")
    assert found is not None
    return found["status"], found["reason"]


async def test_a_deployment_makes_one_set_and_becomes_complete() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(3))
        await run.settle()
        (made,) = run.world.list(REPLICA_SETS)
        hashed = made["metadata"]["labels"][HASH_LABEL]
        assert made["metadata"]["name"] == f"web-{hashed}"
        assert made["spec"]["selector"]["matchLabels"] == {**LABELS, HASH_LABEL: hashed}
        assert made["metadata"]["annotations"] == {
            "team": "a",
            REVISION: "1",
            DESIRED: "3",
            "deployment.kubernetes.io/max-replicas": "4",
        }
        assert get(run)["metadata"]["annotations"][REVISION] == "1"
        assert progressing(run) == ("True", "NewReplicaSetAvailable")
        seen = get(run)["status"]
        assert (seen["replicas"], seen["updatedReplicas"], seen["availableReplicas"]) == (3, 3, 3)
        text = f"Scaled up replica set web-{hashed} from 0 to 3"
        assert text in [e["message"] for e in run.world.list(EVENTS)]


async def test_an_update_rolls_within_its_limits() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(4))
        await run.settle()
        most, least = 0, 99

        def watch(change: Change) -> None:
            nonlocal most, least
            total = sum(sizes(run).values())
            most, least = max(most, total), min(least, total)

        run.world.subscribe([REPLICA_SETS], watch)
        run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template("two")})
        await run.settle()
        assert sizes(run) == {"one": 0, "two": 4}
        assert most <= 5
        assert least >= 3
        assert get(run)["metadata"]["annotations"][REVISION] == "2"
        assert progressing(run) == ("True", "NewReplicaSetAvailable")


async def test_a_bad_image_keeps_the_old_pods_and_times_out() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run, lambda pod: pod["spec"]["containers"][0]["image"] != "bad")
        run.world.put(DEPLOYMENTS, deployment(4))
        await run.settle()
        run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template("bad")})
        await run.settle()
        assert sizes(run) == {"one": 3, "bad": 2}
        await run.advance(700)
        assert progressing(run) == ("False", "ProgressDeadlineExceeded")
        assert run.clock.timers == 0
        run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template("one")})
        await run.settle()
        assert sizes(run) == {"one": 4, "bad": 0}
        assert progressing(run) == ("True", "NewReplicaSetAvailable")
        assert get(run)["metadata"]["annotations"][REVISION] == "3"


async def test_recreate_waits_until_old_pods_are_gone() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(2, strategy={"type": "Recreate"}))
        await run.settle()
        old = [pod["metadata"]["name"] for pod in run.world.list(PODS)]
        for name in old:
            run.world.change(PODS, "default", name, spec={"nodeName": "n"})
        run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template("two")})
        await run.settle()
        assert sizes(run) == {"one": 0}
        for name in old:
            run.world.remove(PODS, "default", name)
        await run.settle()
        assert sizes(run) == {"one": 0, "two": 2}


async def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(2))
        await run.settle()
        run.world.change(DEPLOYMENTS, "default", "web", spec={"paused": True})
        await run.settle()
        assert progressing(run) == ("Unknown", "DeploymentPaused")
        changed = {"template": template("two"), "replicas": 5}
        run.world.change(DEPLOYMENTS, "default", "web", spec=changed)
        await run.settle()
        assert sizes(run) == {"one": 5}
        run.world.change(DEPLOYMENTS, "default", "web", spec={"paused": None})
        await run.settle()
        assert sizes(run) == {"one": 0, "two": 5}


async def test_scaling_in_the_middle_of_an_update_is_shared_in_proportion() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run, lambda pod: pod["spec"]["containers"][0]["image"] != "bad")
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        run.world.put(DEPLOYMENTS, deployment(10, strategy=rolling))
        await run.settle()
        run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template("bad")})
        await run.settle()
        assert sizes(run) == {"one": 8, "bad": 5}
        run.world.change(DEPLOYMENTS, "default", "web", spec={"replicas": 15})
        await run.settle()
        # The documentation's own example: 5 more, shared 3 to 2.
        assert sizes(run) == {"one": 11, "bad": 7}


async def test_old_revisions_beyond_the_limit_are_deleted() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(1, revisionHistoryLimit=1))
        for image in ("two", "three", "four"):
            await run.settle()
            run.world.change(DEPLOYMENTS, "default", "web", spec={"template": template(image)})
        await run.settle()
        assert sizes(run) == {"three": 0, "four": 1}


async def test_nothing_is_written_once_all_is_as_it_should_be() -> None:
    async with running(DEPLOYMENT, REPLICASET) as run:
        start_kubelet(run)
        run.world.put(DEPLOYMENTS, deployment(3))
        await run.settle()
        run.world.writes.clear()
        await run.advance(100_000)
        assert run.world.writes == []
