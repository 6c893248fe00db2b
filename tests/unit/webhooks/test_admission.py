"""Requests that webhooks see, change, refuse, or are passed over for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controlplane.api.admission.unsupported import Unsupported
from controlplane.api.call import Call
from controlplane.api.webhooks.admission import MutatingWebhooks, ValidatingWebhooks
from controlplane.api.webhooks.caller import Caller
from controlplane.api.write import create
from controlplane.client.base import PatchType
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    PODS,
    SERVICES,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
)
from tests.fakes.api_server import ADMIN, Served, serving
from tests.fakes.webhook import Webhook, allow, patching, webhook

KINDS: dict[bool, Resource] = {
    True: MUTATING_WEBHOOK_CONFIGURATIONS,
    False: VALIDATING_WEBHOOK_CONFIGURATIONS,
}
ANYTHING = {
    "operations": ["*"],
    "apiGroups": ["*"],
    "apiVersions": ["*"],
    "resources": ["configmaps"],
}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Served, Webhook]]:
    """An API server that knows the namespace ``default``, and a webhook to ask."""

    def parts() -> Any:
        return made[0]

    made: list[Any] = []
    caller = Caller(parts)
    admissions = (Unsupported(), MutatingWebhooks(parts, caller), ValidatingWebhooks(parts, caller))
    async with (
        webhook(folder, "hook.default.svc") as hook,
        serving(admissions=admissions, closing=(caller.close,)) as served,
    ):
        made.append(served.parts)
        namespace = {"metadata": {"name": "default", "labels": {"guarded": "yes"}}}
        await served.client.create(NAMESPACES, namespace)
        yield served, hook


async def register(
    served: Served, hook: Webhook, path: str, *, mutating: bool = False, **settings: Any
) -> None:
    """A configuration of the path's name, with one webhook."""
    name = path.strip("/")
    one = {
        "name": f"{name}.example.com",
        "clientConfig": hook.client(path),
        "rules": [ANYTHING],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **settings,
    }
    body = {"metadata": {"name": name}, "webhooks": [one]}
    await served.client.create(KINDS[mutating], body)


def config_map(name: str = "one", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", **metadata}, "data": {"a": "1"}}


async def refusal(served: Served, name: str = "one") -> StatusError:
    with pytest.raises(StatusError) as caught:
        await served.client.create(CONFIG_MAPS, config_map(name))
    return caught.value


async def test_a_webhook_sees_who_asks_what_of_which_object(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/see"] = allow
        await register(served, hook, "/see")
        await served.client.create(CONFIG_MAPS, config_map())
        await served.client.patch(CONFIG_MAPS, "default", "one", body={"data": {"a": "2"}})
        await served.client.delete(CONFIG_MAPS, "default", "one")
        created, updated, deleted = hook.requests("/see")
    gvk = {"group": "", "version": "v1", "kind": "ConfigMap"}
    gvr = {"group": "", "version": "v1", "resource": "configmaps"}
    assert created["kind"] == created["requestKind"] == gvk
    assert created["resource"] == created["requestResource"] == gvr
    assert created["userInfo"] == {"username": "admin", "groups": ["system:masters"]}
    assert (created["name"], created["namespace"]) == ("one", "default")
    assert (created["operation"], created["dryRun"]) == ("CREATE", False)
    assert created["object"]["data"] == {"a": "1"}
    assert created["object"]["metadata"]["uid"]
    assert created["oldObject"] is None
    assert created["options"]["kind"] == "CreateOptions"
    assert "subResource" not in created
    assert updated["operation"] == "UPDATE"
    assert updated["options"]["kind"] == "PatchOptions"
    assert (updated["object"]["data"], updated["oldObject"]["data"]) == ({"a": "2"}, {"a": "1"})
    assert (deleted["operation"], deleted["object"]) == ("DELETE", None)
    assert deleted["oldObject"]["data"] == {"a": "2"}


async def test_a_refusal_has_the_words_of_the_webhook(tmp_path: Path) -> None:
    said: dict[str, Any] = {"allowed": False}
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/no"] = lambda _request: said
        await register(served, hook, "/no")
        plain = await refusal(served)
        said["status"] = {"message": "not on Fridays", "code": 403, "reason": "Forbidden"}
        worded = await refusal(served)
        assert served.parts.cache.get(CONFIG_MAPS, "default", "one") is None
    head = 'admission webhook "no.example.com" denied the request'
    assert (plain.code, plain.message) == (400, f"{head} without explanation")
    assert (worded.code, worded.reason) == (403, "Forbidden")
    assert worded.message == f"{head}: not on Fridays"


async def test_a_deletion_can_be_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/keep"] = lambda request: {"allowed": request["operation"] != "DELETE"}
        await register(served, hook, "/keep")
        await served.client.create(CONFIG_MAPS, config_map())
        with pytest.raises(StatusError, match="without explanation"):
            await served.client.delete(CONFIG_MAPS, "default", "one")
        assert served.parts.cache.get(CONFIG_MAPS, "default", "one")


async def test_patches_follow_each_other_in_the_order_of_names(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/b"] = patching({"op": "copy", "from": "/data/first", "path": "/data/second"})
        hook.answers["/a"] = patching({"op": "add", "path": "/data/first", "value": "a"})
        await register(served, hook, "/b", mutating=True)
        await register(served, hook, "/a", mutating=True)
        made = await served.client.create(CONFIG_MAPS, config_map())
    assert made["data"] == {"a": "1", "first": "a", "second": "a"}


async def test_who_asked_for_it_sees_what_came_after(tmp_path: Path) -> None:
    def second(request: Mapping[str, Any]) -> Any:
        there = "mark" in request["object"]["data"]
        return allow(request) if there else mark(request)

    mark = patching({"op": "add", "path": "/data/mark", "value": "b"})
    async with cluster(tmp_path) as (served, hook):
        hook.answers |= {"/a": allow, "/b": second, "/c": allow}
        await register(served, hook, "/a", mutating=True, reinvocationPolicy="IfNeeded")
        await register(served, hook, "/b", mutating=True, reinvocationPolicy="IfNeeded")
        await register(served, hook, "/c", mutating=True, reinvocationPolicy="IfNeeded")
        await served.client.create(CONFIG_MAPS, config_map())
        seen = [(path, "mark" in asked["request"]["object"]["data"]) for path, asked in hook.asked]
    assert seen == [("/a", False), ("/b", False), ("/c", True), ("/a", True)]


async def test_what_a_patch_adds_is_decoded_and_defaulted(tmp_path: Path) -> None:
    sidecar = {"name": "side", "image": "busybox", "noSuchField": 1}
    operation = {"op": "add", "path": "/spec/template/spec/containers/-", "value": sidecar}
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    body = {
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/inject"] = patching(operation)
        rule = {**ANYTHING, "resources": ["deployments"], "operations": ["CREATE"]}
        await register(served, hook, "/inject", mutating=True, rules=[rule])
        made = await served.client.create(DEPLOYMENTS, body)
    added = made["spec"]["template"]["spec"]["containers"][1]
    assert added["terminationMessagePath"] == "/dev/termination-log"
    assert "noSuchField" not in added


async def test_after_an_apply_a_change_belongs_to_who_applied(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = patching({"op": "add", "path": "/data/b", "value": "x"})
        await register(served, hook, "/a", mutating=True)
        body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map()}
        made = await served.client.patch(
            CONFIG_MAPS,
            "default",
            "one",
            body=body,
            type=PatchType.APPLY,
            options={"fieldManager": "me"},
        )
    entries = {(e["manager"], e["operation"]): e for e in made["metadata"]["managedFields"]}
    assert entries["me", "Apply"]["fieldsV1"]["f:data"] == {"f:a": {}}
    assert "f:b" in entries["me", "Update"]["fieldsV1"]["f:data"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: web.Response(status=500, text="oh"), 'an error on the server ("oh")'),
        (lambda _: web.Response(status=404), "could not find the requested resource"),
        (lambda _: web.Response(text="hello"), "the answer is no JSON object"),
        (lambda _: web.json_response({}), "webhook response was absent"),
        (lambda _: {"uid": "x", "allowed": True}, "expected response.uid="),
        (lambda _: {"allowed": True, "patch": "W10="}, "may not return response.patch"),
        (lambda _: asyncio.sleep(30), "context deadline exceeded"),
    ],
)
async def test_no_answer_refuses_or_is_passed_over(tmp_path: Path, answer: Any, words: str) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/fail"] = answer
        await register(served, hook, "/fail", timeoutSeconds=1)
        error = await refusal(served)
        policy = {"webhooks": [{"name": "fail.example.com", "failurePolicy": "Ignore"}]}
        await served.client.patch(
            VALIDATING_WEBHOOK_CONFIGURATIONS,
            "",
            "fail",
            body=policy,
            type=PatchType.STRATEGIC,
        )
        await served.client.create(CONFIG_MAPS, config_map())
    assert (error.code, error.reason) == (500, "InternalError")
    head = 'Internal error occurred: failed calling webhook "fail.example.com": '
    assert error.message.startswith(head)
    assert words in error.message


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"patch": "W10="}, "response.patch but not response.patchType"),
        ({"patchType": "JSONPatch"}, "response.patchType but not response.patch"),
        ({"patchType": "Merge", "patch": "W10="}, 'unsupported patch type "Merge"'),
        ({"patchType": "JSONPatch", "patch": "e30="}, "undecodable patch"),
    ],
)
async def test_a_patch_must_be_whole(tmp_path: Path, operation: dict[str, Any], words: str) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = lambda _request: {"allowed": True, **operation}
        await register(served, hook, "/a", mutating=True)
        assert words in (await refusal(served)).message


async def test_a_patch_that_does_not_fit_is_an_error_of_the_server(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = patching({"op": "remove", "path": "/data/none"})
        await register(served, hook, "/a", mutating=True, failurePolicy="Ignore")
        assert (await refusal(served)).code == 500


async def test_a_certificate_must_be_of_the_bundle(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = allow
        client = {**hook.client("/a"), "caBundle": None}
        await register(served, hook, "/a", clientConfig=client)
        said = (await refusal(served)).message
        assert ": tls: failed to verify certificate: " in said


async def test_one_that_nobody_serves_is_told_in_plain_words(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        with socket.socket() as closed:  # bound and not listening: nobody else gets the port
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            client = {**hook.client("/a"), "url": f"https://127.0.0.1:{port}/a"}
            await register(served, hook, "/a", clientConfig=client)
            said = (await refusal(served)).message
    assert said.endswith(f": dial tcp 127.0.0.1:{port}: connect: connection refused")


async def test_a_service_is_found_by_its_endpoints(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/in/cluster"] = allow
        service = {"name": "hook", "namespace": "default", "path": "in/cluster", "port": 8443}
        client = {"service": service, "caBundle": hook.ca_bundle}
        await register(served, hook, "/svc", clientConfig=client)
        assert 'services "hook" not found' in (await refusal(served)).message
        spec = {"ports": [{"port": 8443, "name": "tls"}]}
        where = {"name": "hook", "namespace": "default"}
        await served.client.create(SERVICES, {"metadata": where, "spec": spec})
        assert "no endpoints available" in (await refusal(served)).message
        slice_ = {
            "metadata": {**where, "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"name": "tls", "port": hook.port}],
            "endpoints": [{"addresses": ["127.0.0.1"]}],
        }
        await served.client.create(ENDPOINT_SLICES, slice_)
        await served.client.create(CONFIG_MAPS, config_map())
        assert len(hook.requests("/in/cluster")) == 1


async def test_labels_of_object_and_namespace_choose(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers |= {"/object": allow, "/here": allow, "/elsewhere": allow}
        await register(served, hook, "/object", objectSelector={"matchLabels": {"watch": "me"}})
        await register(served, hook, "/here", namespaceSelector={"matchLabels": {"guarded": "yes"}})
        nobody = {"matchExpressions": [{"key": "guarded", "operator": "DoesNotExist"}]}
        await register(served, hook, "/elsewhere", namespaceSelector=nobody)
        await served.client.create(CONFIG_MAPS, config_map("plain"))
        await served.client.create(CONFIG_MAPS, config_map("seen", labels={"watch": "me"}))
        hidden = {"metadata": {"labels": {"watch": None}}}
        await served.client.patch(CONFIG_MAPS, "default", "seen", body=hidden)
        assert len(hook.requests("/object")) == 2  # the old one has the label still
        assert len(hook.requests("/here")) == 3
        assert not hook.requests("/elsewhere")


async def test_a_dry_run_is_told_of_and_stores_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = allow
        await register(served, hook, "/a")
        await served.client.patch(
            CONFIG_MAPS,
            "default",
            "one",
            body={"apiVersion": "v1", "kind": "ConfigMap", **config_map()},
            type=PatchType.APPLY,
            options={"fieldManager": "me", "dryRun": "All"},
        )
        assert hook.requests("/a")[0]["dryRun"] is True
        assert served.parts.cache.get(CONFIG_MAPS, "default", "one") is None


async def test_no_webhook_stands_before_webhooks(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        rule = {**ANYTHING, "resources": ["*/*"]}
        await register(served, hook, "/broken", rules=[rule])
        await served.client.delete(VALIDATING_WEBHOOK_CONFIGURATIONS, "", "broken")
        await served.client.create(CONFIG_MAPS, config_map())


async def test_a_subresource_is_seen_by_who_names_it(tmp_path: Path) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    async with cluster(tmp_path) as (served, hook):
        hook.answers |= {"/pods": allow, "/status": allow, "/binding": allow}
        for path, resource in (("/pods", "pods"), ("/status", "pods/status")):
            await register(served, hook, path, rules=[{**ANYTHING, "resources": [resource]}])
        rule = {**ANYTHING, "resources": ["pods/binding"]}
        await register(served, hook, "/binding", rules=[rule])
        await served.client.create(PODS, pod)
        target = {"metadata": pod["metadata"], "target": {"kind": "Node", "name": "n"}}
        await served.client.create(PODS, target, subresource="binding", name="p")
        status = {"status": {"phase": "Running"}}
        await served.client.patch(PODS, "default", "p", body=status, subresource="status")
        assert [r["operation"] for r in hook.requests("/pods")] == ["CREATE"]
        (changed,) = hook.requests("/status")
        (bound,) = hook.requests("/binding")
    assert (changed["subResource"], changed["operation"]) == ("status", "UPDATE")
    assert bound["kind"] == {"group": "", "version": "v1", "kind": "Binding"}
    assert bound["resource"]["resource"] == "pods"


async def test_warnings_reach_the_client(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/w"] = lambda _request: {"allowed": True, "warnings": ["mind the gap"]}
        await register(served, hook, "/w")
        kind = served.parts.kinds.by_resource("", "v1", "configmaps")
        assert kind is not None
        call = Call(user=ADMIN, kind=kind, namespace="default")
        body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map()}
        await create(served.parts, call, body)
    assert call.warnings == ["mind the gap"]


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("object.metadata.name == 'one'", True),
        ("object.metadata.name != 'one'", False),
        ("request.operation == 'CREATE' && request.userInfo.username == 'admin'", True),
        ("oldObject == null", True),
        ("authorizer.group('').resource('pods').namespace('x').check('get').allowed()", True),
        ("object.metadata.labels.nope == 'x' || true", True),
    ],
)
async def test_conditions_decide_whether_a_webhook_is_asked(
    tmp_path: Path, expression: str, asked: bool
) -> None:
    async with cluster(tmp_path) as (served, hook):
        hook.answers["/a"] = allow
        conditions = [{"name": "c", "expression": expression}]
        await register(served, hook, "/a", matchConditions=conditions)
        await served.client.create(CONFIG_MAPS, config_map())
        assert bool(hook.requests("/a")) is asked


async def test_a_condition_without_a_value_follows_the_failure_policy(tmp_path: Path) -> None:
    conditions = [{"name": "c", "expression": "object.metadata.labels.nope == 'x'"}]
    async with cluster(tmp_path) as (served, hook):
        hook.answers |= {"/fail": allow, "/pass": allow}
        await register(served, hook, "/pass", matchConditions=conditions, failurePolicy="Ignore")
        await served.client.create(CONFIG_MAPS, config_map("first"))
        await register(served, hook, "/fail", matchConditions=conditions)
        error = await refusal(served)
        assert not hook.asked
    assert error.code == 403
    assert "no such key: labels" in error.message


async def test_a_condition_must_compile(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (served, hook):
        conditions = [{"name": "c", "expression": "... bad"}]
        with pytest.raises(StatusError, match="compilation failed") as caught:
            await register(served, hook, "/a", matchConditions=conditions)
    assert caught.value.code == 422
    assert "webhooks[0].matchConditions[0].expression" in caught.value.message
