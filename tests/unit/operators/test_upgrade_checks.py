"""Health checks of upgrades, against servers that really answer, or do not."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from operators.client import ApiError
from operators.upgrade.checks import objects
from operators.upgrade.checks.run import HealthChecks
from tests.fakes.operators_http import api, asking, kubeconfig
from tests.fakes.tls import self_signed

Object = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NOWHERE = Path("/nonexistent")


class NoApi:
    """Says what it was told to say about any path."""

    def __init__(self, answers: dict[str, Object] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []

    async def get(self, path: str, query: Any = None) -> Object:
        self.asked.append(path)
        if path not in self.answers:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.answers[path]


def _nobody() -> Any:
    return NoApi()


async def verdict(*checks: Object, client: Any = None, **more: Any) -> str:
    """Its message; "" where it passed."""
    told = HealthChecks(client or _nobody(), kubeconfig=more.pop("kubeconfig", NOWHERE))
    found = await told.verdict(checks, node=more.pop("node", "pi"))
    assert found.passed == (not found.message)
    return found.message


def http(url: str, **more: Any) -> Object:
    return {"name": "site", "timeoutSeconds": 5, "http": {"url": url, **more}}


@asynccontextmanager
async def serving(handler: Handler, tls: Path | None = None) -> AsyncIterator[int]:
    """The port, on 127.0.0.1."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def answers(request: web.Request) -> web.StreamResponse:
    """/200 … answer so; /to?u= redirects; the body says what was sent."""
    if request.path == "/to":
        raise web.HTTPFound(request.query["u"])
    if request.path == "/round":
        raise web.HTTPFound("/round?again=" + "x" * (len(request.query_string) % 7))
    status = int(request.path.strip("/") or 200)
    return web.Response(status=status, text=f"hello {request.headers.get('X-Who')}")


async def test_a_site_that_answers_passes() -> None:
    async with serving(answers) as port:
        assert await verdict(http(f"http://127.0.0.1:{port}/")) == ""


@pytest.mark.parametrize(
    ("path", "expected", "said"),
    [
        ("204", None, ""),
        ("503", None, "answered 503, expected 200-399"),
        ("404", [404], ""),
        ("404", ["200-299", 418], "answered 404, expected 200-299, 418"),
        ("201", ["200", "201"], ""),
    ],
)
async def test_the_status_is_what_was_expected(path: str, expected: Any, said: str) -> None:
    more = {"expectedStatus": expected} if expected else {}
    async with serving(answers) as port:
        found = await verdict(http(f"http://127.0.0.1:{port}/{path}", **more))
    assert found.endswith(said)
    assert bool(found) == bool(said)


async def test_a_check_that_fails_is_named() -> None:
    async with serving(answers) as port:
        good, bad = http(f"http://127.0.0.1:{port}/"), http(f"http://127.0.0.1:{port}/500")
        checks = [good, bad | {"name": "shop"}, bad | {"name": "till"}]
        found = await verdict(*checks)
    url = f"http://127.0.0.1:{port}/500"
    assert found == f"check shop: GET {url} answered 500, expected 200-399 (and till)"


async def test_headers_are_sent_and_the_body_is_looked_at() -> None:
    async with serving(answers) as port:
        url, headers = f"http://127.0.0.1:{port}/", {"X-Who": "$(NODE_NAME)"}
        assert await verdict(http(url, headers=headers, bodyContains="hello pi")) == ""
        said = await verdict(http(url, headers=headers, bodyContains="hello you"))
    assert said == f"check site: GET {url}: 'hello you' is not in the answer"


async def test_a_redirect_is_followed_on_the_same_host_only() -> None:
    async with serving(answers) as port:
        here = f"http://127.0.0.1:{port}"
        assert await verdict(http(f"{here}/to?u=/200", expectedStatus=[200])) == ""
        away = f"http://localhost:{port}/200"
        assert await verdict(http(f"{here}/to?u={away}")) == ""
        said = await verdict(http(f"{here}/to?u={away}", expectedStatus=[200]))
        round_and_round = await verdict(http(f"{here}/round"))
    assert said.endswith(f"answered 302 (redirects to {away}, which is not followed), expected 200")
    assert round_and_round.endswith("more than 10 redirects")


async def test_a_text_is_found_across_chunks_and_not_beyond_the_bound() -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            if request.path == "/halves":
                await answer.write(b"x" * 70_000 + b"hel")
                await answer.write(b"lo")
            while request.path == "/endless":
                await answer.write(b"x" * 65536)
        except ConnectionError:
            pass
        return answer

    async with serving(stream) as port:
        url = f"http://127.0.0.1:{port}"
        assert await verdict(http(f"{url}/halves", bodyContains="hello")) == ""
        said = await verdict(http(f"{url}/endless", bodyContains="hello"))
    assert said.endswith("'hello' is not in the answer")


async def test_nobody_there_is_said_as_it_is() -> None:
    async with serving(answers) as port:
        pass
    said = await verdict(http(f"http://127.0.0.1:{port}/"))
    assert said.startswith(f"check site: GET http://127.0.0.1:{port}/: Cannot connect to host")


async def test_a_certificate_must_be_known_unless_told_otherwise(tmp_path: Path) -> None:
    made = self_signed("localhost")
    bundle = base64.b64encode(made.certificate.encode()).decode()
    async with serving(answers, made.write(tmp_path / "tls.pem")) as port:
        url = f"https://127.0.0.1:{port}/"
        assert "certificate verify failed" in await verdict(http(url))
        assert await verdict(http(url, caBundle=bundle)) == ""
        assert await verdict(http(url, caBundle=made.certificate)) == ""
        assert await verdict(http(url, insecureSkipVerify=True)) == ""
        other = self_signed("localhost").certificate
        assert "certificate verify failed" in await verdict(http(url, caBundle=other))


async def test_each_check_has_its_own_time() -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with serving(hang) as port:
        slow = http(f"http://127.0.0.1:{port}/") | {"timeoutSeconds": 1}
        tcp = {"name": "door", "tcp": {"host": "127.0.0.1", "port": port}}
        assert await verdict(tcp, slow) == "check site: no answer within 1 s"
        never.set()


async def test_tcp_connects_or_says_why_not() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    door = {"name": "door", "tcp": {"host": "$(NODE_IP)", "port": port}}
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    client = NoApi({"/api/v1/nodes/pi": {"status": {"addresses": addresses}}})
    assert await verdict(door, client=client) == ""
    server.close()
    await server.wait_closed()
    said = await verdict(door, client=client)
    assert said.startswith("check door: 127.0.0.1 port")
    assert "refused" in said.lower()


async def test_a_node_without_an_address_fails_the_verdict() -> None:
    door = {"name": "door", "tcp": {"host": "$(NODE_IP)", "port": 1}}
    said = await verdict(door)
    assert said.startswith("cannot ask for the address of node pi")
    empty = NoApi({"/api/v1/nodes/pi": {}})
    assert await verdict(door, client=empty) == "node pi has no address"


def test_an_address_of_ipv6_is_in_brackets_in_urls_alone() -> None:
    item = {
        "name": "$(NODE_IP)",
        "http": {"url": "http://$(NODE_IP):80/"},
        "tcp": {"host": "$(NODE_IP)"},
    }
    found = objects.substituted(item, name="pi", ip="fd00::1")
    assert found["http"]["url"] == "http://[fd00::1]:80/"
    assert found["tcp"]["host"] == "fd00::1"
    assert found["name"] == "$(NODE_IP)"


# The API


def pod(name: str, *, ready: bool = True, phase: str = "Running", **metadata: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready), "reason": "ContainersNotReady"}]
    status = {"phase": phase, "conditions": conditions}
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}, **metadata},
        "spec": {"containers": [{"name": "main", "image": "x"}, {"name": "side", "image": "x"}]},
        "status": status,
    }


PODS = "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb"
ALL_READY = {
    "name": "web",
    "pods": {"namespace": "shop", "selector": {"matchLabels": {"app": "web"}}},
}
OWNED = [{"kind": "ReplicaSet", "name": "web", "controller": True}]


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([pod("a"), pod("b")], ""),
        ([], "check web: there is no pod with labels 'app=web' in namespace shop"),
        (
            [pod("a"), pod("b", ready=False)],
            "check web: 1 of 2 pods are not Ready in shop: b (ContainersNotReady)",
        ),
        ([pod("a"), pod("old", phase="Failed", ready=False, ownerReferences=OWNED)], ""),
        ([pod("a"), pod("bye", ready=False, deletionTimestamp="2026-01-01T00:00:00Z")], ""),
        ([pod("a"), pod("job", ready=False, phase="Succeeded")], ""),
    ],
)
async def test_pods_are_ready_and_at_least_one(pods: list[Object], said: str) -> None:
    assert await verdict(ALL_READY, client=NoApi({PODS: {"items": pods}})) == said


async def test_a_pod_alone_that_failed_counts() -> None:
    found = await verdict(
        ALL_READY, client=NoApi({PODS: {"items": [pod("a", phase="Failed", ready=False)]}})
    )
    assert found == "check web: 1 of 1 pod is not Ready in shop: a (ContainersNotReady)"


async def test_what_a_container_waits_for_is_said() -> None:
    stuck = pod("a", ready=False)
    stuck["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    assert "a (ImagePullBackOff)" in await verdict(
        ALL_READY, client=NoApi({PODS: {"items": [stuck]}})
    )


def cel(expression: str, **more: Any) -> Object:
    what = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default"}
    return {"name": "facts", "cel": {**what, "expression": expression, **more}}


async def fill(client: Any, **maps: dict[str, str]) -> None:
    await client.create("/api/v1/namespaces", _body("Namespace", "default"))
    for name, data in maps.items():
        body = _body("ConfigMap", name, labels={"app": "web"}) | {"data": data}
        await client.create("/api/v1/namespaces/default/configmaps", body)


def _body(kind: str, name: str, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("object.data.size == '3'", ""),
        ("int(object.data.size) >= 2 && object.metadata.name == 'a'", ""),
        ("object.data.size == '4'", "is false for ConfigMap default/a"),
        ("object.data.none == '4'", "over ConfigMap default/a: no such key: none"),
        ("object.data.size", "must be true or false, not '3'"),
        ("object.data.size == '$(NODE_NAME)'", "is false"),
    ],
)
async def test_an_expression_is_about_an_object(expression: str, said: str) -> None:
    async with api() as (_, client):
        await fill(client, a={"size": "3"})
        found = await verdict(cel(expression, name="a"), client=client)
    assert said in found
    assert bool(found) == bool(said)
    assert not found or found.startswith("check facts: expression '")


async def test_an_expression_holds_for_each_or_for_all_together() -> None:
    async with api() as (_, client):
        await fill(client, a={"size": "3"}, b={"size": "4"})
        chosen = {"selector": {"matchLabels": {"app": "web"}}}
        assert await verdict(cel("size(object.data) == 1", **chosen), client=client) == ""
        assert "default/b" in await verdict(cel("object.data.size == '3'", **chosen), client=client)
        together = cel("objects.map(o, int(o.data.size)).sum() == 7", **chosen)
        assert await verdict(together, client=client) == ""
        none = {"selector": {"matchLabels": {"app": "none"}}}
        said = await verdict(cel("has(object.data)", **none), client=client)
        assert said == "check facts: no ConfigMap is selected"
        assert await verdict(cel("size(objects) == 0", **none), client=client) == ""


async def test_what_the_api_does_not_have_is_said() -> None:
    async with api() as (_, client):
        await fill(client)
        assert 'configmaps "a" not found' in await verdict(
            cel("object != null", name="a"), client=client
        )
        unknown = cel("object != null", name="a", apiVersion="x.io/v1", kind="Thing")
        said = await verdict(unknown, client=client)
    assert said == "check facts: the API has no Thing of x.io/v1"


async def test_where_a_kind_lives_is_asked_once() -> None:
    async with api() as (_, client):
        await fill(client, a={})
        checks = HealthChecks(client, kubeconfig=NOWHERE)
        for _ in range(2):
            assert (await checks.verdict([cel("object != null", name="a")], node="pi")).passed
        nodes = {
            "name": "nodes",
            "cel": {
                "apiVersion": "v1",
                "kind": "Node",
                "selector": {},
                "expression": "size(objects) == 0",
            },
        }
        assert (await checks.verdict([nodes], node="pi")).passed
    assert [path for _, path in client.asked].count("/api/v1") == 2


async def test_an_expression_has_a_budget() -> None:
    many = "[1,2,3,4,5,6,7,8,9,10]"
    costly = (
        f"object != null && {many}"
        + "".join(f".all(v{n}, {many}" for n in range(6))
        + ".all(z, true"
        + ")" * 7
    )
    async with api() as (_, client):
        await fill(client, a={})
        said = await verdict(cel(costly, name="a"), client=client)
    assert said.endswith("actual cost limit exceeded")


# Commands in pods


def status(code: int) -> bytes:
    if not code:
        return b"\x03" + json.dumps({"status": "Success"}).encode()
    causes = [{"reason": "ExitCode", "message": str(code)}]
    found = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    return b"\x03" + json.dumps(found).encode()


class Pods:
    """An API whose pods run one program; ``frames`` are what each says, by the pod's name."""

    def __init__(self, **frames: list[bytes]) -> None:
        self.frames = frames
        self.asked: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/exec"):
            return web.json_response({"items": [pod(name) for name in self.frames]})
        self.asked.append(request)
        name = request.path.split("/")[-2]
        if not self.frames[name]:
            return web.json_response({"message": "no"}, status=403)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",), compress=False)
        await socket.prepare(request)
        for frame in self.frames[name]:
            if socket.closed:
                break
            await socket.send_bytes(frame)
        if self.frames[name][-1][:1] != b"\x03":
            return socket
        async for message in socket:
            assert message.type is not WSMsgType.ERROR
        return socket


RUN = {
    "name": "db",
    "timeoutSeconds": 5,
    "exec": {
        "namespace": "shop",
        "podSelector": {"matchLabels": {"app": "web"}},
        "command": ["pg_isready", "-h", "$(NODE_NAME)"],
    },
}


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ({"a": [status(0)], "b": [b"\x01ok\n", status(0)]}, ""),
        (
            {"a": [status(0)], "b": [b"\x02no\n", b"\x02response\n\n", status(2)]},
            "check db: 'pg_isready -h pi' in pod shop/b ended with 2: response",
        ),
        (
            {"a": [b"\x01half"]},
            "in pod shop/a: the connection ended before the command did",
        ),
        (
            {"a": [b"\x01" + b"x" * 100_000] * 12},
            "check db: 'pg_isready -h pi' in pod shop/a: it wrote more than 1 MiB",
        ),
        ({"a": [b"\x03no json"]}, "an end that cannot be understood: b'no json'"),
        ({"a": []}, "the API answered 403: Invalid response status"),
    ],
)
async def test_a_program_ends_well_in_every_pod(
    frames: dict[str, list[bytes]], said: str, tmp_path: Path
) -> None:
    there = Pods(**frames)
    async with serving(there.handle) as port, asking(f"http://127.0.0.1:{port}") as client:
        config = kubeconfig(tmp_path, client.url)
        found = await verdict(RUN, client=client, kubeconfig=config)
    assert said in found
    assert bool(found) == bool(said)
    assert {request.headers["Authorization"] for request in there.asked} == {"Bearer t"}
    assert there.asked[0].query.getall("command") == ["pg_isready", "-h", "pi"]
    assert there.asked[0].query["container"] == "main"


async def test_a_program_that_never_ends_is_left(tmp_path: Path) -> None:
    there = Pods(a=[b"\x01hm"])
    hung = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/exec"):
            return await there.handle(request)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        async for _ in socket:
            pass
        hung.set()
        return socket

    async with serving(handle) as port, asking(f"http://127.0.0.1:{port}") as client:
        config = kubeconfig(tmp_path, client.url)
        slow = RUN | {"timeoutSeconds": 1}
        assert await verdict(slow, client=client, kubeconfig=config) == (
            "check db: no answer within 1 s"
        )
        async with asyncio.timeout(10):
            await hung.wait()


# What is wrong with checks


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"http": {"url": "http://x/"}}, ".name: is needed"),
        ({"name": "A b", "tcp": {"host": "x", "port": 1}}, ".name: 'A b' must be lower case"),
        ({"name": "a"}, ": exactly one of http, tcp, exec, cel, pods is needed"),
        (
            {"name": "a", "tcp": {"host": "x", "port": 1}, "http": {"url": "http://x"}},
            ": exactly one of http, tcp, exec, cel, pods is needed, not http and tcp",
        ),
        ({"name": "a", "timeoutSeconds": 0, "tcp": {"host": "x", "port": 1}}, ".timeoutSeconds: "),
        ({"name": "a", "tpc": {}, "tcp": {"host": "x", "port": 1}}, ".tpc: unknown field"),
        ({"name": "a", "tcp": {"host": "x", "port": 70000}}, ".tcp.port: must be a number"),
        ({"name": "a", "tcp": {"host": "x"}}, ".tcp.port: is needed"),
        ({"name": "a", "http": {"url": "ftp://x/"}}, ".http.url: 'ftp://x/' is no address"),
        ({"name": "a", "http": {"url": "http://[x/"}}, ".http.url: "),
        (
            {"name": "a", "http": {"url": "http://x", "expectedStatus": ["2xx"]}},
            "'2xx' is no status",
        ),
        ({"name": "a", "http": {"url": "http://x", "caBundle": "AAAA"}}, "holds no certificate"),
        ({"name": "a", "http": {"url": "http://x", "headers": {"X": "a\nb"}}}, "one line of text"),
        (
            {"name": "a", "exec": {"namespace": "x", "command": ["a"]}},
            ".exec.podSelector: is needed",
        ),
        (
            {"name": "a", "exec": {"namespace": "x", "podSelector": {}, "command": "a"}},
            ".exec.command: must be a list",
        ),
        (
            {"name": "a", "pods": {"namespace": "x", "selector": {"app": "web"}}},
            ".pods.selector.app: unknown field",
        ),
        (
            {
                "name": "a",
                "pods": {
                    "namespace": "x",
                    "selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]},
                },
            },
            ".pods.selector.matchExpressions[0].operator: 'Is' is not one of In",
        ),
        (
            cel("object.x ==", name="a"),
            ".cel.expression: compilation failed: ERROR: <input>:1",
        ),
        (cel("nothing.x == 1", name="a"), "undeclared reference to 'nothing'"),
        (cel("objects.size() == 1", name="a"), "undeclared reference to 'objects'"),
        (cel("objects.size() == 1 && object.x", selector={}), "not both"),
        (cel("1 == 1", name="a"), "looks at no object"),
        (cel("object.x == 1"), "exactly one of name, selector is needed"),
    ],
)
def test_what_is_wrong_with_a_check_is_said_by_field(item: Object, said: str) -> None:
    found = objects.validate([item])
    assert any(line.startswith("spec.healthChecks[0]") and said in line for line in found), found


def test_good_checks_have_no_errors() -> None:
    site = http("https://$(NODE_IP):8443/x?y=$(NODE_NAME)", headers={"Host": "a"})
    assert (
        objects.validate([site, RUN, ALL_READY, cel("object.x == '$(NODE_NAME)'", name="a")]) == []
    )


def test_names_are_there_once_and_not_too_many() -> None:
    door = {"name": "door", "tcp": {"host": "x", "port": 1}}
    assert objects.validate([door, door]) == ["spec.healthChecks[1].name: 'door' is there twice"]
    assert "at most 32 checks are possible" in objects.validate([door] * 33)[0]


async def test_a_check_that_is_none_fails_the_verdict_and_does_not_raise() -> None:
    said = await verdict({"name": "odd", "tcp": {"host": "x", "port": 0}})
    assert said == "check odd: tcp.port: must be a number from 1 to 65535"
