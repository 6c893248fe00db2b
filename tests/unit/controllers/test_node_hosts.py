"""The nodes' names and addresses, where CoreDNS reads them."""

from typing import Any

from controlplane.controllers.node_hosts import NODE_HOSTS
from controlplane.objects.resources import CONFIG_MAPS, NODES
from tests.fakes.running import running

CONFIG = {"metadata": {"name": "coredns", "namespace": "kube-system"}, "data": {"Corefile": "."}}


def node(name: str, *addresses: str) -> dict[str, Any]:
    entries = [{"type": "InternalIP", "address": address} for address in addresses]
    status = {"addresses": [*entries, {"type": "Hostname", "address": name}]}
    return {"metadata": {"name": name}, "status": status}


async def test_each_node_has_a_line_and_the_rest_of_the_file_stays() -> None:
    async with running(NODE_HOSTS) as run:
        world = run.world
        world.put(NODES, node("b", "10.0.0.10"))
        world.put(NODES, node("a", "10.0.0.9", "fd00::9"))
        world.put(CONFIG_MAPS, CONFIG)
        await run.settle()
        found = world.get(CONFIG_MAPS, "kube-system", "coredns")
        assert found is not None
        hosts = "10.0.0.9 a\n10.0.0.10 b\nfd00::9 a\n"
        assert found["data"] == {"Corefile": ".", "NodeHosts": hosts}
        world.remove(NODES, "", "a")
        await run.settle()
        found = world.get(CONFIG_MAPS, "kube-system", "coredns")
        assert found is not None
        assert found["data"]["NodeHosts"] == "10.0.0.10 b\n"


async def test_without_coredns_nothing_is_written() -> None:
    async with running(NODE_HOSTS) as run:
        run.world.put(NODES, node("a", "10.0.0.9"))
        run.world.put(CONFIG_MAPS, CONFIG | {"metadata": {"name": "c", "namespace": "default"}})
        await run.settle()
        assert run.world.get(CONFIG_MAPS, "kube-system", "coredns") is None
        other = run.world.get(CONFIG_MAPS, "default", "c")
        assert other is not None
        assert other["data"] == {"Corefile": "."}
