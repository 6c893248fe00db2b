"""Built-in admission plugins one by one."""

import asyncio
import copy
from typing import Any

import pytest

from controlplane.api.admission.defaults import (
    DefaultIngressClass,
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
)
from controlplane.api.admission.limit_ranger import LimitRanger
from controlplane.api.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.api.admission.scheduling import (
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    DefaultTolerationSeconds,
    Priority,
    RuntimeClass,
)
from controlplane.api.admission.service_account import ServiceAccount
from controlplane.api.base import Admission, AdmissionRequest, Operation, User
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind, Resource
from controlplane.objects.pod_totals import pod_total
from controlplane.objects.resources import (
    INGRESS_CLASSES,
    INGRESSES,
    LIMIT_RANGES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SERVICE_ACCOUNTS,
    STORAGE_CLASSES,
)
from tests.unit.auth.fake_objects import Objects

JANE = User(name="jane", groups=("system:authenticated",))


def kind(resource: Resource) -> Kind:
    return Kind(
        group=resource.group,
        version=resource.version,
        kind=resource.plural.capitalize(),
        plural=resource.plural,
        singular=resource.plural,
        namespaced=resource.namespaced,
    )


def request(
    resource: Resource,
    obj: dict[str, Any] | None,
    *,
    objects: Objects | None = None,
    operation: Operation = Operation.CREATE,
    user: User = JANE,
    subresource: str = "",
    old: dict[str, Any] | None = None,
    name: str = "",
) -> AdmissionRequest:
    return AdmissionRequest(
        operation=operation,
        kind=kind(resource),
        subresource=subresource,
        namespace="ns" if resource.namespaced else "",
        name=name or ((obj or old or {}).get("metadata") or {}).get("name", ""),
        user=user,
        object=obj,
        old=old,
        options={},
        dry_run=False,
        reads=objects or Objects(),
    )


def admit(plugin: Admission, asked: AdmissionRequest) -> Any:
    async def both() -> None:
        await plugin.mutate(asked)
        await plugin.validate(asked)

    asyncio.run(both())
    return asked.object


def refusal(plugin: Admission, asked: AdmissionRequest, code: int = 403) -> str:
    with pytest.raises(StatusError) as caught:
        admit(plugin, asked)
    assert caught.value.code == code
    return caught.value.message


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c"}]} | spec}


# --- NamespaceLifecycle ---


def namespaces(**namespace: Any) -> Objects:
    objects = Objects()
    objects.put(NAMESPACES, {"metadata": {"name": "ns"}} | namespace)
    return objects


def test_nothing_is_written_where_no_namespace_is() -> None:
    message = refusal(NamespaceLifecycle(), request(PODS, pod()), 404)
    assert message == 'namespaces "ns" not found'
    assert admit(NamespaceLifecycle(), request(PODS, pod(), objects=namespaces()))


def test_nothing_is_created_where_a_namespace_goes() -> None:
    objects = namespaces(status={"phase": "Terminating"})
    with pytest.raises(StatusError) as caught:
        admit(NamespaceLifecycle(), request(PODS, pod(), objects=objects))
    assert caught.value.message == (
        'pods "web" is forbidden: unable to create new content in namespace ns because it is '
        "being terminated"
    )
    assert caught.value.body()["details"]["causes"] == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace ns is being terminated",
            "field": "metadata.namespace",
        }
    ]
    update = request(PODS, pod(), old=pod(), objects=objects, operation=Operation.UPDATE)
    assert admit(NamespaceLifecycle(), update)


def test_the_namespaces_of_the_system_stay() -> None:
    asked = request(NAMESPACES, None, operation=Operation.DELETE, name="kube-system")
    assert refusal(NamespaceLifecycle(), asked) == (
        'namespaces "kube-system" is forbidden: this namespace may not be deleted'
    )
    admit(NamespaceLifecycle(), request(NAMESPACES, None, operation=Operation.DELETE, name="x"))


# --- ServiceAccount ---


def accounts(objects: Objects, **account: Any) -> ServiceAccount:
    objects.put(SERVICE_ACCOUNTS, {"metadata": {"namespace": "ns", "name": "default"}} | account)
    return ServiceAccount(objects, lambda count: bytes(range(count)))


def test_a_pod_gets_account_token_and_pull_secrets() -> None:
    objects = Objects()
    plugin = accounts(objects, imagePullSecrets=[{"name": "pull"}])
    made = admit(plugin, request(PODS, pod(initContainers=[{"name": "i"}]), objects=objects))
    spec = made["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    (volume,) = spec["volumes"]
    assert volume["name"] == "kube-api-access-bcdfg"
    sources = volume["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    mount = {
        "name": "kube-api-access-bcdfg",
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["volumeMounts"] == [mount]


@pytest.mark.parametrize("decliner", ["pod", "account"])
def test_the_token_can_be_declined(decliner: str) -> None:
    objects, declined = Objects(), {"automountServiceAccountToken": False}
    plugin = accounts(objects, **(declined if decliner == "account" else {}))
    made = pod(**(declined if decliner == "pod" else {}))
    assert "volumes" not in admit(plugin, request(PODS, made, objects=objects))["spec"]


def test_a_mount_of_ones_own_keeps_the_token_out() -> None:
    objects = Objects()
    mount = {"name": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    made = pod(containers=[{"name": "c", "volumeMounts": [mount]}])
    made = admit(accounts(objects), request(PODS, made, objects=objects))
    assert made["spec"]["containers"][0]["volumeMounts"] == [mount]
    assert "volumes" not in made["spec"]


def test_an_account_that_is_not_there_refuses_the_pod() -> None:
    objects = Objects()
    made = pod(serviceAccountName="no")
    assert refusal(accounts(objects), request(PODS, made, objects=objects)) == (
        'pods "web" is forbidden: error looking up service account ns/no: '
        'serviceaccount "no" not found'
    )


async def test_waits_for_the_default_account_of_a_new_namespace() -> None:
    objects = Objects()
    plugin = ServiceAccount(objects, lambda count: bytes(count))
    asked = request(PODS, pod(), objects=objects)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(plugin.mutate(asked))
        await asyncio.sleep(0)
        assert not waiting.done()
        objects.put(SERVICE_ACCOUNTS, {"metadata": {"namespace": "ns", "name": "default"}})
    assert asked.object is not None
    assert asked.object["spec"]["serviceAccountName"] == "default"


def test_a_mirror_pod_is_left_as_it_is_and_names_no_secrets() -> None:
    mirror = pod()
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    before = copy.deepcopy(mirror)
    plugin = accounts(Objects())
    assert admit(plugin, request(PODS, mirror)) == before
    mirror["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "s"}}]
    assert "may not reference secrets" in refusal(plugin, request(PODS, mirror))


def test_an_account_can_limit_the_secrets_of_its_pods() -> None:
    objects = Objects()
    metadata = {
        "namespace": "ns",
        "name": "default",
        "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"},
    }
    plugin = accounts(objects, metadata=metadata, secrets=[{"name": "mine"}])
    made = pod(volumes=[{"name": "v", "secret": {"secretName": "mine"}}])
    assert admit(plugin, request(PODS, made, objects=objects))
    made = pod(volumes=[{"name": "v", "secret": {"secretName": "other"}}])
    assert refusal(plugin, request(PODS, made, objects=objects)) == (
        'pods "web" is forbidden: volume with secret.secretName="other" is not allowed because '
        "service account default does not reference that secret"
    )


# --- scheduling ---


def test_a_pod_stays_five_minutes_on_a_silent_node() -> None:
    made = admit(DefaultTolerationSeconds(), request(PODS, pod()))
    assert [(t["key"], t["tolerationSeconds"]) for t in made["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]


@pytest.mark.parametrize(
    ("toleration", "count"),
    [
        ({"operator": "Exists"}, 1),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, 2),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, 3),
    ],
)
def test_a_pod_that_says_how_long_is_left_alone(toleration: dict[str, Any], count: int) -> None:
    made = admit(DefaultTolerationSeconds(), request(PODS, pod(tolerations=[toleration])))
    assert len(made["spec"]["tolerations"]) == count


def priorities() -> Objects:
    objects = Objects()
    objects.put(
        PRIORITY_CLASSES,
        {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"},
    )
    return objects


def test_a_priority_class_becomes_a_number() -> None:
    asked = request(PODS, pod(priorityClassName="high"), objects=priorities())
    spec = admit(Priority(), asked)["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    spec = admit(Priority(), request(PODS, pod(), objects=priorities()))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert "priorityClassName" not in spec


def test_the_default_priority_class_is_named_in_the_pod() -> None:
    objects = priorities()
    low = {"metadata": {"name": "low"}, "value": 5, "globalDefault": True}
    objects.put(PRIORITY_CLASSES, low)
    spec = admit(Priority(), request(PODS, pod(), objects=objects))["spec"]
    assert (spec["priorityClassName"], spec["priority"]) == ("low", 5)
    second = {"metadata": {"name": "other"}, "value": 6, "globalDefault": True}
    message = refusal(Priority(), request(PRIORITY_CLASSES, second, objects=objects))
    assert "PriorityClass low is already marked as default" in message


def test_a_priority_that_is_not_its_class_is_refused() -> None:
    asked = request(PODS, pod(priority=7), objects=priorities())
    assert "the integer value of priority (7) must not be provided" in refusal(Priority(), asked)
    asked = request(PODS, pod(priorityClassName="no"), objects=priorities())
    assert refusal(Priority(), asked).endswith("no PriorityClass with name no was found")


def test_an_update_keeps_the_priority() -> None:
    asked = request(PODS, pod(), old=pod(priority=9), operation=Operation.UPDATE)
    assert admit(Priority(), asked)["spec"]["priority"] == 9


def runtimes() -> Objects:
    objects = Objects()
    objects.put(
        RUNTIME_CLASSES,
        {
            "metadata": {"name": "vm"},
            "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]},
        },
    )
    return objects


def test_a_runtime_class_brings_overhead_selector_and_tolerations() -> None:
    asked = request(PODS, pod(runtimeClassName="vm", nodeSelector={"a": "b"}), objects=runtimes())
    spec = admit(RuntimeClass(), asked)["spec"]
    assert spec["overhead"] == {"memory": "64Mi"}
    assert spec["nodeSelector"] == {"a": "b", "vm": "yes"}
    assert spec["tolerations"] == [{"key": "vm"}]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"runtimeClassName": "no"}, 'RuntimeClass "no" not found'),
        ({"overhead": {"memory": "1Mi"}}, "without corresponding RuntimeClass"),
        ({"runtimeClassName": "vm", "overhead": {"memory": "1Mi"}}, "doesn't match"),
        ({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}, "conflict: runtimeClass"),
    ],
)
def test_a_pod_that_does_not_fit_its_runtime_class_is_refused(
    spec: dict[str, Any], text: str
) -> None:
    assert text in refusal(RuntimeClass(), request(PODS, pod(**spec), objects=runtimes()))


# --- defaults ---


def test_a_new_node_is_not_ready() -> None:
    made = admit(TaintNodesByCondition(), request(NODES, {"metadata": {"name": "n"}}))
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert made["spec"]["taints"] == [taint]
    assert admit(TaintNodesByCondition(), request(NODES, made))["spec"]["taints"] == [taint]


def storage_class(name: str, created: str, **more: Any) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    metadata = {"name": name, "creationTimestamp": created, "annotations": annotations}
    return {"metadata": metadata} | more


def test_a_claim_without_a_class_gets_the_newest_default() -> None:
    objects = Objects()
    plugin = DefaultStorageClass()
    claim = {"metadata": {"name": "c"}, "spec": {}}
    made = admit(plugin, request(PERSISTENT_VOLUME_CLAIMS, copy.deepcopy(claim), objects=objects))
    assert made == claim
    objects.put(STORAGE_CLASSES, storage_class("old", "2027-01-01T00:00:00Z"))
    objects.put(STORAGE_CLASSES, storage_class("new-b", "2027-02-01T00:00:00Z"))
    objects.put(STORAGE_CLASSES, storage_class("new-a", "2027-02-01T00:00:00Z"))
    made = admit(plugin, request(PERSISTENT_VOLUME_CLAIMS, copy.deepcopy(claim), objects=objects))
    assert made["spec"]["storageClassName"] == "new-a"
    none = {"metadata": {"name": "c"}, "spec": {"storageClassName": ""}}
    made = admit(plugin, request(PERSISTENT_VOLUME_CLAIMS, none, objects=objects))
    assert made["spec"]["storageClassName"] == ""


def test_an_ingress_without_a_class_gets_the_default() -> None:
    objects = Objects()
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"}
    objects.put(INGRESS_CLASSES, {"metadata": {"name": "web", "annotations": annotations}})
    made = admit(DefaultIngressClass(), request(INGRESSES, {"metadata": {}}, objects=objects))
    assert made["spec"]["ingressClassName"] == "web"
    older = {"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}
    made = admit(DefaultIngressClass(), request(INGRESSES, older, objects=objects))
    assert "ingressClassName" not in made["spec"]


def test_volumes_and_claims_are_protected_once() -> None:
    plugin = StorageObjectInUseProtection()
    made = admit(plugin, request(PERSISTENT_VOLUMES, {"metadata": {"name": "v"}}))
    made = admit(plugin, request(PERSISTENT_VOLUMES, made))
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


@pytest.mark.parametrize(
    ("phase", "expandable", "size", "text"),
    [
        ("Bound", True, "2Gi", ""),
        ("Bound", False, "512Mi", ""),
        ("Bound", False, "2Gi", "must support resize"),
        ("Pending", True, "2Gi", "Only bound persistent volume claims can be expanded"),
    ],
)
def test_a_claim_grows_where_its_class_allows(
    phase: str, expandable: bool, size: str, text: str
) -> None:
    objects = Objects()
    objects.put(STORAGE_CLASSES, storage_class("s", "", allowVolumeExpansion=expandable))

    def claim(size: str) -> dict[str, Any]:
        spec = {"storageClassName": "s", "resources": {"requests": {"storage": size}}}
        return {"metadata": {"name": "c"}, "spec": spec, "status": {"phase": phase}}

    asked = request(
        PERSISTENT_VOLUME_CLAIMS,
        claim(size),
        old=claim("1Gi"),
        objects=objects,
        operation=Operation.UPDATE,
    )
    if text:
        assert text in refusal(PersistentVolumeClaimResize(), asked)
    else:
        assert admit(PersistentVolumeClaimResize(), asked)


# --- LimitRanger ---


def limited(**item: Any) -> Objects:
    objects = Objects()
    spec = {"limits": [{"type": "Container"} | item]}
    objects.put(LIMIT_RANGES, {"metadata": {"namespace": "ns", "name": "l"}, "spec": spec})
    return objects


def resources(requests: dict[str, str], limits: dict[str, str]) -> dict[str, Any]:
    container = {"name": "c", "resources": {"requests": requests, "limits": limits}}
    return pod(containers=[container])


def test_defaults_of_the_namespace_are_filled_in_and_noted() -> None:
    objects = limited(default={"cpu": "1"}, defaultRequest={"cpu": "100m", "memory": "64Mi"})
    made = admit(LimitRanger(), request(PODS, resources({"cpu": "200m"}, {}), objects=objects))
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "200m", "memory": "64Mi"},
        "limits": {"cpu": "1"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: memory request for container c; cpu limit for container c"
    )


def test_a_limit_of_the_author_is_the_request_before_the_namespaces_default() -> None:
    objects = limited(defaultRequest={"cpu": "100m", "memory": "1Mi"})
    made = admit(LimitRanger(), request(PODS, resources({}, {"cpu": "2"}), objects=objects))
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "1Mi"}


@pytest.mark.parametrize(
    ("item", "requests", "limits", "text"),
    [
        ({"min": {"cpu": "1"}}, {}, {}, "minimum cpu usage per Container is 1.  No request is sp"),
        ({"min": {"cpu": "1"}}, {"cpu": "500m"}, {}, "is 1, but request is 500m"),
        ({"max": {"cpu": "1"}}, {}, {}, "maximum cpu usage per Container is 1.  No limit is spec"),
        ({"max": {"cpu": "1"}}, {}, {"cpu": "2"}, "is 1, but limit is 2"),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"cpu": "100m"},
            {"cpu": "300m"},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
    ],
)
def test_a_container_outside_the_bounds_is_refused(
    item: dict[str, Any], requests: dict[str, str], limits: dict[str, str], text: str
) -> None:
    asked = request(PODS, resources(requests, limits), objects=limited(**item))
    assert text in refusal(LimitRanger(), asked)


def test_a_pod_is_bounded_as_a_whole() -> None:
    objects = limited(type="Pod", max={"cpu": "1"})
    half = {"name": "c", "resources": {"limits": {"cpu": "600m"}}}
    asked = request(PODS, pod(containers=[half, half]), objects=objects)
    assert "maximum cpu usage per Pod is 1, but limit is 1200m" in refusal(LimitRanger(), asked)


def test_a_claim_is_bounded_too() -> None:
    objects = limited(type="PersistentVolumeClaim", max={"storage": "1Gi"})
    spec = {"resources": {"requests": {"storage": "2Gi"}}}
    asked = request(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "c"}, "spec": spec})
    asked.reads = objects
    assert refusal(LimitRanger(), asked) == (
        'persistentvolumeclaims "c" is forbidden: maximum storage usage per '
        "PersistentVolumeClaim is 1Gi, but request is 2Gi"
    )


def test_a_pods_total_is_its_largest_moment() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}} | more

    spec = {
        "initContainers": [container("100m", restartPolicy="Always"), container("2")],
        "containers": [container("300m"), container("400m")],
    }
    assert pod_total(spec, "requests") == {"cpu": "2100m"}
    spec["initContainers"] = [container("100m", restartPolicy="Always")]
    assert pod_total(spec, "requests") == {"cpu": "800m"}
