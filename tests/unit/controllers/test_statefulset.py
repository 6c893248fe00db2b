"""Pods with names that last: made in order, updated in order, with claims of their own."""

from typing import Any

from controlplane.controllers.statefulset.controller import STATEFULSET
from controlplane.controllers.statefulset.identity import POD_INDEX, POD_NAME
from controlplane.objects.meta import owners, rfc3339
from controlplane.objects.resources import (
    CONTROLLER_REVISIONS,
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)
from controlplane.reconcile.revisions import HASH_LABEL
from tests.fakes.running import Running, running

LABELS = {"app": "db"}
CLAIM = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}


def template(image: str = "one") -> dict[str, Any]:
    containers = [{"name": "c", "image": image}]
    return {"metadata": {"labels": LABELS}, "spec": {"containers": containers}}


def stateful_set(replicas: int = 3, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "svc",
            "selector": {"matchLabels": LABELS},
            "template": template(),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


def change(run: Running, **spec: Any) -> None:
    run.world.change(STATEFUL_SETS, "default", "db", spec=spec)


def names(run: Running) -> list[str]:
    return [pod["metadata"]["name"] for pod in run.world.list(PODS)]


def images(run: Running) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in run.world.list(PODS)]


def status(run: Running) -> dict[str, Any]:
    return dict(run.world.objects["apps", "statefulsets", "default", "db"]["status"])


async def make_ready(run: Running, *wanted: str) -> None:
    for name in wanted:
        since = rfc3339(run.clock.now())
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
        run.world.change(PODS, "default", name, status={"phase": "Running", "conditions": ready})
        await run.settle()


async def started(run: Running, replicas: int = 3, **spec: Any) -> None:
    run.world.put(STATEFUL_SETS, stateful_set(replicas, **spec))
    await run.settle()
    for number in range(replicas):
        await make_ready(run, f"db-{number}")


async def test_pods_are_made_one_after_the_other() -> None:
    async with running(STATEFULSET) as run:
        run.world.put(STATEFUL_SETS, stateful_set())
        await run.settle()
        assert names(run) == ["db-0"]
        await make_ready(run, "db-0")
        assert names(run) == ["db-0", "db-1"]
        await make_ready(run, "db-1", "db-2")
        (revision,) = run.world.list(CONTROLLER_REVISIONS)
        assert status(run) == {
            "observedGeneration": 1,
            "replicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "currentReplicas": 3,
            "updatedReplicas": 3,
            "currentRevision": revision["metadata"]["name"],
            "updateRevision": revision["metadata"]["name"],
            "collisionCount": 0,
        }


async def test_pods_are_made_all_at_once_where_that_is_asked_for() -> None:
    async with running(STATEFULSET) as run:
        run.world.put(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))
        await run.settle()
        assert names(run) == ["db-0", "db-1", "db-2"]
        change(run, replicas=0)
        await run.settle()
        assert names(run) == []


async def test_a_pod_knows_its_name_number_and_service() -> None:
    async with running(STATEFULSET) as run:
        run.world.put(STATEFUL_SETS, stateful_set(1, ordinals={"start": 5}))
        await run.settle()
        (pod,) = run.world.list(PODS)
        (revision,) = run.world.list(CONTROLLER_REVISIONS)
        assert pod["metadata"]["name"] == "db-5"
        assert pod["metadata"]["labels"] == {
            **LABELS,
            POD_NAME: "db-5",
            POD_INDEX: "5",
            HASH_LABEL: revision["metadata"]["name"],
        }
        assert pod["spec"]["hostname"] == "db-5"
        assert pod["spec"]["subdomain"] == "svc"


async def test_scaling_down_begins_with_the_highest_and_waits_for_broken_pods() -> None:
    async with running(STATEFULSET) as run:
        await started(run)
        run.world.change(PODS, "default", "db-0", status={"conditions": []})
        change(run, replicas=1)
        await run.settle()
        assert names(run) == ["db-0", "db-1", "db-2"]
        run.world.writes.clear()
        await make_ready(run, "db-0")
        assert names(run) == ["db-0"]
        gone = [name for verb, plural, name in run.world.writes if (verb, plural) == DELETED]
        assert gone == ["db-2", "db-1"]


DELETED = ("delete", "pods")


async def test_of_broken_pods_that_are_too_many_the_lowest_is_waited_for() -> None:
    async with running(STATEFULSET) as run:
        await started(run)
        for name in ("db-1", "db-2"):
            run.world.change(PODS, "default", name, status={"conditions": []})
        change(run, replicas=1)
        await run.settle()
        assert names(run) == ["db-0", "db-1", "db-2"]
        await make_ready(run, "db-1")
        assert names(run) == ["db-0"]


async def test_an_update_goes_downwards_and_waits_for_each_pod() -> None:
    async with running(STATEFULSET) as run:
        await started(run)
        change(run, template=template("two"))
        await run.settle()
        assert images(run) == ["one", "one", "two"]
        assert status(run)["currentRevision"] != status(run)["updateRevision"]
        await make_ready(run, "db-2")
        assert images(run) == ["one", "two", "two"]
        await make_ready(run, "db-1", "db-0")
        assert images(run) == ["two"] * 3
        assert status(run)["currentRevision"] == status(run)["updateRevision"]
        change(run, template=template("one"))
        await run.settle()
        await make_ready(run, "db-2", "db-1", "db-0")
        assert images(run) == ["one"] * 3
        numbers = [item["revision"] for item in run.world.list(CONTROLLER_REVISIONS)]
        assert sorted(numbers) == [2, 3]


async def test_pods_below_the_partition_stay_at_the_old_revision() -> None:
    async with running(STATEFULSET) as run:
        await started(run)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        change(run, template=template("two"), updateStrategy=rolling)
        await run.settle()
        await make_ready(run, "db-2")
        assert images(run) == ["one", "one", "two"]
        run.world.remove(PODS, "default", "db-0")
        await run.settle()
        assert images(run) == ["one", "one", "two"]


async def test_nothing_is_updated_before_it_is_deleted_where_that_is_asked_for() -> None:
    async with running(STATEFULSET) as run:
        await started(run, 2, updateStrategy={"type": "OnDelete"})
        change(run, template=template("two"))
        await run.settle()
        assert images(run) == ["one", "one"]
        run.world.remove(PODS, "default", "db-1")
        await run.settle()
        assert images(run) == ["one", "two"]


async def test_ended_pods_are_made_again_under_their_names() -> None:
    async with running(STATEFULSET) as run:
        await started(run, 2)
        before = run.world.list(PODS)[1]["metadata"]["uid"]
        run.world.change(PODS, "default", "db-1", status={"phase": "Failed", "reason": "Evicted"})
        await run.settle()
        again = run.world.list(PODS)[1]["metadata"]
        assert again["name"] == "db-1"
        assert again["uid"] != before


async def test_the_next_pod_waits_until_the_last_one_is_available() -> None:
    async with running(STATEFULSET) as run:
        run.world.put(STATEFUL_SETS, stateful_set(2, minReadySeconds=10))
        await run.settle()
        await make_ready(run, "db-0")
        assert names(run) == ["db-0"]
        assert status(run)["readyReplicas"] == 1
        await run.advance(10.5)
        assert names(run) == ["db-0", "db-1"]


async def test_a_claim_comes_with_its_pod_and_is_kept() -> None:
    async with running(STATEFULSET) as run:
        await started(run, 2, volumeClaimTemplates=[CLAIM])
        claims = run.world.list(PERSISTENT_VOLUME_CLAIMS)
        assert [item["metadata"]["name"] for item in claims] == ["data-db-0", "data-db-1"]
        assert claims[0]["metadata"]["labels"] == LABELS
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}
        assert run.world.list(PODS)[0]["spec"]["volumes"] == [volume]
        change(run, replicas=0)
        await run.settle()
        assert names(run) == []
        assert [owners(item) for item in run.world.list(PERSISTENT_VOLUME_CLAIMS)] == [(), ()]


async def test_the_policy_gives_claims_the_owners_they_go_with() -> None:
    async with running(STATEFULSET) as run:
        policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        fields = {"volumeClaimTemplates": [CLAIM], "persistentVolumeClaimRetentionPolicy": policy}
        await started(run, 2, **fields)

        def kinds() -> list[list[str]]:
            found = run.world.list(PERSISTENT_VOLUME_CLAIMS)
            return [[owner["kind"] for owner in owners(item)] for item in found]

        assert kinds() == [["StatefulSet"], ["StatefulSet"]]
        change(run, replicas=1)
        await run.settle()
        assert kinds() == [["StatefulSet"], ["Pod"]]
        change(run, replicas=2)
        await run.settle()
        assert names(run) == ["db-0"]  # its claim still goes with the pod that has gone
        run.world.remove(PERSISTENT_VOLUME_CLAIMS, "default", "data-db-1")
        await run.settle()
        assert names(run) == ["db-0", "db-1"]
        assert kinds() == [["StatefulSet"], ["StatefulSet"]]
        change(run, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain"})
        change(run, persistentVolumeClaimRetentionPolicy={"whenScaled": "Retain"})
        await run.settle()
        assert kinds() == [[], []]


async def test_orphans_of_the_name_are_adopted_and_get_their_labels() -> None:
    async with running(STATEFULSET) as run:
        for name in ("db-0", "other-0"):
            meta = {"name": name, "namespace": "default", "labels": LABELS}
            run.world.put(PODS, {"metadata": meta, "spec": {"containers": []}})
        run.world.put(STATEFUL_SETS, stateful_set(1, updateStrategy={"type": "OnDelete"}))
        await run.settle()
        adopted, other = run.world.list(PODS)
        assert owners(adopted)[0]["kind"] == "StatefulSet"
        assert adopted["metadata"]["labels"][POD_NAME] == "db-0"
        assert not owners(other)


async def test_events_tell_what_was_done() -> None:
    async with running(STATEFULSET) as run:
        await started(run, 1, volumeClaimTemplates=[CLAIM])
        told = {(event["reason"], event["message"]) for event in run.world.list(EVENTS)}
        assert told == {
            ("SuccessfulCreate", "Create Claim data-db-0 Pod db-0 in StatefulSet db success"),
            ("SuccessfulCreate", "Create Pod db-0 in StatefulSet db successful"),
        }
