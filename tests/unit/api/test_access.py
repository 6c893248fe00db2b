"""Who asks, as whom, and whether they may: before anything else happens."""

from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest

from controlplane.api.base import Attributes, Credentials, Decision, Rule, User
from controlplane.api.local import LocalClient
from controlplane.objects.errors import StatusError, unauthorized
from controlplane.objects.resources import PODS
from tests.fakes.api_server import listening, serving


class Names:
    """A bearer token is a name; ``bad`` is nobody's."""

    async def authenticate(self, credentials: Credentials) -> User | None:
        token = credentials.bearer_token
        if not token:
            return None
        if token == "bad":
            raise unauthorized()
        return User(name=token)


class Allowed:
    """Allows what the set holds as ``user verb resource/name`` or ``user verb path``."""

    def __init__(self, *allowed: str) -> None:
        self._allowed = set(allowed)
        self.seen: list[Attributes] = []

    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        self.seen.append(attributes)
        target = attributes.path or attributes.resource
        if attributes.verb == "impersonate":
            target = f"{target}/{attributes.name}"
        allowed = f"{attributes.user.name} {attributes.verb} {target}" in self._allowed
        return (Decision.ALLOW if allowed else Decision.NO_OPINION), ""

    def rules(self, _user: User, _namespace: str) -> Iterable[Rule]:
        return ()


async def ask(parts: dict[str, Any], path: str, **headers: str) -> tuple[int, Any]:
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        listening(**parts) as served,
        aiohttp.ClientSession() as http,
        http.get(served.url + path, headers=shown) as answer,
    ):
        body = await answer.json() if "json" in answer.content_type else await answer.text()
        return answer.status, body


def parts(*allowed: str) -> dict[str, Any]:
    return {"authenticators": (Names(),), "authorizer": Allowed(*allowed)}


async def test_a_refusal_says_what_was_asked() -> None:
    code, body = await ask(parts(), "/api/v1/namespaces/d/pods/p", Authorization="Bearer jane")
    assert code == 403
    assert body["message"] == (
        'pods "p" is forbidden: User "jane" cannot get resource "pods" in API group "" '
        'in the namespace "d"'
    )


async def test_a_wrong_token_is_unauthorized() -> None:
    code, body = await ask(parts(), "/api/v1/pods", Authorization="Bearer bad")
    assert (code, body["message"]) == (401, "Unauthorized")


async def test_without_a_token_one_is_anonymous() -> None:
    code, _ = await ask(parts("system:anonymous get /version"), "/version")
    assert code == 200


async def test_health_is_for_everybody() -> None:
    assert await ask(parts(), "/livez") == (200, "ok")


async def test_somebody_else_can_be_impersonated_where_allowed() -> None:
    headers = {
        "Authorization": "Bearer admin",
        "impersonate-user": "jane",
        "Impersonate-Group": "devs",
    }
    path = "/apis/apps/v1/deployments"
    allowed = ("admin impersonate users/jane", "jane list deployments")
    code, body = await ask(parts(*allowed), path, **headers)
    assert code == 403
    assert 'cannot impersonate resource "groups"' in body["message"]
    code, _ = await ask(parts(*allowed, "admin impersonate groups/devs"), path, **headers)
    assert code == 200


async def test_a_group_alone_cannot_be_impersonated() -> None:
    code, _ = await ask(parts(), "/version", Impersonate_Group="devs")
    assert code == 400


async def test_the_client_in_the_process_is_asked_as_well() -> None:
    async with serving(authorizer=Allowed("jane list pods")) as served:
        client = LocalClient(served.parts, User(name="jane"))
        assert (await client.list(PODS)).items == []
        with pytest.raises(StatusError) as error:
            await client.get(PODS, "default", "p")
    assert error.value.code == 403
