"""Admission policies in CEL: what they refuse, warn of and change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controlplane.api.call import Call
from controlplane.api.policies.admission import MutatingPolicies, ValidatingPolicies
from controlplane.api.write import create
from controlplane.client.base import PatchType
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    NAMESPACES,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)
from tests.fakes.api_server import ADMIN, Served, serving

MAPS = {
    "operations": ["CREATE", "UPDATE"],
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "resources": ["configmaps"],
}
DEPLOYED = {**MAPS, "apiGroups": ["apps"], "resources": ["deployments"]}


@asynccontextmanager
async def cluster() -> AsyncIterator[Served]:
    """An API server that enforces policies, and the namespace ``default``."""

    def parts() -> Any:
        return made[0]

    made: list[Any] = []
    admissions = (MutatingPolicies(parts), ValidatingPolicies(parts))
    async with serving(admissions=admissions) as served:
        made.append(served.parts)
        namespace = {"metadata": {"name": "default", "labels": {"tier": "gold"}}}
        await served.client.create(NAMESPACES, namespace)
        yield served


async def policy(served: Served, name: str, *rules: Any, **spec: Any) -> None:
    """A policy that refuses ConfigMaps, and its binding; ``binding``: more of that."""
    validations = [rule if isinstance(rule, dict) else {"expression": rule} for rule in rules]
    bound = {"policyName": name, "validationActions": ["Deny"], **spec.pop("binding", {})}
    body = {"validations": validations, "matchConstraints": {"resourceRules": [MAPS]}, **spec}
    metadata = {"metadata": {"name": name}}
    await served.client.create(VALIDATING_ADMISSION_POLICIES, {**metadata, "spec": body})
    await served.client.create(VALIDATING_ADMISSION_POLICY_BINDINGS, {**metadata, "spec": bound})


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


async def refusal(served: Served, body: dict[str, Any]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await served.client.create(CONFIG_MAPS, body)
    return caught.value


async def test_a_false_expression_refuses_in_upstreams_words() -> None:
    async with cluster() as served:
        await policy(served, "few", "object.data.size() < 2")
        await served.client.create(CONFIG_MAPS, config_map("good", a="1"))
        error = await refusal(served, config_map(a="1", b="2"))
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.message == (
        "configmaps \"one\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' "
        "denied request: failed expression: object.data.size() < 2"
    )


async def test_messages_reasons_and_variables() -> None:
    rule = {
        "expression": "variables.few",
        "messageExpression": "'%d are too many in %s'.format([variables.count, request.namespace])",
        "reason": "Forbidden",
    }
    variables = [
        {"name": "count", "expression": "object.data.size()"},
        {"name": "few", "expression": "variables.count < 2"},
        {"name": "unused", "expression": "object.nope"},
    ]
    async with cluster() as served:
        await policy(served, "few", rule, variables=variables)
        error = await refusal(served, config_map(a="1", b="2"))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert error.message.endswith("denied request: 2 are too many in default")


async def test_a_policy_without_a_binding_is_about_nothing() -> None:
    async with cluster() as served:
        await policy(served, "never", "false", binding={"policyName": "other"})
        await served.client.create(CONFIG_MAPS, config_map())


async def test_warnings_refuse_nothing() -> None:
    async with cluster() as served:
        await policy(served, "never", "false", binding={"validationActions": ["Warn", "Audit"]})
        kind = served.parts.kinds.by_resource("", "v1", "configmaps")
        assert kind is not None
        call = Call(user=ADMIN, kind=kind, namespace="default")
        await create(served.parts, call, {"apiVersion": "v1", "kind": "ConfigMap", **config_map()})
    (warning,) = call.warnings
    assert warning == (
        "Validation failed for ValidatingAdmissionPolicy 'never' with binding 'never': "
        "failed expression: false"
    )


async def test_an_expression_without_a_value_follows_the_failure_policy() -> None:
    async with cluster() as served:
        await policy(served, "lax", "object.nope == 1", failurePolicy="Ignore")
        await served.client.create(CONFIG_MAPS, config_map("first"))
        await policy(served, "strict", "object.nope == 1")
        error = await refusal(served, config_map())
    assert "resulted in error: no such key: nope" in error.message


async def test_parameters_are_other_objects() -> None:
    reference = {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    async with cluster() as served:
        await policy(
            served,
            "limited",
            "object.data.size() <= int(params.data.most)",
            paramKind=kind,
            binding={"paramRef": reference},
            matchConditions=[{"name": "others", "expression": "object.metadata.name != 'limits'"}],
        )
        missing = await refusal(served, config_map("limits", most="1"))
        assert "no params found for policy binding" in missing.message
        allowed = {"spec": {"paramRef": {**reference, "parameterNotFoundAction": "Allow"}}}
        await served.client.patch(VALIDATING_ADMISSION_POLICY_BINDINGS, "", "limited", body=allowed)
        await served.client.create(CONFIG_MAPS, config_map("limits", most="1"))
        await served.client.create(CONFIG_MAPS, config_map("good", a="1"))
        assert "denied request" in (await refusal(served, config_map(a="1", b="2"))).message


async def test_bindings_narrow_and_names_and_exclusions_count() -> None:
    elsewhere = {"namespaceSelector": {"matchLabels": {"tier": "silver"}}}
    here = {"namespaceSelector": {"matchLabels": {"tier": "gold"}}}
    async with cluster() as served:
        await policy(served, "elsewhere", "false", binding={"matchResources": elsewhere})
        named = {"resourceRules": [{**MAPS, "resourceNames": ["other"]}]}
        await policy(served, "named", "false", matchConstraints=named)
        excluded = {"resourceRules": [MAPS], "excludeResourceRules": [MAPS]}
        await policy(served, "excluded", "false", matchConstraints=excluded)
        await served.client.create(CONFIG_MAPS, config_map())
        await policy(served, "here", "false", binding={"matchResources": here})
        assert "'here'" in (await refusal(served, config_map("two"))).message


async def test_policies_ask_what_the_user_may_and_see_the_namespace() -> None:
    async with cluster() as served:
        await policy(
            served,
            "asks",
            "authorizer.requestResource.check('delete').allowed()",
            "namespaceObject.metadata.labels.tier == 'gold'",
            "request.userInfo.username == 'admin' && oldObject == null",
        )
        await served.client.create(CONFIG_MAPS, config_map())


async def mutation(served: Served, name: str, rule: dict[str, Any], *mutations: Any) -> None:
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "reinvocationPolicy": "Never",
        "mutations": list(mutations),
    }
    metadata = {"metadata": {"name": name}}
    await served.client.create(MUTATING_ADMISSION_POLICIES, {**metadata, "spec": spec})
    bound = {**metadata, "spec": {"policyName": name}}
    await served.client.create(MUTATING_ADMISSION_POLICY_BINDINGS, bound)


def deployment() -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    return {
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


async def test_an_object_of_an_expression_is_merged_and_lists_by_their_keys() -> None:
    text = (
        "Object{spec: Object.spec{replicas: object.spec.replicas + 1, template: "
        "Object.spec.template{spec: Object.spec.template.spec{containers: ["
        "Object.spec.template.spec.containers{name: 'side', image: 'busybox'}]}}}}"
    )
    async with cluster() as served:
        change = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}}
        await mutation(served, "side", DEPLOYED, change)
        made = await served.client.create(DEPLOYMENTS, deployment())
    assert made["spec"]["replicas"] == 2
    containers = {c["name"]: c for c in made["spec"]["template"]["spec"]["containers"]}
    assert containers.keys() == {"c", "side"}
    assert containers["side"]["terminationMessagePath"] == "/dev/termination-log"


async def test_a_json_patch_of_an_expression_is_applied() -> None:
    text = (
        "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}, "
        "JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), "
        "value: object.metadata.name}]"
    )
    async with cluster() as served:
        change = {"patchType": "JSONPatch", "jsonPatch": {"expression": text}}
        await mutation(served, "mark", MAPS, change)
        made = await served.client.create(CONFIG_MAPS, config_map())
    assert made["metadata"]["annotations"] == {"a/b": "one"}


async def test_a_mutation_that_fails_refuses() -> None:
    async with cluster() as served:
        change = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "1"}}
        await mutation(served, "odd", MAPS, change)
        error = await refusal(served, config_map())
    assert "must be an Object" in error.message


async def test_policies_do_not_bind_policies() -> None:
    async with cluster() as served:
        everything = {**MAPS, "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
        await policy(served, "all", "false", matchConstraints={"resourceRules": [everything]})
        body = {"metadata": {"annotations": {"a": "b"}}}
        await served.client.patch(
            VALIDATING_ADMISSION_POLICIES, "", "all", body=body, type=PatchType.MERGE
        )
        await served.client.delete(VALIDATING_ADMISSION_POLICIES, "", "all")
        await served.client.create(CONFIG_MAPS, config_map())


async def test_an_expression_must_compile_to_be_stored() -> None:
    async with cluster() as served:
        with pytest.raises(StatusError, match="compilation failed") as caught:
            await policy(served, "bad", "object.")
    assert "spec.validations[0].expression" in caught.value.message
