"""The verbs of node.host on a real kernel, in a namespace of their own."""

import asyncio
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from node.host import mounts
from node.host.links import SCOPE_HOST, SCOPE_LINK, Links, Route
from node.host.netlink import NetlinkError
from node.host.nft import Nft, NftError, NftMissing, has_table, wait_until_lost
from node.host.probe import missing_features
from tests.fakes.host import Namespace

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace("kernel")
    try:
        yield made
    finally:
        made.remove()


def test_links_and_addresses_are_made_once_and_removed(namespace: Namespace) -> None:
    with Links(netns=namespace.path) as links:
        for _ in range(2):
            links.add("br0", "bridge", mtu=1400)
        bridge = links.find("br0")
        assert bridge is not None
        assert (bridge.kind, bridge.mtu, bridge.up) == ("bridge", 1400, False)
        links.set_up(bridge.index, mtu=1300)
        for _ in range(2):
            links.add_address(bridge.index, IPv4Interface("10.42.0.1/24"), scope=SCOPE_HOST)
        assert (bridge.index, IPv4Interface("10.42.0.1/24")) in links.addresses()
        for _ in range(2):
            links.remove_address(bridge.index, IPv4Interface("10.42.0.1/24"))
            links.remove("br0")
        assert links.find("br0") is None
        assert [link.name for link in links.all()] == ["lo"]


def test_routes_of_ours_can_be_told_from_others(namespace: Namespace) -> None:
    route = Route(
        target=IPv4Network("10.43.0.0/16"),
        link=1,
        source=IPv4Address("127.0.0.1"),
        metric=4096,
        mtu=1450,
    )
    with Links(netns=namespace.path) as links:
        for _ in range(2):
            links.set_route(route, scope=SCOPE_LINK)
        namespace.ip("route", "add", "10.44.0.0/16", "dev", "lo")
        assert [found for found in links.routes() if found.ours] == [route]
        for _ in range(2):
            links.remove_route(route)
        assert [str(found.target) for found in links.routes()] == ["10.44.0.0/16"]


def test_what_the_kernel_refuses_is_an_error(namespace: Namespace) -> None:
    with Links(netns=namespace.path) as links, pytest.raises(NetlinkError):
        links.set_up(4711)


async def test_a_ruleset_is_loaded_whole_or_not_at_all(namespace: Namespace) -> None:
    nft = Nft(netns=namespace.path)
    with pytest.raises(NftError, match="No such file or directory"):
        await nft.load("add table ip t\nadd rule ip t nowhere drop\n")
    assert await nft.list_table("ip", "t") is None
    await nft.load([{"add": {"table": {"family": "ip", "name": "t"}}}])
    assert await nft.list_table("ip", "t") == "table ip t {\n}\n"
    await nft.delete_table("ip", "t")
    await nft.delete_table("ip", "t")
    assert not has_table("ip", "t", netns=namespace.path)


async def test_without_nft_the_error_says_so() -> None:
    with pytest.raises(NftMissing):
        await Nft(program="no-such-nft").load("")


async def test_the_loss_of_a_table_is_noticed(namespace: Namespace) -> None:
    nft = Nft(netns=namespace.path)
    await nft.load("add table ip t\n")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        watch = group.create_task(wait_until_lost("ip", "t", netns=namespace.path))
        await nft.load("add table ip other\n")
        # A transaction that replaces the table is no loss.
        await nft.load("add table ip t\ndelete table ip t\nadd table ip t\n")
        assert not watch.done()
        await nft.load("flush ruleset\n")


def test_this_machine_has_all_a_node_needs() -> None:
    assert missing_features() == []


def test_mounts_come_and_go(tmp_path: Path) -> None:
    memory, copy = tmp_path / "with space", tmp_path / "copy"
    memory.mkdir()
    copy.mkdir()
    mounts.tmpfs(memory, size=1 << 20, mode=0o700)
    try:
        (memory / "file").write_text("x")
        mounts.bind(memory, copy, read_only=True)
        assert (copy / "file").read_text() == "x"
        with pytest.raises(OSError, match="Read-only"):
            (copy / "file").write_text("y")
        assert set(mounts.mounted_below(tmp_path)) == {memory, copy}
        assert os.statvfs(memory).f_blocks * os.statvfs(memory).f_frsize == 1 << 20
    finally:
        gone = [mounts.unmount(path) for path in mounts.mounted_below(tmp_path)]
    assert gone == [True, True]
    assert not mounts.unmount(memory)
