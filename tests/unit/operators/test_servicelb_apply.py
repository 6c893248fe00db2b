"""What is written, and how often: at rest, in a storm, with an API that fails."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from operators.client import ApiError
from operators.servicelb.decide import Deciding, Forwarded, Native, Withdrawn
from operators.servicelb.known import Known
from tests.fakes.operators_balancer import DAEMONSETS, BalancerApi, Operator, virtually
from tests.fakes.operators_services import pod_body, service_body

MINUTE = 60.0


def native(known: Known) -> Deciding:
    return Native(known, "")


def by_pods(known: Known) -> Deciding:
    return Forwarded(known, namespace="kube-system", image="img")


def disabled(known: Known) -> Deciding:
    return Withdrawn(known, Native.manager)


def pods_disabled(known: Known) -> Deciding:
    return Withdrawn(known, Forwarded.manager)


def cluster(services: int = 1) -> BalancerApi:
    api = BalancerApi()
    api.put_node("n", "10.0.0.1")
    for number in range(services):
        api.put_service(service_body(f"s{number}", 8000 + number))
    return api


async def settle(api: BalancerApi, decide: Callable[[Known], Deciding]) -> None:
    """An operator that starts, runs until nothing is to do, and ends."""
    operator = Operator(api, decide)
    for _ in range(3):
        await operator.run(1000 * MINUTE)
        if decide is by_pods:
            api.run_pods()
    await operator.run(1000 * MINUTE)
    api.unwatch()


def test_twenty_services_at_rest_are_written_once_and_then_left_alone() -> None:
    async def work() -> None:
        api = cluster(20)
        operator = Operator(api, native)
        await operator.run(MINUTE)
        assert len(api.writes) == 20
        assert set(api.addresses().values()) == {("10.0.0.1",)}
        assert operator.looks == 2  # the second one at what it wrote itself
        await operator.run(24 * 60 * MINUTE)
        assert (len(api.writes), operator.looks) == (20, 2)

    virtually(work)


def test_labels_and_heartbeats_cost_no_look() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, native)
        await operator.run(MINUTE)
        looks = operator.looks
        body = service_body("s0", 8000)
        body["metadata"]["labels"] = {"a": "b"}
        api.put_service(body)
        api.put_node("n", "10.0.0.1")
        await operator.run(MINUTE)
        assert operator.looks == looks
        # And the next change is not refused for an old version.
        api.put_node("n", "10.0.0.2")
        await operator.run(MINUTE)
        assert api.addresses() == {"s0": ("10.0.0.2",)}
        assert len(api.writes) == 2

    virtually(work)


def test_a_service_that_flaps_is_written_once_a_second_at_most() -> None:
    async def work() -> None:
        api = cluster(3)
        operator = Operator(api, native)
        await operator.run(MINUTE)
        before = len(api.writes)

        async def flap() -> None:
            for turn in range(600):
                kind = "ClusterIP" if turn % 2 else "LoadBalancer"
                api.put_service(service_body("s0", 8000, type=kind))
                await asyncio.sleep(0.1)

        await asyncio.gather(operator.run(2 * MINUTE), flap())
        # 600 changes within a minute.
        assert len(api.writes) - before <= 70
        assert operator.looks <= 80
        assert api.addresses()["s0"] == ()
        assert api.addresses()["s1"] == ("10.0.0.1",)

    virtually(work)


def test_endpoints_that_flap_are_written_once_a_second_at_most() -> None:
    async def work() -> None:
        api = cluster(0)
        api.put_service(service_body("web", externalTrafficPolicy="Local"))
        operator = Operator(api, native)

        async def flap() -> None:
            for turn in range(601):
                api.put_slice("web", *([] if turn % 2 else ["n"]))
                await asyncio.sleep(0.1)

        await asyncio.gather(operator.run(2 * MINUTE), flap())
        assert len(api.writes) <= 70
        assert api.addresses() == {"web": ("10.0.0.1",)}

    virtually(work)


@pytest.mark.parametrize("code", [0, 409, 429, 500, 503])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("decide", [native, by_pods])
def test_an_api_that_fails_for_a_while_is_asked_until_all_is_right(
    code: int, lost: bool, decide: Callable[[Known], Deciding]
) -> None:
    async def work() -> None:
        api = cluster(3)
        api.lost = lost
        api.faults = [ApiError(code, "", "fault") for _ in range(7)]
        await settle(api, decide)
        assert set(api.addresses().values()) == {("10.0.0.1",)}
        wanted = 3 if decide is by_pods else 0
        assert len([path for path in api.objects if path.startswith(DAEMONSETS)]) == wanted

    virtually(work)


def test_a_service_that_is_always_refused_keeps_no_other_waiting() -> None:
    class Refusing(BalancerApi):
        async def merge(self, path: str, patch: object) -> object:  # type: ignore[override]
            if "/s0/" in path:
                raise ApiError(422, "Invalid", "no")
            return await super().merge(path, patch)  # type: ignore[arg-type]

    async def work() -> None:
        api = Refusing()
        api.objects = cluster(3).objects
        operator = Operator(api, native)
        await operator.run(60 * MINUTE)
        assert api.addresses() == {"s0": (), "s1": ("10.0.0.1",), "s2": ("10.0.0.1",)}
        assert operator.looks < 30  # later each time

    virtually(work)


@pytest.mark.parametrize("code", [0, 429, 503])
def test_an_api_that_is_away_is_asked_once_in_a_look(code: int) -> None:
    async def work() -> None:
        api = cluster(10)
        api.faults = [ApiError(code, "", "away") for _ in range(3)]
        operator = Operator(api, native)
        for left in (2, 1, 0):
            with pytest.raises(ApiError):
                await operator.balancer.reconcile("all")
            assert len(api.faults) == left
        await operator.balancer.reconcile("all")
        assert set(api.addresses().values()) == {("10.0.0.1",)}

    virtually(work)


def test_a_daemonset_of_somebody_else_is_left_and_told_of() -> None:
    async def work() -> None:
        api = cluster(1)
        path = f"{DAEMONSETS}/svclb-s0-s0-01234"
        metadata = {"name": "svclb-s0-s0-01234", "namespace": "kube-system"}
        api.put(path, {"metadata": metadata, "spec": {"template": {"spec": {"containers": []}}}})
        operator = Operator(api, by_pods)
        await operator.run(60 * MINUTE)
        assert api.objects[path]["metadata"]["name"] == metadata["name"]
        assert [reason for reason, _ in api.events] == ["SyncLoadBalancerFailed"]
        assert operator.looks < 30

    virtually(work)


@pytest.mark.parametrize("step", range(12))
def test_killed_at_any_step_the_next_one_goes_on_from_there(step: int) -> None:
    async def work() -> None:
        api = cluster(2)
        api.faults = [*([None] * step), asyncio.CancelledError()]
        operator = Operator(api, by_pods)
        with contextlib.suppress(asyncio.CancelledError):
            await operator.balancer.reconcile("all")
            api.run_pods()
            await operator.balancer.reconcile("all")
        api.unwatch()
        api.faults.clear()
        await settle(api, by_pods)
        assert set(api.addresses().values()) == {("10.0.0.1",)}
        # Every Service goes while nobody looks.
        for path in [path for path in api.objects if "/services/" in path]:
            api.remove(path)
        await settle(api, by_pods)
        assert not [path for path in api.objects if path.startswith(DAEMONSETS)]

    virtually(work)


def test_a_daemonset_is_made_once_and_mended_when_somebody_changes_it() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, by_pods)
        await operator.run(MINUTE)
        [path] = [path for path in api.objects if path.startswith(DAEMONSETS)]
        assert [verb for verb, where in api.writes if where == path] == ["create"]
        assert "/api/v1/namespaces/kube-system/serviceaccounts/svclb" in api.objects
        body = api.objects[path]
        body["status"] = {"numberReady": 1}
        api.put(path, body)
        await operator.run(MINUTE)
        assert [verb for verb, where in api.writes if where == path] == ["create"]
        body["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
        api.put(path, body)
        await operator.run(MINUTE)
        assert [verb for verb, where in api.writes if where == path] == ["create", "replace"]
        api.remove(path)
        await operator.run(MINUTE)
        assert path in api.objects

    virtually(work)


def test_events_are_those_of_k3s() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, by_pods)
        await operator.run(MINUTE)
        api.run_pods()
        await operator.run(MINUTE)
        api.remove("/api/v1/nodes/n")
        await operator.run(MINUTE)
        api.put_service(service_body("s0", 8000, type="ClusterIP"))
        await operator.run(MINUTE)
        name = "kube-system/svclb-s0-s0-01234"
        assert api.events == [
            ("AppliedDaemonSet", f"Applied LoadBalancer DaemonSet {name}"),
            ("UpdatedLoadBalancer", "Updated LoadBalancer with new IPs: [] -> [10.0.0.1]"),
            ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer"),
        ]

    virtually(work)


def test_a_service_that_is_no_load_balancer_any_more_is_told_so() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, by_pods)
        await operator.run(MINUTE)
        api.run_pods()
        await operator.run(MINUTE)
        api.events.clear()
        api.put_service(service_body("s0", 8000, type="ClusterIP"))
        await operator.run(MINUTE)
        assert [reason for reason, _ in api.events] == ["DeletedDaemonSet", "DeletedLoadBalancer"]
        assert api.addresses() == {"s0": ()}

    virtually(work)


def test_a_conflict_is_told_once_and_names_the_other() -> None:
    async def work() -> None:
        api = cluster(1)
        api.put_service(service_body("late", 8000, created="2"))
        operator = Operator(api, native)
        await operator.run(MINUTE)
        words = (
            "There are no available nodes for LoadBalancer: Service default/s0 has TCP 8000 on n"
        )
        assert ("UnAvailableLoadBalancer", words) in api.events
        count = len(api.events)
        await operator.run(60 * MINUTE)
        api.unwatch()
        await settle(api, native)  # as after a restart
        assert len(api.events) == count
        api.remove("/api/v1/namespaces/default/services/s0")
        await settle(api, native)
        assert api.addresses() == {"late": ("10.0.0.1",)}

    virtually(work)


def test_a_pod_in_the_shadow_of_a_service_is_told_once() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, native)
        await operator.run(MINUTE)
        api.put("/api/v1/namespaces/default/pods/p", pod_body("p", "n", 8000))
        await operator.run(MINUTE)
        api.put_node("m", "10.0.0.2")
        await operator.run(MINUTE)
        told = [message for reason, message in api.events if reason == "HostPortConflict"]
        assert told == ["Service default/s0 has TCP 8000 on n"]

    virtually(work)


def test_a_daemonset_that_the_api_refuses_is_told_once() -> None:
    async def work() -> None:
        api = cluster(1)
        operator = Operator(api, by_pods)
        api.put(
            "/api/v1/namespaces/kube-system/serviceaccounts/svclb", {"metadata": {"name": "svclb"}}
        )
        api.faults = [f for _ in range(5) for f in (None, ApiError(422, "Invalid", "no such"))]
        await operator.run(60 * MINUTE)
        refused = [message for reason, message in api.events if reason == "SyncLoadBalancerFailed"]
        assert refused == ["Error syncing load balancer: no such"]

    virtually(work)


def test_disabled_it_takes_back_what_it_gave_once() -> None:
    async def work() -> None:
        api = cluster(2)
        await settle(api, native)
        operator = Operator(api, disabled)
        await operator.run(MINUTE)
        assert set(api.addresses().values()) == {()}
        writes = len(api.writes)
        # Another controller, by whatever name, gives an address to an old and to a new one.
        given = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}}
        for name in ("s0", "new"):
            path = f"/api/v1/namespaces/default/services/{name}"
            body = api.objects.get(path) or service_body(name)
            api.put(path, {**body, "status": given})
        await operator.run(MINUTE)
        assert len(api.writes) == writes
        assert api.addresses() == {"s0": ("10.0.0.1",), "s1": (), "new": ("10.0.0.1",)}

    virtually(work)


def test_disabled_it_removes_its_daemonsets_once() -> None:
    async def work() -> None:
        api = cluster(2)
        await settle(api, by_pods)
        operator = Operator(api, pods_disabled)
        await operator.run(MINUTE)
        assert not [path for path in api.objects if path.startswith(DAEMONSETS)]
        assert set(api.addresses().values()) == {()}

    virtually(work)
