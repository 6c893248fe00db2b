"""What HTTP adds to the verbs: routes, bodies, forms of answers, refusals."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from controlplane.objects.resources import CONFIG_MAPS
from tests.fakes.api_server import NOW, Served, listening

MAPS = "/api/v1/namespaces/default/configmaps"
NO_PATH = "the server could not find the requested resource"
NO_METHOD = "the server does not allow this method on the requested resource"
TOO_LARGE = "Timeout: Too large resource version: 9999, current: 0"


class Browser:
    """A bare HTTP client: what is sent is what the test says."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self.served = served
        self._session = session

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> "Reply":
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        shown = {"Content-Type": "application/json"}
        shown |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.served.url + path
        sent = io.BytesIO(data) if data is not None else None
        async with self._session.request(method, url, data=sent, headers=shown) as answer:
            return Reply(answer.status, answer.headers, await answer.read())


class Reply:
    def __init__(self, code: int, headers: Any, raw: bytes) -> None:
        self.code = code
        self.headers = headers
        self.raw = raw

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


@asynccontextmanager
async def browsing(**parts: Any) -> AsyncIterator[Browser]:
    async with listening(**parts) as served, aiohttp.ClientSession(auto_decompress=False) as http:
        yield Browser(served, http)


def named(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


@pytest.mark.parametrize(
    ("method", "path", "code", "message"),
    [
        ("GET", "/nothing", 404, NO_PATH),
        ("GET", "/apis/apps/v1/things", 404, NO_PATH),
        ("GET", f"{MAPS}/a", 404, 'configmaps "a" not found'),
        ("GET", "/api/v1/namespaces/default/nodes", 404, NO_PATH),
        ("POST", f"{MAPS}/a", 405, NO_METHOD),
        ("POST", "/api/v1/configmaps", 405, NO_METHOD),
        ("DELETE", "/api/v1/namespaces", 405, NO_METHOD),
        ("GET", f"{MAPS}?labelSelector=a%3D%3D%3D", 400, None),
        ("GET", f"{MAPS}?fieldSelector=spec.x%3D1", 400, None),
                ("GET", f"{MAPS}?continue=abc", 400, None),
    ],
)  # fmt: skip
async def test_refusals_are_statuses(
    method: str, path: str, code: int, message: str | None
) -> None:
    async with browsing() as browser:
        reply = await browser.send(method, path, {} if method == "POST" else None)
    assert reply.code == code == reply.json["code"]
    assert reply.json["kind"] == "Status"
    if message:
        assert reply.json["message"] == message


async def test_a_version_from_the_future_is_waited_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controlplane.api.read._FRESH_SECONDS", 0.01)
    async with browsing() as browser:
        reply = await browser.send("GET", f"{MAPS}?resourceVersion=9999")
    assert (reply.code, reply.json["message"]) == (504, TOO_LARGE)


async def test_bodies_come_as_json_and_yaml() -> None:
    async with browsing() as browser:
        one = await browser.send("POST", MAPS, named("a", k="1"))
        text = b"metadata:\n  name: b\ndata: {k: '1'}\n"
        two = await browser.send("POST", MAPS, text, Content_Type="application/yaml")
        bad = await browser.send("POST", MAPS, b"{}", Content_Type="text/plain")
    assert (one.code, two.code, bad.code) == (201, 201, 415)
    assert two.json["data"] == {"k": "1"}


async def test_a_protobuf_body_is_understood() -> None:
    def part(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    metadata = part(1, b"pb")
    entry = part(1, b"key") + part(2, b"value")
    raw = part(1, metadata) + part(2, entry)
    body = b"k8s\0" + part(1, part(1, b"v1") + part(2, b"ConfigMap")) + part(2, raw)
    async with browsing() as browser:
        reply = await browser.send(
            "POST", MAPS, body, Content_Type="application/vnd.kubernetes.protobuf"
        )
    assert reply.code == 201
    assert reply.json["data"] == {"key": "value"}


@pytest.mark.parametrize("mode", ["Strict", "Warn", "Ignore"])
async def test_unknown_and_double_fields_are_told_as_asked(mode: str) -> None:
    body = b'{"metadata":{"name":"a"},"data":{"k":"1"},"data":{"k":"2"},"extra":1}'
    async with browsing() as browser:
        reply = await browser.send("POST", f"{MAPS}?fieldValidation={mode}", body)
    warnings = reply.headers.getall("Warning", [])
    if mode == "Strict":
        assert reply.code == 400
        assert (
            'strict decoding error: unknown field "extra", duplicate field "data"'
            in (reply.json["message"])
        )
    else:
        assert reply.code == 201
        assert reply.json["data"] == {"k": "2"}
    expected = ['299 - "unknown field \\"extra\\""', '299 - "duplicate field \\"data\\""']
    assert warnings == (expected if mode == "Warn" else [])


async def test_too_long_bodies_are_refused() -> None:
    async with browsing() as browser:
        reply = await browser.send("POST", MAPS, named("a", k="x" * (4 << 20)))
    assert reply.code == 413
    assert reply.json["message"] == "Request entity too large: limit is 3145728"


async def test_answers_come_as_yaml_and_pretty_json() -> None:
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a", k="1"))
        text = await browser.send("GET", f"{MAPS}/a", Accept="application/yaml")
        pretty = await browser.send("GET", f"{MAPS}/a?pretty=true")
        refused = await browser.send("GET", f"{MAPS}/a", Accept="image/png")
    assert b"kind: ConfigMap\n" in text.raw
    assert b'\n  "kind": "ConfigMap"' in pretty.raw
    assert refused.code == 406


async def test_metadata_alone_can_be_asked_for() -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a", k="1"))
        many = await browser.send("GET", MAPS, Accept=accept)
        one = await browser.send("GET", f"{MAPS}/a", Accept=accept.replace("List", ""))
    assert many.json["kind"] == "PartialObjectMetadataList"
    assert many.json["items"] == [one.json]
    assert one.json["metadata"]["name"] == "a"
    assert "data" not in one.json


async def test_pages_go_on_where_they_ended_at_the_same_revision() -> None:
    async with browsing() as browser:
        for name in "abcde":
            await browser.send("POST", MAPS, named(name))
        first = (await browser.send("GET", f"{MAPS}?limit=2")).json
        assert first["metadata"]["remainingItemCount"] == 3
        await browser.send("DELETE", f"{MAPS}/d")
        await browser.send("POST", MAPS, named("cc"))
        token = first["metadata"]["continue"]
        second = (await browser.send("GET", f"{MAPS}?limit=2&continue={token}")).json
        token = second["metadata"]["continue"]
        third = (await browser.send("GET", f"{MAPS}?limit=2&continue={token}")).json
    pages = [
        [item["metadata"]["name"] for item in page["items"]] for page in (first, second, third)
    ]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    versions = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    assert versions == {"5"}
    assert "continue" not in third["metadata"]


async def test_an_expired_page_offers_to_go_on_inconsistently() -> None:
    async with browsing() as browser:
        for name in "abc":
            await browser.send("POST", MAPS, named(name))
        first = (await browser.send("GET", f"{MAPS}?limit=1")).json
        await browser.send("DELETE", f"{MAPS}/c")
        await browser.served.parts.store.compact(4)
        token = first["metadata"]["continue"]
        gone = await browser.send("GET", f"{MAPS}?limit=1&continue={token}")
        assert (gone.code, gone.json["reason"]) == (410, "Expired")
        token = gone.json["metadata"]["continue"]
        rest = (await browser.send("GET", f"{MAPS}?continue={token}")).json
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b"]
    assert rest["metadata"]["resourceVersion"] == "4"


async def test_a_page_expires_with_time_though_nothing_changed() -> None:
    now = [NOW]
    async with browsing(clock=lambda: now[0]) as browser:
        for name in "abc":
            await browser.send("POST", MAPS, named(name))
        first = (await browser.send("GET", f"{MAPS}?limit=1")).json
        now[0] += timedelta(seconds=301)
        token = first["metadata"]["continue"]
        gone = await browser.send("GET", f"{MAPS}?limit=1&continue={token}")
        token = gone.json["metadata"]["continue"]
        rest = (await browser.send("GET", f"{MAPS}?limit=1&continue={token}")).json
    assert gone.code == 410
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b"]
    assert rest["metadata"]["continue"]


async def test_a_list_of_an_exact_version_shows_the_past() -> None:
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a"))
        await browser.send("POST", MAPS, named("b"))
        query = "resourceVersion=1&resourceVersionMatch=Exact"
        past = (await browser.send("GET", f"{MAPS}?{query}")).json
        bad = await browser.send("GET", f"{MAPS}?resourceVersionMatch=Exact")
    assert [item["metadata"]["name"] for item in past["items"]] == ["a"]
    assert bad.code == 422


async def test_a_watch_begins_with_what_is_and_says_when_that_is_over() -> None:
    query = (
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        "&allowWatchBookmarks=true&timeoutSeconds=1"
    )
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a"))
        reply = await browser.send("GET", f"{MAPS}?{query}")
        bad = await browser.send("GET", f"{MAPS}?watch=1&sendInitialEvents=true")
    events = [orjson.loads(line) for line in reply.raw.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    metadata = events[1]["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bad.code == 422


async def test_a_watch_from_too_long_ago_is_told_so() -> None:
    async with browsing(history_bytes=1000) as browser:
        for number in range(5):
            await browser.send("POST", MAPS, named(f"a{number}"))
        reply = await browser.send("GET", f"{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1")
    event = reply.json
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )


async def test_stopping_ends_watches() -> None:
    async with browsing() as browser:
        watching = asyncio.ensure_future(browser.send("GET", f"{MAPS}?watch=1"))
        async with asyncio.timeout(5):
            while not browser.served.parts.cache.statistics()["watches"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await browser.served.api.stop()
            assert (await watching).code == 200
        ready = await browser.send("GET", "/readyz")
    assert ready.code == 500


async def test_delete_options_come_in_the_body_or_the_query() -> None:
    async with browsing() as browser:
        for name in "abc":
            await browser.send("POST", MAPS, named(name))
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        marked = await browser.send("DELETE", f"{MAPS}/a", body)
        orphaned = await browser.send("DELETE", f"{MAPS}/b?propagationPolicy=Orphan")
        dry = await browser.send("DELETE", f"{MAPS}/c?dryRun=All")
        kept = await browser.send("GET", f"{MAPS}/c")
        bad = await browser.send("DELETE", f"{MAPS}/c?propagationPolicy=Nope")
    assert marked.json["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert orphaned.json["metadata"]["finalizers"] == ["orphan"]
    assert (dry.code, dry.json["status"], kept.code, bad.code) == (200, "Success", 200, 422)


async def test_collections_are_deleted_by_selector() -> None:
    async with browsing() as browser:
        for name in "abc":
            body = named(name)
            body["metadata"]["labels"] = {"keep": "yes" if name == "b" else "no"}
            await browser.send("POST", MAPS, body)
        reply = await browser.send("DELETE", f"{MAPS}?labelSelector=keep%3Dno")
        left = await browser.served.client.list(CONFIG_MAPS)
    assert reply.json["kind"] == "ConfigMapList"
    assert [obj["metadata"]["name"] for obj in left.items] == ["b"]


async def test_generated_names_are_new_each_time() -> None:
    async with browsing() as browser:
        body = {"metadata": {"generateName": "job-"}}
        names = {(await browser.send("POST", MAPS, body)).json["metadata"]["name"] for _ in "ab"}
    assert len(names) == 2
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


async def test_openapi_is_sent_compressed() -> None:
    async with browsing() as browser:
        index = (await browser.send("GET", "/openapi/v3", Accept_Encoding="identity")).json
        url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        reply = await browser.send("GET", url, Accept_Encoding="gzip")
        again = await browser.send("GET", url, If_None_Match=reply.headers["ETag"])
    assert reply.headers["Content-Encoding"] == "gzip"
    assert b"fieldValidation" in gzip.decompress(reply.raw)
    assert again.code == 304


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery_names_its_form(version: str) -> None:
    form = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    async with browsing() as browser:
        core = await browser.send("GET", "/api", Accept=f"{form},application/json")
        groups = await browser.send("GET", "/apis", Accept=f"{form},application/json")
    assert core.headers["Content-Type"] == form
    assert [item["metadata"].get("name") for item in core.json["items"]] == [None]
    assert "apps" in [item["metadata"]["name"] for item in groups.json["items"]]
    resources = core.json["items"][0]["versions"][0]["resources"]
    pods = next(entry for entry in resources if entry["resource"] == "pods")
    assert pods["scope"] == "Namespaced"
    eviction = next(s for s in pods["subresources"] if s["subresource"] == "eviction")
    assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}


async def test_the_older_lists_tell_drain_how_to_evict() -> None:
    async with browsing() as browser:
        reply = await browser.send("GET", "/api/v1")
        version = await browser.send("GET", "/version")
    entry = next(r for r in reply.json["resources"] if r["name"] == "pods/eviction")
    assert (entry["group"], entry["version"], entry["kind"]) == ("policy", "v1", "Eviction")
    assert version.json["gitVersion"] == "v1.36.3+pinnace1"


async def test_metrics_count_requests() -> None:
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a"))
        reply = await browser.send("GET", "/metrics")
    line = (
        b'apiserver_request_total{verb="CREATE",resource="configmaps",subresource="",code="201"} 1'
    )
    assert line in reply.raw


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def test_lists_come_as_tables() -> None:
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a", k="1"))
        many = (await browser.send("GET", MAPS, Accept=TABLE)).json
        one = (await browser.send("GET", f"{MAPS}/a?includeObject=None", Accept=TABLE)).json
    assert (many["kind"], many["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert many["metadata"] == {"resourceVersion": "1"}
    assert many["rows"][0]["cells"][:2] == ["a", 1]
    assert many["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert one["rows"][0]["object"] is None
    assert [column["name"] for column in one["columnDefinitions"]] == ["Name", "Data", "Age"]


async def test_a_watch_of_tables_names_the_columns_once() -> None:
    query = "watch=1&resourceVersion=0&timeoutSeconds=1"
    async with browsing() as browser:
        await browser.send("POST", MAPS, named("a"))
        await browser.send("POST", MAPS, named("b"))
        reply = await browser.send("GET", f"{MAPS}?{query}", Accept=TABLE)
    events = [orjson.loads(line)["object"] for line in reply.raw.splitlines()]
    assert [event["kind"] for event in events] == ["Table", "Table"]
    assert events[0]["columnDefinitions"]
    assert events[1]["columnDefinitions"] is None


async def test_a_review_has_no_table() -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    async with browsing() as browser:
        reply = await browser.send("POST", path, {}, Accept=accept)
    assert reply.code == 406


async def test_a_client_that_waits_for_leave_to_send_gets_it() -> None:
    body = orjson.dumps(named("a"))
    head = (
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    async with listening() as served, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201")
        writer.close()


async def test_open_watches_do_not_count_as_requests_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controlplane.api.app.MOST_REQUESTS", 1)
    async with browsing() as browser, asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(browser.send("GET", f"{MAPS}?watch=1&timeoutSeconds=1"))
        while browser.served.parts.cache.statistics()["watches"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await browser.send("GET", MAPS)).code == 200
        browser.served.api.metrics.running = 1
        busy = await browser.send("GET", MAPS)
        browser.served.api.metrics.running = 0
        await browser.served.api.stop()
    assert (busy.code, busy.headers["Retry-After"]) == (429, "1")


async def test_deprecated_kinds_say_so() -> None:
    async with browsing() as browser:
        reply = await browser.send("GET", "/api/v1/endpoints")
    assert reply.headers["Warning"] == (
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    )


@pytest.mark.parametrize("path", ["/apis", "/openapi/v3", MAPS])
async def test_nobody_keeps_an_answer_without_asking_again(path: str) -> None:
    """A server whose clock was ahead would be believed until then by kubectl, which keeps files."""
    async with browsing() as browser:
        first = await browser.send("GET", path)
        assert first.headers["Cache-Control"] == "no-cache, private"
        if tag := first.headers.get("ETag"):
            again = await browser.send("GET", path, If_None_Match=tag)
            assert (again.code, again.raw) == (304, b"")
            assert again.headers["Cache-Control"] == "no-cache, private"
