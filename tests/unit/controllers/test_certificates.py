"""Requests for certificates: signed once approved, deleted when they are over."""

from base64 import b64decode, b64encode
from datetime import timedelta
from typing import Any

from cryptography import x509

from controlplane.controllers import certificates
from controlplane.objects.meta import condition, rfc3339
from controlplane.objects.resources import CERTIFICATE_SIGNING_REQUESTS as REQUESTS
from tests.fakes.reads import World
from tests.fakes.running import Running, running
from tests.unit.pki.test_signers import SIGNERS, request

SIGNER = "kubernetes.io/kube-apiserver-client"


def wanted(signer: str = SIGNER, usages: tuple[str, ...] = ("client auth",)) -> dict[str, Any]:
    pem = b64encode(request("jane", "devs")).decode()
    return {
        "metadata": {"name": "jane"},
        "spec": {"request": pem, "signerName": signer, "usages": list(usages)},
    }


def world_of(obj: dict[str, Any]) -> World:
    world = World()
    world.put(REQUESTS, obj)
    return world


def found(run: Running) -> dict[str, Any]:
    obj = run.world.get(REQUESTS, "", "jane")
    assert obj is not None
    return dict(obj.get("status") or {})


async def decide(run: Running, type_: str) -> None:
    decision = {
        "type": type_,
        "status": "True",
        "lastUpdateTime": rfc3339(run.clock.now()),
    }
    run.world.change(REQUESTS, "", "jane", status={"conditions": [decision]})
    await run.settle()


async def test_an_approved_request_is_signed_and_others_are_not() -> None:
    async with running(certificates.make(SIGNERS), world=world_of(wanted())) as run:
        assert "certificate" not in found(run)
        await decide(run, "Approved")
        pem = b64decode(found(run)["certificate"])
        assert "jane" in x509.load_pem_x509_certificate(pem).subject.rfc4514_string()


async def test_a_denied_request_is_not_signed() -> None:
    async with running(certificates.make(SIGNERS), world=world_of(wanted())) as run:
        await decide(run, "Denied")
        assert "certificate" not in found(run)


async def test_the_signers_of_others_are_left_to_them() -> None:
    obj = wanted("example.com/other")
    async with running(certificates.make(SIGNERS), world=world_of(obj)) as run:
        await decide(run, "Approved")
        assert "certificate" not in found(run)


async def test_what_cannot_be_signed_fails_for_good() -> None:
    obj = wanted(usages=("server auth",))
    async with running(certificates.make(SIGNERS), world=world_of(obj)) as run:
        await decide(run, "Approved")
        failed = condition({"status": found(run)}, "Failed")
        assert failed is not None
        assert failed["reason"] == "SignerValidationFailure"
        assert failed["message"] == "invalid usage for client certificate: server auth"


async def test_requests_are_deleted_when_they_are_over() -> None:
    async with running(certificates.make(SIGNERS), world=world_of(wanted())) as run:
        run.world.change(
            REQUESTS, "", "jane", metadata={"creationTimestamp": rfc3339(run.clock.now())}
        )
        await decide(run, "Approved")
        await run.advance(timedelta(minutes=59).total_seconds())
        assert run.world.get(REQUESTS, "", "jane") is not None
        await run.advance(timedelta(minutes=2).total_seconds())
        assert run.world.get(REQUESTS, "", "jane") is None
