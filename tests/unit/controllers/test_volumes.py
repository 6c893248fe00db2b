"""Claims and volumes find each other over the real API, and then rest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.protection import PROTECTION
from controlplane.controllers.volumes.binder import CLAIM_BINDER
from controlplane.controllers.volumes.ephemeral import EPHEMERAL
from controlplane.controllers.volumes.expansion import EXPANSION
from controlplane.controllers.volumes.phases import VOLUME_PHASES
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import (
    EVENTS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.scheduler.loop import Scheduler
from tests.fakes.api_server import Served, serving

CONTROLLERS = (*PROTECTION, CLAIM_BINDER, VOLUME_PHASES, EPHEMERAL, EXPANSION)


class Cluster:
    def __init__(self, served: Served, loop: Loop) -> None:
        self.client, self.cache, self.loop = served.client, served.parts.cache, loop

    def get(self, resource: Resource, name: str) -> Any:
        return self.cache.get(resource, "default" if resource.namespaced else "", name)

    def phase(self, resource: Resource, name: str) -> str:
        return str(((self.get(resource, name) or {}).get("status") or {}).get("phase", ""))

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await self.cache.wait_for(self.cache.revision + 1)

    async def rest(self) -> None:
        """Until nobody writes any more; a limit tells those who never stop."""
        async with asyncio.timeout(10):
            before = -1
            while before != self.cache.revision:
                before = self.cache.revision
                await self.loop.wait_idle()
                for _ in range(300):
                    await asyncio.sleep(0)

    def reasons(self, name: str) -> set[str]:
        events = self.cache.list(EVENTS)
        return {e["reason"] for e in events if e["involvedObject"]["name"] == name}

    async def volume(self, name: str, size: str = "1Gi", **spec: Any) -> None:
        await self.client.create(PERSISTENT_VOLUMES, volume(name, size, **spec))

    async def claim(self, name: str, size: str = "1Gi", **spec: Any) -> None:
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
                **spec,
            },
        }
        await self.client.create(PERSISTENT_VOLUME_CLAIMS, body)

    async def storage_class(self, name: str, provisioner: str, mode: str = "Immediate") -> None:
        body = {
            "metadata": {"name": name},
            "provisioner": provisioner,
            "volumeBindingMode": mode,
        }
        await self.client.create(STORAGE_CLASSES, body)

    async def pod(self, name: str, volume: Object) -> None:
        spec = {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "data", **volume}],
        }
        await self.client.create(
            PODS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        )

    async def delete(self, resource: Resource, name: str) -> None:
        await self.client.delete(resource, "default" if resource.namespaced else "", name)


def volume(name: str, size: str, **spec: Any) -> dict[str, Any]:
    spec = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/srv/{name}"},
        **spec,
    }
    return {"metadata": {"name": name, "labels": {"name": name}}, "spec": spec}


def local(node: str, **spec: Any) -> dict[str, Any]:
    where = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "hostPath": None,
        "local": {"path": f"/srv/{node}"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}},
        **spec,
    }


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    async with serving() as served:
        clock = LoopClock(lambda: datetime.now(UTC))
        cache, client = served.parts.cache, served.client
        kinds = served.parts.kinds
        loop = Loop(CONTROLLERS, client=client, reads=cache, feed=cache, clock=clock, kinds=kinds)
        scheduler = Scheduler(client=client, reads=cache, feed=cache, clock=clock)
        tasks = [asyncio.ensure_future(work) for work in (loop.run(), scheduler.run())]
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
        for name in ("n1", "n2"):
            meta = {"name": name, "labels": {"kubernetes.io/hostname": name}}
            await client.create(NODES, {"metadata": meta})
            node = dict(await client.get(NODES, "", name))
            node["status"] = {
                "conditions": [{"type": "Ready", "status": "True"}],
                "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
            }
            await client.update(NODES, node, subresource="status")
        try:
            yield Cluster(served, loop)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def is_bound_to(made: Cluster, claim: str, volume: str) -> bool:
    found = made.get(PERSISTENT_VOLUME_CLAIMS, claim)
    return (
        made.phase(PERSISTENT_VOLUME_CLAIMS, claim) == "Bound"
        and made.phase(PERSISTENT_VOLUMES, volume) == "Bound"
        and found["spec"]["volumeName"] == volume
    )


async def test_a_claim_gets_the_smallest_volume_that_fits_and_both_rest() -> None:
    async with cluster() as made:
        await made.volume("large", "8Gi")
        await made.volume("fitting", "2Gi")
        await made.volume("small", "1Gi")
        await made.volume("other-class", "2Gi", storageClassName="other")
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "fitting") == "Available")
        await made.claim("c", "1500Mi", storageClassName="")
        await made.until(lambda: is_bound_to(made, "c", "fitting"))
        await made.rest()
        claim, bound = (
            made.get(PERSISTENT_VOLUME_CLAIMS, "c"),
            made.get(PERSISTENT_VOLUMES, "fitting"),
        )
        assert claim["metadata"]["annotations"] == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        assert claim["status"]["capacity"] == {"storage": "2Gi"}
        assert bound["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
        phases = {n: made.phase(PERSISTENT_VOLUMES, n) for n in ("large", "small", "other-class")}
        assert set(phases.values()) == {"Available"}


async def test_a_claim_waits_for_a_volume_that_comes_later() -> None:
    async with cluster() as made:
        selector = {"matchLabels": {"name": "right"}}
        await made.claim("c", storageClassName="", selector=selector)
        await made.rest()
        assert made.phase(PERSISTENT_VOLUME_CLAIMS, "c") == "Pending"
        await made.until(lambda: "FailedBinding" in made.reasons("c"))
        await made.volume("wrong")
        await made.volume("right")
        await made.until(lambda: is_bound_to(made, "c", "right"))
        await made.rest()


async def test_two_claims_never_share_a_volume() -> None:
    async with cluster() as made:
        await made.volume("v")
        await asyncio.gather(*(made.claim(f"c{n}", storageClassName="") for n in range(4)))
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "v") == "Bound")
        await made.rest()
        phases = [made.phase(PERSISTENT_VOLUME_CLAIMS, f"c{n}") for n in range(4)]
        assert sorted(phases) == ["Bound", "Pending", "Pending", "Pending"]


async def test_a_volume_reserved_by_name_waits_for_its_claim() -> None:
    async with cluster() as made:
        await made.volume("v", claimRef={"namespace": "default", "name": "mine"})
        await made.claim("other", storageClassName="")
        await made.rest()
        assert made.phase(PERSISTENT_VOLUME_CLAIMS, "other") == "Pending"
        await made.claim("mine", storageClassName="")
        await made.until(lambda: is_bound_to(made, "mine", "v"))
        await made.rest()
        notes = made.get(PERSISTENT_VOLUMES, "v")["metadata"].get("annotations") or {}
        assert "pv.kubernetes.io/bound-by-controller" not in notes


async def test_a_claim_that_names_a_volume_gets_it_or_is_told_why_not() -> None:
    async with cluster() as made:
        await made.volume("small", "1Gi")
        await made.claim("c", "2Gi", storageClassName="", volumeName="small")
        await made.claim("good", "1Gi", storageClassName="", volumeName="later")
        await made.until(lambda: "VolumeMismatch" in made.reasons("c"))
        assert made.phase(PERSISTENT_VOLUME_CLAIMS, "c") == "Pending"
        await made.volume("later", "1Gi")
        await made.until(lambda: is_bound_to(made, "good", "later"))
        await made.rest()


async def test_a_volume_outlives_its_claim_as_the_policy_says() -> None:
    async with cluster() as made:
        await made.volume("kept")
        await made.volume("deleted", "2Gi", persistentVolumeReclaimPolicy="Delete")
        await made.claim("a", "1Gi", storageClassName="", volumeName="kept")
        await made.claim("b", "2Gi", storageClassName="", volumeName="deleted")
        await made.until(lambda: is_bound_to(made, "a", "kept"))
        await made.until(lambda: is_bound_to(made, "b", "deleted"))
        await made.delete(PERSISTENT_VOLUME_CLAIMS, "a")
        await made.delete(PERSISTENT_VOLUME_CLAIMS, "b")
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "kept") == "Released")
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "deleted") == "Failed")
        await made.until(lambda: "VolumeFailedDelete" in made.reasons("deleted"))
        body = {"spec": {"claimRef": None}}
        await made.client.patch(PERSISTENT_VOLUMES, "", "kept", body=body)
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "kept") == "Available")
        await made.rest()


async def test_a_claim_without_its_volume_is_lost() -> None:
    async with cluster() as made:
        await made.volume("v")
        await made.claim("c", storageClassName="")
        await made.until(lambda: is_bound_to(made, "c", "v"))
        await made.rest()
        await made.delete(PERSISTENT_VOLUMES, "v")
        body = {"metadata": {"finalizers": None}}
        if made.get(PERSISTENT_VOLUMES, "v") is not None:
            await made.client.patch(PERSISTENT_VOLUMES, "", "v", body=body)
        await made.until(lambda: made.phase(PERSISTENT_VOLUME_CLAIMS, "c") == "Lost")
        await made.until(lambda: "ClaimLost" in made.reasons("c"))
        await made.rest()


async def test_provisioners_are_told_and_missing_ones_are_named() -> None:
    async with cluster() as made:
        await made.storage_class("there", "example.com/disk")
        await made.storage_class("none", "kubernetes.io/no-provisioner")
        await made.claim("c", storageClassName="there")
        await made.claim("unknown", storageClassName="missing")
        await made.claim("static", storageClassName="none")
        await made.until(lambda: "ExternalProvisioning" in made.reasons("c"))
        await made.until(lambda: "ProvisioningFailed" in made.reasons("unknown"))
        await made.until(lambda: "ProvisioningFailed" in made.reasons("static"))
        await made.rest()
        notes = made.get(PERSISTENT_VOLUME_CLAIMS, "c")["metadata"]["annotations"]
        assert notes["volume.kubernetes.io/storage-provisioner"] == "example.com/disk"


async def test_a_local_volume_is_bound_where_its_pod_goes() -> None:
    async with cluster() as made:
        await made.storage_class("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer")
        await made.volume("on-n2", **local("n2", storageClassName="local"))
        await made.claim("c", storageClassName="local")
        await made.until(lambda: "WaitForFirstConsumer" in made.reasons("c"))
        await made.rest()
        assert made.phase(PERSISTENT_VOLUME_CLAIMS, "c") == "Pending"
        assert made.phase(PERSISTENT_VOLUMES, "on-n2") == "Available"
        await made.pod("p", {"persistentVolumeClaim": {"claimName": "c"}})
        await made.until(lambda: made.get(PODS, "p")["spec"].get("nodeName") == "n2")
        notes = made.get(PERSISTENT_VOLUME_CLAIMS, "c")["metadata"]["annotations"]
        assert notes["pv.kubernetes.io/bind-completed"] == "yes"  # the pod came after that
        await made.until(lambda: is_bound_to(made, "c", "on-n2"))
        await made.rest()


async def test_a_claim_for_one_pod_is_never_used_by_two() -> None:
    async with cluster() as made:
        await made.volume("v", accessModes=["ReadWriteOncePod"])
        await made.claim("c", storageClassName="", accessModes=["ReadWriteOncePod"])
        await made.until(lambda: is_bound_to(made, "c", "v"))
        names = ("p", "q", "r")
        using = {"persistentVolumeClaim": {"claimName": "c"}}
        await asyncio.gather(*(made.pod(name, using) for name in names))

        def placed() -> list[str]:
            found = [made.get(PODS, name) for name in names]
            return [p["metadata"]["name"] for p in found if p and p["spec"].get("nodeName")]

        await made.until(placed)
        await made.rest()
        (first,) = placed()
        await made.client.delete(PODS, "default", first, options={"gracePeriodSeconds": 0})
        await made.until(placed)
        await made.rest()
        assert len(placed()) == 1


async def test_a_provisioner_that_waits_is_told_the_node() -> None:
    async with cluster() as made:
        await made.storage_class("local-path", "rancher.io/local-path", "WaitForFirstConsumer")
        await made.claim("c", storageClassName="local-path")
        await made.pod("p", {"persistentVolumeClaim": {"claimName": "c"}})

        def node() -> str:
            found = made.get(PERSISTENT_VOLUME_CLAIMS, "c")["metadata"].get("annotations") or {}
            return str(found.get("volume.kubernetes.io/selected-node", ""))

        await made.until(node)
        await made.until(lambda: "ExternalProvisioning" in made.reasons("c"))
        claim = made.get(PERSISTENT_VOLUME_CLAIMS, "c")
        reference = {"namespace": "default", "name": "c", "uid": claim["metadata"]["uid"]}
        spec = local(node(), storageClassName="local-path", claimRef=reference)
        body = volume("pvc-1", "1Gi", **spec, persistentVolumeReclaimPolicy="Delete")
        body["metadata"]["annotations"] = {
            "pv.kubernetes.io/provisioned-by": "rancher.io/local-path"
        }
        await made.client.create(PERSISTENT_VOLUMES, body)
        await made.until(lambda: is_bound_to(made, "c", "pvc-1"))
        await made.until(lambda: made.get(PODS, "p")["spec"].get("nodeName") == node())
        await made.rest()
        await made.client.delete(PODS, "default", "p", options={"gracePeriodSeconds": 0})
        await made.delete(PERSISTENT_VOLUME_CLAIMS, "c")
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "pvc-1") == "Released")
        await made.rest()
        assert made.phase(PERSISTENT_VOLUMES, "pvc-1") == "Released"  # its provisioner's now


async def test_a_pod_follows_the_node_that_its_provisioner_was_told() -> None:
    async with cluster() as made:
        await made.storage_class("local-path", "rancher.io/local-path", "WaitForFirstConsumer")
        await made.volume("other", **local("n1", storageClassName="local-path"))
        await made.until(lambda: made.phase(PERSISTENT_VOLUMES, "other") == "Available")
        notes = {"volume.kubernetes.io/selected-node": "n2"}
        await made.claim("c", storageClassName="local-path", selector={"matchLabels": {"a": "b"}})
        body = {"metadata": {"annotations": notes}}
        await made.client.patch(PERSISTENT_VOLUME_CLAIMS, "default", "c", body=body)
        await made.pod("p", {"persistentVolumeClaim": {"claimName": "c"}})
        await made.rest()
        claim = made.get(PERSISTENT_VOLUME_CLAIMS, "c")
        assert claim["metadata"]["annotations"].items() >= notes.items()
        spec = local("n2", storageClassName="local-path", claimRef={"namespace": "default"})
        spec["claimRef"] |= {"name": "c", "uid": claim["metadata"]["uid"]}
        await made.volume("pvc-1", **spec)
        await made.until(lambda: made.get(PODS, "p")["spec"].get("nodeName") == "n2")
        await made.rest()
        assert is_bound_to(made, "c", "pvc-1")


async def test_a_pod_gets_a_claim_of_its_own() -> None:
    async with cluster() as made:
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        await made.volume("v")
        await made.pod("p", {"ephemeral": {"volumeClaimTemplate": template}})
        await made.until(lambda: is_bound_to(made, "p-data", "v"))
        await made.until(lambda: made.get(PODS, "p")["spec"].get("nodeName"))
        meta = made.get(PERSISTENT_VOLUME_CLAIMS, "p-data")["metadata"]
        assert meta["labels"] == {"a": "b"}
        assert meta["ownerReferences"][0]["uid"] == made.get(PODS, "p")["metadata"]["uid"]
        await made.claim("q-data", storageClassName="")
        await made.pod("q", {"ephemeral": {"volumeClaimTemplate": template}})
        await made.until(lambda: "FailedBinding" in made.reasons("q"))
        await made.rest()


async def test_a_claim_that_grows_waits_for_its_provisioner() -> None:
    async with cluster() as made:
        await made.volume("v")
        await made.claim("c", storageClassName="")
        await made.until(lambda: is_bound_to(made, "c", "v"))
        body = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        await made.client.patch(PERSISTENT_VOLUME_CLAIMS, "default", "c", body=body)
        await made.until(lambda: "ExternalExpanding" in made.reasons("c"))
        await made.rest()
        assert made.get(PERSISTENT_VOLUME_CLAIMS, "c")["status"]["capacity"]["storage"] == "1Gi"


async def test_a_claim_from_before_there_was_a_default_class_gets_it_later() -> None:
    async with cluster() as made:
        await made.claim("early")
        await made.claim("none", storageClassName="")
        await made.until(lambda: "FailedBinding" in made.reasons("early"))
        note = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
        await made.client.create(
            STORAGE_CLASSES,
            {"metadata": {"name": "fast", **note}, "provisioner": "example.com/disk"},
        )
        await made.until(lambda: "ExternalProvisioning" in made.reasons("early"))
        await made.rest()
        early = made.get(PERSISTENT_VOLUME_CLAIMS, "early")
        assert early["spec"]["storageClassName"] == "fast"
        notes = early["metadata"]["annotations"]
        assert notes["volume.kubernetes.io/storage-provisioner"] == "example.com/disk"
        assert made.get(PERSISTENT_VOLUME_CLAIMS, "none")["spec"]["storageClassName"] == ""


async def test_a_claim_without_a_class_takes_a_volume_before_the_default_class() -> None:
    async with cluster() as made:
        await made.claim("early")
        await made.until(lambda: "FailedBinding" in made.reasons("early"))
        await made.volume("pv1", storageClassName="")
        await made.until(lambda: made.phase(PERSISTENT_VOLUME_CLAIMS, "early") == "Bound")
        bound = made.get(PERSISTENT_VOLUME_CLAIMS, "early")
        assert bound["spec"].get("storageClassName") is None
        volume = made.get(PERSISTENT_VOLUMES, "pv1")
        assert volume["status"]["lastPhaseTransitionTime"]


async def test_changing_the_attributes_of_a_volume_is_refused_by_name() -> None:
    async with cluster() as made:
        await made.volume("pv1", storageClassName="by-hand")
        await made.claim("data", storageClassName="by-hand")
        await made.until(lambda: made.phase(PERSISTENT_VOLUME_CLAIMS, "data") == "Bound")
        body = {"spec": {"volumeAttributesClassName": "gold"}}
        await made.client.patch(PERSISTENT_VOLUME_CLAIMS, "default", "data", body=body)
        await made.until(lambda: "VolumeModifyFailed" in made.reasons("data"))


async def test_a_claim_tells_which_pods_it_waits_for() -> None:
    async with cluster() as made:
        await made.storage_class("slow", "example.com/disk", "WaitForFirstConsumer")
        await made.claim("data", storageClassName="slow")
        await made.until(lambda: "WaitForFirstConsumer" in made.reasons("data"))
        assert "WaitForPodScheduled" not in made.reasons("data")
        for name in ("n1", "n2"):
            body = {"spec": {"unschedulable": True}}
            await made.client.patch(NODES, "", name, body=body)
        await made.pod("user", {"persistentVolumeClaim": {"claimName": "data"}})
        await made.until(lambda: "WaitForPodScheduled" in made.reasons("data"))
        (event,) = [e for e in made.cache.list(EVENTS) if e["reason"] == "WaitForPodScheduled"]
        assert event["message"] == "waiting for pod user to be scheduled"
        await made.rest()
