"""Services and their pods as Endpoints and EndpointSlices."""

from typing import Any

from controlplane.controllers.endpoints import fill
from controlplane.controllers.endpoints.legacy import ENDPOINTS_CONTROLLER
from controlplane.controllers.endpoints.mirror import MIRROR
from controlplane.controllers.endpoints.slices import ENDPOINTSLICE
from controlplane.objects.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from tests.fakes.reads import World
from tests.fakes.running import running

WEB = {"app": "web"}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    body = {"selector": WEB, "ports": ports, "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {**body, **spec}}


def pod(number: int, *, ready: bool = True, port: int = 8080, **spec: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    address = f"10.42.{number // 250}.{number % 250 + 1}"
    container = {"name": "c", "ports": [{"name": "http", "containerPort": port}]}
    return {
        "metadata": {"name": f"p{number}", "namespace": "default", "labels": WEB},
        "spec": {"containers": [container], "nodeName": "n1", **spec},
        "status": {"phase": "Running", "podIPs": [{"ip": address}], "conditions": conditions},
    }


def endpoints(world: World) -> list[dict[str, Any]]:
    return [dict(e) for s in world.list(ENDPOINT_SLICES) for e in s["endpoints"]]


async def test_ready_and_unready_pods_are_told_apart_in_both_forms() -> None:
    world = World()
    labels = {"topology.kubernetes.io/zone": "z"}
    world.put(NODES, {"metadata": {"name": "n1", "labels": labels}})
    async with running(ENDPOINTS_CONTROLLER, ENDPOINTSLICE, world=world) as run:
        world.put(SERVICES, service())
        world.put(PODS, pod(1))
        world.put(PODS, pod(2, ready=False))
        await run.settle()
        found = world.get(ENDPOINTS, "default", "web")
        assert found is not None
        (subset,) = found["subsets"]
        assert [a["ip"] for a in subset["addresses"]] == ["10.42.0.2"]
        assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.42.0.3"]
        assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        (slice_,) = world.list(ENDPOINT_SLICES)
        labels = slice_["metadata"]["labels"]
        assert labels["kubernetes.io/service-name"] == "web"
        assert labels["endpointslice.kubernetes.io/managed-by"] == (
            "endpointslice-controller.k8s.io"
        )
        states = {e["addresses"][0]: e["conditions"] for e in slice_["endpoints"]}
        assert states["10.42.0.2"] == {"ready": True, "serving": True, "terminating": False}
        assert states["10.42.0.3"] == {"ready": False, "serving": False, "terminating": False}
        assert {(e["nodeName"], e["zone"]) for e in slice_["endpoints"]} == {("n1", "z")}


async def test_a_terminating_pod_still_serves_but_is_not_ready() -> None:
    async with running(ENDPOINTS_CONTROLLER, ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service())
        run.world.put(PODS, pod(1))
        await run.settle()
        await run.client.delete(PODS, "default", "p1")
        await run.settle()
        (endpoint,) = endpoints(run.world)
        assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}
        found = run.world.get(ENDPOINTS, "default", "web")
        assert found is not None
        assert found["subsets"] == []


async def test_unready_pods_are_published_on_request() -> None:
    async with running(ENDPOINTS_CONTROLLER, ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service(publishNotReadyAddresses=True))
        run.world.put(PODS, pod(1, ready=False))
        await run.settle()
        (endpoint,) = endpoints(run.world)
        assert endpoint["conditions"]["ready"] is True


async def test_a_headless_service_names_its_pods() -> None:
    async with running(ENDPOINTS_CONTROLLER, ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service(clusterIP="None", ports=[]))
        run.world.put(PODS, pod(1, hostname="db-0", subdomain="web"))
        await run.settle()
        (endpoint,) = endpoints(run.world)
        assert endpoint["hostname"] == "db-0"
        found = run.world.get(ENDPOINTS, "default", "web")
        assert found is not None
        assert found["subsets"][0]["addresses"][0]["hostname"] == "db-0"
        assert found["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


async def test_a_named_port_may_differ_from_pod_to_pod() -> None:
    async with running(ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service())
        run.world.put(PODS, pod(1, port=8080))
        run.world.put(PODS, pod(2, port=9090))
        await run.settle()
        ports = sorted(s["ports"][0]["port"] for s in run.world.list(ENDPOINT_SLICES))
        assert ports == [8080, 9090]


async def test_slices_hold_a_hundred_and_change_one_at_a_time() -> None:
    world = World()
    for number in range(250):
        world.put(PODS, pod(number))
    world.put(SERVICES, service())
    async with running(ENDPOINTSLICE, world=world) as run:
        sizes = sorted(len(s["endpoints"]) for s in world.list(ENDPOINT_SLICES))
        assert sizes == [50, 100, 100]
        world.writes.clear()
        world.remove(PODS, "default", "p7")
        await run.settle()
        assert len(world.writes) == 1
        world.writes.clear()
        world.change(PODS, "default", "p8", status={"message": "nothing that shows"})
        await run.settle()
        assert world.writes == []


async def test_a_service_without_pods_has_one_empty_slice() -> None:
    async with running(ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service())
        await run.settle()
        (slice_,) = run.world.list(ENDPOINT_SLICES)
        assert slice_["endpoints"] == []
        run.world.put(PODS, pod(1))
        await run.settle()
        assert len(endpoints(run.world)) == 1
        assert len(run.world.list(ENDPOINT_SLICES)) == 1


async def test_a_slice_that_somebody_changes_is_put_right() -> None:
    async with running(ENDPOINTSLICE) as run:
        run.world.put(SERVICES, service())
        run.world.put(PODS, pod(1))
        await run.settle()
        name = run.world.list(ENDPOINT_SLICES)[0]["metadata"]["name"]
        run.world.change(ENDPOINT_SLICES, "default", name, endpoints=[])
        await run.settle()
        assert len(endpoints(run.world)) == 1


async def test_endpoints_go_with_their_service_but_not_those_made_by_hand() -> None:
    async with running(ENDPOINTS_CONTROLLER) as run:
        run.world.put(SERVICES, service())
        alone = {"metadata": {"name": "alone", "namespace": "default"}, "subsets": []}
        run.world.put(ENDPOINTS, alone)
        await run.settle()
        run.world.remove(SERVICES, "default", "web")
        await run.settle()
        assert [e["metadata"]["name"] for e in run.world.list(ENDPOINTS)] == ["alone"]


async def test_endpoints_made_by_hand_are_mirrored() -> None:
    async with running(MIRROR) as run:
        body = service(selector=None)
        run.world.put(SERVICES, body)
        subset = {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}
        meta = {"name": "web", "namespace": "default"}
        run.world.put(ENDPOINTS, {"metadata": meta, "subsets": [subset]})
        await run.settle()
        (slice_,) = run.world.list(ENDPOINT_SLICES)
        assert slice_["endpoints"][0]["addresses"] == ["192.0.2.1"]
        assert slice_["metadata"]["labels"][fill.MANAGED_BY] == (
            "endpointslicemirroring-controller.k8s.io"
        )
        subset["addresses"] = [{"ip": "192.0.2.2"}]
        run.world.put(ENDPOINTS, {"metadata": meta, "subsets": [subset]})
        await run.settle()
        (slice_,) = run.world.list(ENDPOINT_SLICES)
        assert slice_["endpoints"][0]["addresses"] == ["192.0.2.2"]
        run.world.remove(ENDPOINTS, "default", "web")
        await run.settle()
        assert run.world.list(ENDPOINT_SLICES) == []
