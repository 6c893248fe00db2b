"""What is not supported is refused by name; what nobody acts on is said with each write."""

from typing import Any

import pytest

from controlplane.api.admission.unsupported import NOT_ACTED_ON, Unsupported
from controlplane.api.base import AdmissionRequest, Operation, User
from controlplane.objects.errors import StatusError
from controlplane.objects.facts import builtin_kinds
from controlplane.objects.kinds import Kind
from tests.fakes.reads import World

KINDS = {kind.group_resource: kind for kind in builtin_kinds()}


def request(kind: Kind, body: dict[str, Any], operation: Operation) -> AdmissionRequest:
    return AdmissionRequest(
        operation=operation,
        kind=kind,
        subresource="",
        namespace="a",
        name="x",
        user=User(name="somebody"),
        object=body,
        old=None,
        options={},
        dry_run=False,
        reads=World(),
    )


async def warnings(kind: str, body: dict[str, Any], operation: Operation) -> list[str]:
    asked = request(KINDS[kind], body, operation)
    await Unsupported().validate(asked)
    return asked.warnings


@pytest.mark.parametrize("kind", sorted(NOT_ACTED_ON))
async def test_each_kind_on_the_list_is_served_and_warned_of(kind: str) -> None:
    (said,) = await warnings(kind, {}, Operation.CREATE)
    assert said == f"{KINDS[kind].kind} is stored, but {NOT_ACTED_ON[kind]}"


async def test_only_api_services_that_are_to_be_relayed_are_refused() -> None:
    kind = "apiservices.apiregistration.k8s.io"
    with pytest.raises(StatusError, match="aggregated API servers"):
        await warnings(kind, {"spec": {"service": {"name": "x"}}}, Operation.UPDATE)
    assert not await warnings(kind, {"spec": {}}, Operation.UPDATE)


async def test_deletions_and_other_kinds_pass() -> None:
    assert not await warnings("networkpolicies.networking.k8s.io", {}, Operation.DELETE)
    assert not await warnings("pods", {}, Operation.CREATE)
