"""Which addresses the API server's certificate is to name."""

import asyncio

import pytest

from controlplane import addresses
from controlplane.config import Config, from_settings
from node import settings

OWN = frozenset({"192.0.2.7", "2001:db8::7"})


def config(bind_address: str) -> Config:
    given = settings.read("server", [f"--bind-address={bind_address}", "--tls-san=boat.lan"], {})
    return from_settings(given)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "own", lambda: OWN)


@pytest.mark.parametrize("bind_address", ["0.0.0.0", "::"])
def test_a_server_at_all_addresses_names_each_that_the_machine_has(bind_address: str) -> None:
    named = addresses.named_in(config(bind_address)).tls_sans
    assert named == ("boat.lan", "192.0.2.7", "2001:db8::7")


def test_a_server_bound_to_one_address_names_that_alone() -> None:
    assert addresses.named_in(config("192.0.2.9")).tls_sans == ("boat.lan", "192.0.2.9")


def test_a_server_bound_to_one_address_follows_none() -> None:
    asyncio.run(addresses.follow("192.0.2.9", lambda: pytest.fail("nothing is to change")))
