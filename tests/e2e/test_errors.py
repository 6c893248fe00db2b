"""What the server refuses it refuses with the reason, the field and the exit code of upstream."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Space

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": POD["spec"]},
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s"},
    "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}},
}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}


def changed(base: Any, **fields: Any) -> Any:
    """A copy with fields set by path, written with __ between the steps."""
    made = json.loads(json.dumps(base))
    for path, value in fields.items():
        *steps, last = path.split("__")
        place = made
        for step in steps:
            place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
        place[last] = value
    return made


def refusal(space: Space, obj: Any, *flags: str) -> str:
    """What kubectl says when it creates the object."""
    return space.refused("create", "-f", "-", *flags, input=json.dumps(obj))


INVALID = [
    (
        changed(POD, metadata__name="Not_A_Name"),
        'The Pod "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name": a lowercase '
        "RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
        "must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
        r"validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ),
    (
        changed(POD, spec__containers=[]),
        'The Pod "p" is invalid: spec.containers: Required value',
    ),
    (
        changed(POD, spec__restartPolicy="Sometimes"),
        'The Pod "p" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": supported '
        'values: "Always", "OnFailure", "Never"',
    ),
    (
        changed(POD, spec__containers__0__imagePullPolicy="Maybe"),
        'The Pod "p" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": '
        'supported values: "Always", "IfNotPresent", "Never"',
    ),
    (
        changed(POD, spec__containers__0__ports=[{"containerPort": 70000}]),
        'The Pod "p" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 70000: '
        "must be between 1 and 65535, inclusive",
    ),
    (
        changed(POD, spec__containers__0__volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        'The Pod "p" is invalid: spec.containers[0].volumeMounts[0].name: Not found: "v"',
    ),
    (
        changed(POD, spec__containers=[{"name": "c", "image": "i"}] * 2),
        'The Pod "p" is invalid: spec.containers[1].name: Duplicate value: "c"',
    ),
    (
        changed(
            POD,
            spec__containers__0__resources={
                "requests": {"cpu": "2"},
                "limits": {"cpu": "1"},
            },
        ),
        'The Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must '
        "be less than or equal to cpu limit of 1",
    ),
    (
        changed(DEPLOYMENT, spec__replicas=-1),
        'The Deployment "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or '
        "equal to 0",
    ),
    (
        changed(DEPLOYMENT, spec__selector__matchLabels={"app": "other"}),
        'The Deployment "d" is invalid: spec.template.metadata.labels: Invalid value: '
        '{"app":"d"}: `selector` does not match template `labels`',
    ),
    (
        changed(SERVICE, spec__type="NodePort", spec__ports=[{"port": 80, "nodePort": 99}]),
        'The Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 99: provided port is '
        "not in the valid range. The range of valid ports is 30000-32767",
    ),
    (
        changed(SERVICE, spec__clusterIP="1.2.3.4"),
        'The Service "s" is invalid: spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to '
        "allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of "
        "valid IPs is 10.43.0.0/16",
    ),
    (
        changed(CONFIG_MAP, data={"not/a key": "x"}),
        'The ConfigMap "m" is invalid: data[not/a key]: Invalid value: "not/a key": a valid config '
        "key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
        "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    ),
    (
        changed(CONFIG_MAP, metadata__labels={"a": "not a value"}),
        'The ConfigMap "m" is invalid: metadata.labels: Invalid value: "not a value": a valid '
        "label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
        "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
        "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    ),
]


def test_objects_that_break_a_rule_are_refused_with_the_path_of_the_field(space: Space) -> None:
    for obj, text in INVALID:
        assert refusal(space, obj, "--validate=false") == text


def test_every_cause_is_listed(space: Space) -> None:
    bad = changed(POD, spec__restartPolicy="No", spec__containers__0__name="Bad Name")
    lines = refusal(space, bad, "--validate=false").splitlines()
    assert lines[0].strip() == 'The Pod "p" is invalid:'
    assert [line.split(":")[0] for line in lines[1:]] == [
        "* spec.containers[0].name",
        "* spec.restartPolicy",
    ]


def test_an_unknown_field_is_refused_when_strict_warned_of_or_dropped(space: Space) -> None:
    bad = changed(POD, spec__bogus=1)
    text = (
        'Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot '
        'be handled as a Pod: strict decoding error: unknown field "spec.bogus"'
    )
    assert refusal(space, bad, "--validate=strict") == text
    assert refusal(space, bad) == text
    flags = ("create", "--dry-run=server", "-f", "-")
    warned = space.run(*flags, "--validate=warn", input=json.dumps(bad))
    assert warned.stderr == 'Warning: unknown field "spec.bogus"\n'
    assert space.run(*flags, "--validate=ignore", input=json.dumps(bad)).stderr == ""


def test_a_field_that_is_given_twice_is_refused(space: Space) -> None:
    text = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {DATA}}'
    path = f"/api/v1/namespaces/{space.name}/configmaps?fieldValidation=Strict"
    twice = text.replace("DATA", '"a": "b", "a": "c"')
    assert space.refused("create", "--raw", path, "-f", "-", input=twice) == (
        'Error from server (BadRequest): ConfigMap in version "v1" cannot be handled as a '
        'ConfigMap: strict decoding error: duplicate field "data.a"'
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"spec__containers__0__stdin": "yes"},
            "json: cannot unmarshal string into Go struct field Container.spec.containers.stdin of "
            "type bool",
        ),
        (
            {"spec__containers": {}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type "
            "[]v1.Container",
        ),
    ],
)
def test_a_wrong_type_is_refused_as_the_decoder_of_upstream_says(
    space: Space, fields: dict[str, Any], text: str
) -> None:
    said = refusal(space, changed(POD, **fields), "--validate=false")
    assert said == (
        'Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot '
        f"be handled as a Pod: {text}"
    )


def test_what_is_no_manifest_is_refused(space: Space) -> None:
    unknown = {"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "t"}}
    assert refusal(space, unknown) == (
        'error: resource mapping not found for name: "t" namespace: "" from "STDIN": no matches '
        'for kind "Thing" in version "example.test/v1"\nensure CRDs are installed first'
    )
    path = f"/api/v1/namespaces/{space.name}/pods"
    garbage = space.refused("create", "--raw", path, "-f", "-", input="{")
    assert garbage.startswith("Error from server (BadRequest): ")
    wrong = space.refused("create", "--raw", path, "-f", "-", input=json.dumps(CONFIG_MAP))
    assert 'ConfigMap in version "v1" cannot be handled as a Pod' in wrong


def test_a_name_that_is_taken_is_refused(space: Space) -> None:
    space.kubectl("create", "-f", "-", input=json.dumps(CONFIG_MAP))
    assert refusal(space, CONFIG_MAP) == (
        'Error from server (AlreadyExists): error when creating "STDIN": configmaps "m" already '
        "exists"
    )


def test_fields_that_may_not_change_are_refused(space: Space) -> None:
    space.kubectl("create", "-f", "-", input=json.dumps(DEPLOYMENT))
    other = {"matchLabels": {"app": "e"}}
    patch = {"spec": {"selector": other, "template": {"metadata": {"labels": {"app": "e"}}}}}
    said = space.refused("patch", "deploy", "d", "-p", json.dumps(patch))
    assert said == (
        'The Deployment "d" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"e"}}: '
        "field is immutable"
    )
    space.kubectl("create", "-f", "-", input=json.dumps(SERVICE))
    patch = {"spec": {"clusterIP": "10.43.99.99", "clusterIPs": ["10.43.99.99"]}}
    said = space.refused("patch", "svc", "s", "-p", json.dumps(patch))
    assert 'spec.clusterIPs[0]: Invalid value: ["10.43.99.99"]: may not change once set' in said
    space.kubectl("create", "-f", "-", input=json.dumps({**CONFIG_MAP, "immutable": True}))
    said = space.refused("patch", "cm", "m", "-p", '{"data": {"a": "b"}}')
    assert said == (
        'The ConfigMap "m" is invalid: data: Forbidden: field is immutable when `immutable` is set'
    )


def test_a_running_pod_may_not_change(space: Space) -> None:
    space.kubectl("create", "-f", "-", input=json.dumps(POD))
    patch = '{"spec": {"hostname": "other"}}'
    said = space.refused("patch", "pod", "p", "-p", patch)
    assert said == (
        'The Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than '
        "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
        "`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously "
        "negative)"
    )


def test_an_account_without_rights_is_told_what_it_lacks(space: Space) -> None:
    user = f"system:serviceaccount:{space.name}:default"
    as_account = ("--as", user)
    where = f'in the namespace "{space.name}"'
    assert space.refused("get", "pods", *as_account) == (
        f'Error from server (Forbidden): pods is forbidden: User "{user}" cannot list resource '
        f'"pods" in API group "" {where}'
    )
    assert space.refused("get", "deploy", "d", *as_account) == (
        f'Error from server (Forbidden): deployments.apps "d" is forbidden: User "{user}" cannot '
        f'get resource "deployments" in API group "apps" {where}'
    )
    assert space.refused("get", "nodes", *as_account) == (
        f'Error from server (Forbidden): nodes is forbidden: User "{user}" cannot list resource '
        '"nodes" in API group "" at the cluster scope'
    )
    assert space.refused("delete", "pod", "p", *as_account) == (
        f'Error from server (Forbidden): pods "p" is forbidden: User "{user}" cannot delete '
        f'resource "pods" in API group "" {where}'
    )


def test_nobody_grants_more_than_he_has(space: Space) -> None:
    account = f"--serviceaccount={space.name}:default"
    space.kubectl("create", "role", "maker", "--verb=create", "--resource=roles")
    space.kubectl("create", "rolebinding", "maker", "--role=maker", account)
    said = space.refused(
        "create", "role", "more", "--verb=get", "--resource=secrets",
        f"--as=system:serviceaccount:{space.name}:default",
    )  # fmt: skip
    assert "is attempting to grant RBAC permissions not currently held" in said
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in said


def test_a_quota_that_is_used_up_is_named(space: Space) -> None:
    space.kubectl("create", "quota", "few", "--hard=count/configmaps=2")
    space.wait("quota/few", "--for=jsonpath={.status.used.count/configmaps}=1")
    space.kubectl("create", "configmap", "one")
    assert space.refused("create", "configmap", "two") == (
        'error: failed to create configmap: configmaps "two" is forbidden: exceeded quota: few, '
        "requested: count/configmaps=1, used: count/configmaps=2, limited: count/configmaps=2"
    )


def test_a_namespace_that_is_going_takes_nothing_new(space: Space) -> None:
    name = f"{space.name}-going"
    space.kubectl("create", "namespace", name)
    space.kubectl("create", "configmap", "held", "-n", name)
    finalizers = '{"metadata": {"finalizers": ["e2e.example/held"]}}'
    space.kubectl("patch", "cm", "held", "-n", name, "-p", finalizers)
    space.kubectl("delete", "namespace", name, "--wait=false")
    said = space.refused("create", "configmap", "late", "-n", name)
    assert said == (
        'error: failed to create configmap: configmaps "late" is forbidden: unable to create new '
        f"content in namespace {name} because it is being terminated"
    )
    assert space.kubectl("get", "ns", name, "--no-headers").split()[1] == "Terminating"
    space.kubectl("patch", "cm", "held", "-n", name, "-p", '{"metadata": {"finalizers": null}}')
    space.kubectl("wait", f"ns/{name}", "--for=delete", "--timeout=20s")


def test_a_namespace_that_is_not_there_is_named(space: Space) -> None:
    assert space.refused("create", "configmap", "m", "-n", "nowhere") == (
        'error: failed to create configmap: namespaces "nowhere" not found'
    )


def test_selectors_that_cannot_be_read_are_refused(space: Space) -> None:
    path = f"/api/v1/namespaces/{space.name}/pods?labelSelector="
    assert "unable to parse requirement" in space.refused("get", "--raw", path + "a+in+b")
    assert space.refused("get", "--raw", path + "a%3D%3D%3Db").startswith(
        "Error from server (BadRequest): "
    )


def test_versions_that_are_gone_are_not_found(space: Space) -> None:
    for path in ("/apis/extensions/v1beta1/ingresses", "/api/v2/pods", "/apis/apps/v1/ghosts"):
        assert space.refused("get", "--raw", path) == (
            "Error from server (NotFound): the server could not find the requested resource"
        )
