"""Ways around authorisation that were open once, or look as if they could be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.customresources.serve import DEFINITIONS
from controlplane.objects.meta import is_true
from controlplane.objects.resources import ROLE_BINDINGS, ROLES
from tests.unit.api_fuzz.checks import MERGE
from tests.unit.api_fuzz.server import Fuzzed, fuzzed

PODS = "/api/v1/namespaces/default/pods"
GROUP = "rbac.authorization.k8s.io"
ROLE = {"apiGroup": GROUP, "kind": "Role", "name": "ann"}
ANN = [{"apiGroup": GROUP, "kind": "User", "name": "ann"}]
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "b"}]}}


@asynccontextmanager
async def with_ann(folder: Path, *rules: dict[str, Any]) -> AsyncIterator[Fuzzed]:
    """Ann has the rules within the namespace default."""
    async with fuzzed(folder) as served:
        named = {"name": "ann", "namespace": "default"}
        await served.client.create(ROLES, {"metadata": named, "rules": list(rules)})
        binding = {"metadata": named, "roleRef": ROLE, "subjects": ANN}
        await served.client.create(ROLE_BINDINGS, binding)
        yield served


def rule(resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": resources, "verbs": verbs}


@pytest.mark.parametrize("path", ["", "/kube-system", "/kube-node-lease"])
async def test_rights_on_namespaces_within_one_reach_no_other(tmp_path: Path, path: str) -> None:
    async with with_ann(tmp_path, rule(["namespaces"], ["*"])) as served:
        inside = f"/api/v1/namespaces/default/namespaces{path}"
        for method in ("GET", "DELETE"):
            assert (await served.wire.send(method, inside, token="ann")).code == 404
        assert (
            await served.wire.send("GET", "/api/v1/namespaces/default", token="ann")
        ).code == 200


@pytest.mark.parametrize("subresource", ["eviction", "binding"])
async def test_evictions_and_bindings_change_nothing_else_of_a_pod(
    tmp_path: Path, subresource: str
) -> None:
    rights = rule([f"pods/{subresource}"], ["*"])
    async with with_ann(tmp_path, rights) as served:
        await served.wire.send("POST", PODS, POD)
        before = served.revision
        path = f"{PODS}/p/{subresource}"
        evil = {"metadata": {"name": "p", "labels": {"a": "b"}}}
        assert (await served.wire.send("PUT", path, evil, token="ann")).code == 405
        patched = await served.wire.send("PATCH", path, evil, token="ann", Content_Type=MERGE)
        assert patched.code == 405
        assert served.revision == before


async def test_to_read_exec_is_not_to_run_commands(tmp_path: Path) -> None:
    async with with_ann(tmp_path, rule(["pods/exec", "pods/portforward"], ["get"])) as served:
        await served.wire.send("POST", PODS, POD)
        for subresource in ("exec?command=sh", "portforward?ports=1"):
            path = f"{PODS}/p/{subresource}"
            asked = await served.wire.send(
                "GET", path, token="ann", Upgrade="websocket", Connection="Upgrade"
            )
            assert asked.code == 403
            assert "cannot create resource" in asked.json["message"]


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1"])
async def test_pods_lead_the_proxy_neither_to_this_machine_nor_to_metadata(
    tmp_path: Path, address: str
) -> None:
    async with fuzzed(tmp_path) as served:
        await served.wire.send("POST", PODS, POD)
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        await served.wire.send("PATCH", f"{PODS}/p/status", status, Content_Type=MERGE)
        reply = await served.wire.send("GET", f"{PODS}/p:{served.port}/proxy/version")
        assert (reply.code, reply.json["message"]) == (400, "address not allowed")


async def test_a_definition_takes_over_no_built_in_kind(tmp_path: Path) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "ingresses", "kind": "Ingress", "singular": "ingress"}
    group = "networking.k8s.io"
    body = {
        "metadata": {
            "name": f"ingresses.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": "v1", **version}],
        },
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with fuzzed(tmp_path) as served:
        await served.wire.send("POST", definitions, body)
        async with asyncio.timeout(10):
            while not _is_established(served, f"ingresses.{group}"):
                await served.parts.cache.wait_for(served.revision + 1)
        kind = served.parts.kinds.by_resource(group, "v1", "ingresses")
        assert kind is not None
        assert not kind.custom


def _is_established(served: Fuzzed, name: str) -> bool:
    found = served.parts.cache.get(DEFINITIONS, "", name)
    return found is not None and is_true(found, "Established")


async def test_headers_make_nobody_an_administrator(tmp_path: Path) -> None:
    async with fuzzed(tmp_path) as served:
        for headers in (
            {"X_Remote_User": "admin", "X_Remote_Group": "system:masters"},
            {"Impersonate_User": "admin", "Impersonate_Group": "system:masters"},
            {"Impersonate_Extra_Scopes": "system:masters"},
        ):
            reply = await served.wire.send("GET", "/api/v1/nodes", token="ann", **headers)
            assert reply.code == 403


@pytest.mark.parametrize(
    "path", ["/metrics", "/openapi/v2", "/api", "/apis", "/logs", "/api/v1/nodes"]
)
async def test_strangers_learn_no_more_than_the_version(tmp_path: Path, path: str) -> None:
    async with fuzzed(tmp_path) as served:
        assert (await served.wire.send("GET", path, token="")).code == 403
        assert (await served.wire.send("GET", "/version", token="")).code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/secrets/default%2Fs",
        "/api/v1/namespaces/default%2Fsecrets/s",
        "/api/v1/namespaces/default/secrets/x%2F..%2Fs",
        "/api/v1/namespaces/x/../default/secrets/s",
        "/api/v1/namespaces/default/configmaps/..%2Fsecrets%2Fs",
        "/API/v1/namespaces/default/secrets/s",
        "/api/v1/namespaces/default/Secrets/s",
        "/api/v1/namespaces/default/secrets//s",
        "/api/v1/namespaces/default/secrets/s/proxy",
        "/api/v1/watch/secrets",
    ],
)
async def test_no_spelling_of_a_path_reaches_what_another_spelling_may_not(
    tmp_path: Path, path: str
) -> None:
    async with with_ann(tmp_path, rule(["configmaps"], ["*"])) as served:
        secret = {"metadata": {"name": "s"}}
        await served.wire.send("POST", "/api/v1/namespaces/default/secrets", secret)
        assert (await served.wire.send("GET", path, token="ann")).code in (403, 404)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"a.b.\xc3\xa9", b"e30.eyJpc3MiOltdfQ.x"])
async def test_tokens_that_are_none_are_refused_as_such(tmp_path: Path, raw: bytes) -> None:
    """With the authenticators of a real server; these were internal errors once."""
    async with fuzzed(tmp_path, authenticate=True) as served:
        head = b"GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % raw
        assert (await served.wire.exchange(head)).code == 401
        head = b"GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %b\r\n\r\n" % raw
        assert (await served.wire.exchange(head)).code == 401
        assert not served.failures.found


async def test_headers_that_are_no_unicode_do_no_harm(tmp_path: Path) -> None:
    async with fuzzed(tmp_path) as served:
        for name in (b"User-Agent", b"Impersonate-User", b"Audit-Id", b"Accept", b"X-Remote-User"):
            body = b'{"metadata":{"generateName":"a"}}'
            raw = b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n"
            raw += b"Authorization: Bearer admin\r\nContent-Length: %d\r\n" % len(body)
            raw += name + b": \xff\xfe\r\n\r\n" + body
            assert 200 < (await served.wire.exchange(raw)).code < 500
        assert not served.failures.found
