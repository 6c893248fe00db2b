"""A node whose address changed, or came late, goes on with the one that it has."""

import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from node import settings
from node.supervise import addresses
from node.supervise.addresses import Addresses, current, moved

HERE, THERE = "192.168.1.20", "10.0.0.7"


@pytest.mark.parametrize(
    ("own", "found", "present", "answer"),
    [
        (HERE, HERE, {HERE}, False),
        ("127.0.0.1", HERE, {HERE}, True),  # the router came after the node
        (HERE, THERE, {THERE}, True),  # another network
        (HERE, THERE, {HERE, THERE}, False),  # one more
        (HERE, "127.0.0.1", set(), False),  # the cable is out
    ],
)
def test_when_a_node_moves(own: str, found: str, present: set[str], answer: bool) -> None:
    assert moved(own, found, frozenset(present)) is answer


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """``address``: the one address of this machine."""
    state = {"address": HERE}
    monkeypatch.setattr(settings, "own_address", lambda: state["address"])
    monkeypatch.setattr(settings, "own_addresses", lambda: frozenset(state.values()))
    return state


def read(*flags: str) -> Mapping[str, Any]:
    return settings.read("server", ["--config=/dev/null", *flags], {})


def test_the_settings_follow_the_machine(machine: dict[str, str]) -> None:
    before = read()
    assert before["node-ip"] == (HERE,)
    assert current(before)["node-ip"] == (HERE,)
    machine["address"] = THERE
    assert current(before)["node-ip"] == (THERE,)
    assert Addresses(before).look()


def test_an_address_that_was_chosen_stays(machine: dict[str, str]) -> None:
    chosen = read(f"--node-ip={HERE}")
    machine["address"] = THERE
    assert current(chosen)["node-ip"] == (HERE,)
    own = Addresses(chosen)
    own.open()
    assert own.socket is None


@pytest.fixture
def own(machine: dict[str, str]) -> Iterator[Addresses]:
    made = Addresses(read())
    made.open()
    yield made
    made.close()


def test_what_the_kernel_says_is_taken_without_waiting(own: Addresses) -> None:
    assert isinstance(own.socket, socket.socket)
    own.heard()
    assert addresses.NOWHERE == "127.0.0.1"
