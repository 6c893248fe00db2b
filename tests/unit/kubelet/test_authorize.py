"""Who is asked about, and how long an answer is believed."""

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from controlplane.client.base import Object, Unreachable
from controlplane.objects.kinds import Resource
from node.kubelet.authorize import Authorizer, subresources


class Api:
    """Knows one token, and what its user may do."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[str] = []
        self.is_there = True

    async def create(self, resource: Resource, body: Object) -> Object:
        if not self.is_there:
            raise Unreachable("gone")
        spec: Any = body["spec"]
        if resource.plural == "tokenreviews":
            self.asked.append("token")
            user = {"username": "prometheus", "groups": ["monitors"]}
            good = spec["token"] == "good"
            return {"status": {"authenticated": good, **({"user": user} if good else {})}}
        self.asked.append(spec["resourceAttributes"]["subresource"])
        assert (spec["user"], spec["groups"]) == ("prometheus", ["monitors"])
        assert spec["resourceAttributes"]["name"] == "n1"
        return {"status": {"allowed": self.asked[-1] in self.allowed}}


class Gate:
    def __init__(self, api: Api) -> None:
        self.now = 0.0
        self.authorizer = Authorizer(api, "n1", lambda: self.now)  # type: ignore[arg-type]

    async def ask(self, path: str, token: str = "good") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = make_mocked_request("GET", path, headers=headers)
        answer = await self.authorizer.refusal(request)
        return (200, "") if answer is None else (answer.status, answer.text or "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/metrics", ("metrics",)),
        ("/metrics/cadvisor", ("metrics",)),
        ("/stats/summary", ("stats",)),
        ("/pods", ("pods", "proxy")),
        ("/healthz", ("healthz", "proxy")),
        ("/exec/default/p/c", ("proxy",)),
    ],
)
def test_a_path_is_a_question_of_a_subresource(path: str, expected: tuple[str, ...]) -> None:
    assert subresources(path) == expected


async def test_a_token_is_let_in_where_its_user_may_and_asked_about_once() -> None:
    api = Api("metrics")
    gate = Gate(api)
    assert await gate.ask("/metrics") == (200, "")
    assert await gate.ask("/metrics/cadvisor") == (200, "")
    assert api.asked == ["token", "metrics"]
    gate.now = 121
    await gate.ask("/metrics")
    assert api.asked == ["token", "metrics", "token"]
    gate.now = 301
    await gate.ask("/metrics")
    assert api.asked == ["token", "metrics", "token", "token", "metrics"]


async def test_what_a_user_may_not_is_forbidden_and_soon_asked_again() -> None:
    api = Api()
    gate = Gate(api)
    about = "user=prometheus, verb=get, resource=nodes, subresource(s)=[pods proxy]"
    assert await gate.ask("/pods") == (403, f"Forbidden ({about})")
    api.allowed = ("proxy",)
    assert (await gate.ask("/pods"))[0] == 403
    gate.now = 31
    assert await gate.ask("/pods") == (200, "")


async def test_a_token_that_nobody_knows_is_unauthorized_and_not_remembered() -> None:
    api = Api("metrics")
    gate = Gate(api)
    assert await gate.ask("/metrics", "bad") == (401, "Unauthorized")
    assert await gate.ask("/metrics", "") == (401, "Unauthorized")
    assert await gate.ask("/metrics", "bad") == (401, "Unauthorized")
    assert api.asked == ["token", "token"]


async def test_without_the_api_server_nobody_new_gets_in() -> None:
    api = Api("metrics")
    gate = Gate(api)
    await gate.ask("/metrics")
    api.is_there = False
    assert await gate.ask("/metrics") == (200, "")
    assert (await gate.ask("/stats/summary"))[0] == 500
    gate.now = 121
    assert await gate.ask("/metrics") == (401, "Unauthorized")
