from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.objects.kinds import Kind
from controlplane.objects.meta import clone
from controlplane.objects.validate import (
    validate_create,
    validate_ephemeral_containers,
    validate_resize,
    validate_update,
)
from controlplane.objects.validation import cron, names

CLUSTER = {"Namespace", "Node", "ClusterRole", "PersistentVolume", "StorageClass", "PriorityClass"}


def kind(name: str, group: str = "", **more: Any) -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind=name,
        plural=name.lower() + "s",
        singular=name.lower(),
        namespaced=name not in CLUSTER,
        **more,
    )


def named(**more: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    return {"metadata": metadata, **more}


def clustered(**more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web", "uid": "u", "resourceVersion": "1"}, **more}


def container(**more: Any) -> dict[str, Any]:
    return {"name": "c", "image": "nginx", "imagePullPolicy": "Always", **more}


def pod_spec(*given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "containers": list(given or [container()]),
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        **more,
    }


def errors(of: Kind, obj: Any) -> list[str]:
    return [str(error) for error in validate_create(of, obj)]


def update_errors(of: Kind, new: Any, old: Any) -> list[str]:
    return [str(error) for error in validate_update(of, new, old)]


POD = kind("Pod")


def pod_errors(spec: Any) -> list[str]:
    return errors(POD, named(spec=spec))


def test_a_plain_pod_is_valid() -> None:
    assert pod_errors(pod_spec()) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (pod_spec(containers=[]), "spec.containers: Required value"),
        (pod_spec(container(image="")), "spec.containers[0].image: Required value"),
        (
            pod_spec(container(image=" x")),
            'spec.containers[0].image: Invalid value: " x": '
            "must not have leading or trailing whitespace",
        ),
        (
            pod_spec(container(), container()),
            'spec.containers[1].name: Duplicate value: "c"',
        ),
        (
            pod_spec(container(imagePullPolicy="Sometimes")),
            'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": '
            'supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            pod_spec(restartPolicy="Perhaps"),
            'spec.restartPolicy: Unsupported value: "Perhaps": '
            'supported values: "Always", "OnFailure", "Never"',
        ),
        (
            pod_spec(container(ports=[{"containerPort": 70000, "protocol": "TCP"}])),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: "
            "must be between 1 and 65535, inclusive",
        ),
        (
            pod_spec(container(volumeMounts=[{"name": "v", "mountPath": "/v"}])),
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            pod_spec(volumes=[{"name": "v"}]),
            "spec.volumes[0]: Required value: must specify a volume type",
        ),
        (
            pod_spec(container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
            'spec.containers[0].resources.requests: Invalid value: "2": '
            "must be less than or equal to cpu limit of 1",
        ),
        (
            pod_spec(container(livenessProbe={})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod_spec(tolerations=[{"operator": "Equal"}]),
            'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when '
            '`key` is empty, which means "match all values and all keys"',
        ),
        (
            pod_spec(container(env=[{"name": "a=b", "value": ""}])),
            'spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable '
            "name must consist only of printable ASCII characters other than '='",
        ),
        (
            pod_spec(securityContext={"sysctls": [{"name": "foo-", "value": "1"}]}),
            'spec.securityContext.sysctls[0].name: Invalid value: "foo-": '
            "must have at most 253 characters and match regex "
            r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
        (
            pod_spec(dnsPolicy="None"),
            "spec.dnsConfig.nameservers: Required value: "
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            pod_spec(activeDeadlineSeconds=0),
            "spec.activeDeadlineSeconds: Invalid value: 0: "
            "must be between 1 and 2147483647, inclusive",
        ),
        (
            pod_spec(initContainers=[container(name="i", readinessProbe={"exec": {}})]),
            "spec.initContainers[0].readinessProbe: Forbidden: "
            "may not be set for init containers without restartPolicy=Always",
        ),
    ],
)
def test_a_pod_is_refused_in_the_words_of_the_api(spec: Any, expected: str) -> None:
    assert expected in pod_errors(spec)


def test_host_ports_clash_within_a_pod() -> None:
    ports = [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    two = pod_spec(container(ports=ports), container(name="d", ports=ports))
    assert pod_errors(two) == ['spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"']


def test_a_pod_may_change_its_images_and_little_else() -> None:
    old = named(spec=pod_spec(tolerations=[{"key": "a", "operator": "Exists"}]))
    new = clone(old)
    new["spec"]["containers"][0]["image"] = "nginx:2"
    new["spec"]["tolerations"].append({"key": "b", "operator": "Exists"})
    new["spec"]["activeDeadlineSeconds"] = 10
    new["metadata"]["labels"] = {"a": "b"}
    assert update_errors(POD, new, old) == []
    new["spec"]["nodeName"] = "other"
    (error,) = update_errors(POD, new, old)
    assert error.startswith("spec: Forbidden: pod updates may not change fields other than `spec.c")
    removed = clone(old)
    removed["spec"]["tolerations"] = []
    assert update_errors(POD, removed, old)


def test_a_gate_of_scheduling_may_go_but_not_come() -> None:
    old = named(spec=pod_spec(schedulingGates=[{"name": "a"}]))
    new = named(spec=pod_spec(nodeSelector={"zone": "a"}))
    assert update_errors(POD, new, old) == []
    assert update_errors(POD, old, new)


def test_ephemeral_containers_are_added_but_never_changed() -> None:
    old = named(spec=pod_spec())
    new = clone(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox"}]
    assert validate_ephemeral_containers(POD, new, old) == []
    assert [e.field for e in validate_ephemeral_containers(POD, old, new)] == [
        "spec.ephemeralContainers"
    ]


def workload(**more: Any) -> dict[str, Any]:
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()},
        **more,
    }
    return named(spec=spec)


ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
DEPLOYMENT = kind("Deployment", "apps")


def test_a_deployment_selects_its_own_template() -> None:
    good = workload(strategy=ROLLING)
    assert errors(DEPLOYMENT, good) == []
    bad = workload(strategy=ROLLING, selector={"matchLabels": {"app": "other"}})
    assert errors(DEPLOYMENT, bad) == [
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: '
        "`selector` does not match template `labels`"
    ]
    assert "spec.selector: Required value" in errors(DEPLOYMENT, workload(selector=None))


def test_a_selector_never_changes() -> None:
    old, new = workload(strategy=ROLLING), workload(strategy=ROLLING)
    new["spec"]["selector"] = {"matchLabels": {"app": "web", "x": "y"}}
    new["spec"]["template"]["metadata"]["labels"]["x"] = "y"
    assert update_errors(DEPLOYMENT, new, old) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"web","x":"y"}}: field is immutable'
    ]


def test_a_rollout_must_be_able_to_move() -> None:
    stuck = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}
    assert errors(DEPLOYMENT, workload(strategy=stuck)) == [
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: "
        "may not be 0 when `maxSurge` is 0"
    ]


def test_a_stateful_set_mounts_its_claims_and_keeps_its_spec() -> None:
    sets = kind("StatefulSet", "apps")
    mounted = container(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    old = workload(
        template={"metadata": {"labels": {"app": "web"}}, "spec": pod_spec(mounted)},
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}],
        podManagementPolicy="OrderedReady",
        updateStrategy={"type": "RollingUpdate"},
        serviceName="web",
    )
    assert errors(sets, old) == []
    new = clone(old)
    new["spec"]["serviceName"] = "other"
    (error,) = update_errors(sets, new, old)
    assert error.startswith("spec: Forbidden: updates to statefulset spec for fields other than")


def test_a_job_does_not_restart_forever() -> None:
    job = kind("Job", "batch")
    assert (
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
        in (errors(job, workload()))
    )
    good = workload()
    good["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    assert errors(job, good) == []
    changed = clone(good)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "x"
    (error,) = update_errors(job, changed, good)
    assert error.startswith("spec.template: Invalid value: ")
    assert error.endswith(": field is immutable")


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("x * * * *", "failed to parse int from x"),
        ("@never", "unrecognized descriptor: @never"),
    ],
)
def test_a_schedule_is_checked(schedule: str, text: str) -> None:
    spec = {
        "schedule": schedule,
        "concurrencyPolicy": "Allow",
        "jobTemplate": {"spec": {"template": {"spec": pod_spec(restartPolicy="Never")}}},
    }
    (error,) = errors(kind("CronJob", "batch"), named(spec=spec))
    assert error.startswith(f'spec.schedule: Invalid value: "{schedule}": ')
    assert text in error


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/15 * * * *", (2026, 1, 1, 0, 1), (2026, 1, 1, 0, 15)),
        ("0 0 29 2 *", (2026, 1, 1, 0, 0), (2028, 2, 29, 0, 0)),
        ("30 4 1,15 * fri", (2026, 1, 2, 5, 0), (2026, 1, 9, 4, 30)),
        ("0 0 * * 0", (2026, 1, 1, 0, 0), (2026, 1, 4, 0, 0)),
        ("@hourly", (2026, 1, 1, 23, 30), (2026, 1, 2, 0, 0)),
        ("0 12 * dec mon-fri", (2026, 1, 1, 0, 0), (2026, 12, 1, 12, 0)),
    ],
)
def test_a_schedule_knows_its_next_time(
    schedule: str, after: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    time = datetime(*after, tzinfo=UTC)  # type: ignore[misc,arg-type]
    assert cron.parse(schedule).next_after(time) == datetime(*expected, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_a_day_that_never_comes_has_no_next_time() -> None:
    assert cron.parse("0 0 31 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


SERVICE = kind("Service")


def service(**more: Any) -> dict[str, Any]:
    spec = {
        "type": "ClusterIP",
        "clusterIP": "10.43.0.9",
        "clusterIPs": ["10.43.0.9"],
        "sessionAffinity": "None",
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
        **more,
    }
    return named(spec=spec)


def test_services_need_ports_and_names_for_several() -> None:
    assert errors(SERVICE, service()) == []
    assert errors(SERVICE, service(ports=[])) == ["spec.ports: Required value"]
    two = [{"port": p, "targetPort": p, "protocol": "TCP"} for p in (80, 81)]
    assert errors(SERVICE, service(ports=two)) == [
        "spec.ports[0].name: Required value",
        "spec.ports[1].name: Required value",
    ]


def test_a_service_keeps_its_address() -> None:
    new = service(clusterIP="10.43.0.10", clusterIPs=["10.43.0.10"])
    assert 'spec.clusterIP: Invalid value: "10.43.0.10": field is immutable' in update_errors(
        SERVICE, new, service()
    )
    outside = service(type="ExternalName", clusterIP="", clusterIPs=[], externalName="example.com")
    assert update_errors(SERVICE, outside, service()) == []


def test_metadata_is_checked_for_every_kind() -> None:
    bad = {
        "metadata": {
            "name": "Bad_Name",
            "namespace": "default",
            "labels": {"a b": "c d"},
            "finalizers": ["short"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": ""}],
        }
    }
    found = errors(kind("ConfigMap"), bad)
    assert [error.split(":")[0] for error in found] == [
        "metadata.name",
        "metadata.labels",
        "metadata.labels",
        "metadata.ownerReferences.uid",
        "metadata.finalizers",
    ]
    assert found[0] == (
        'metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of '
        "lower case alphanumeric characters, '-' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'example.com', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )


def test_what_identifies_an_object_never_changes() -> None:
    old, new = named(), named()
    new["metadata"]["uid"] = "other"
    del new["metadata"]["resourceVersion"]
    assert update_errors(kind("ServiceAccount"), new, old) == [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update',
        'metadata.uid: Invalid value: "other": field is immutable',
    ]


def test_a_deleted_object_gets_no_new_finalizers() -> None:
    old, new = named(), named()
    old["metadata"]["deletionTimestamp"] = new["metadata"]["deletionTimestamp"] = "x"
    new["metadata"]["finalizers"] = ["a/b"]
    (error,) = update_errors(kind("ServiceAccount"), new, old)
    assert error.startswith("metadata.finalizers: Forbidden: no new finalizers can be added if")


def test_immutable_data_stays() -> None:
    for name, field in (("ConfigMap", "data"), ("Secret", "data")):
        old = named(immutable=True, data={"a": "YQ=="}, type="Opaque")
        new = named(data={"a": "Yg=="}, type="Opaque")
        assert update_errors(kind(name), new, old) == [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            f"{field}: Forbidden: field is immutable when `immutable` is set",
        ]


def test_typed_secrets_have_their_keys() -> None:
    assert errors(kind("Secret"), named(type="kubernetes.io/tls", data={"tls.crt": ""})) == [
        "data[tls.key]: Required value"
    ]
    assert errors(kind("Secret"), named(type="Opaque", data={"a/b": ""}))


def test_a_config_map_is_at_most_a_mebibyte() -> None:
    assert errors(kind("ConfigMap"), named(data={"a": "x" * (1024 * 1024 + 1)})) == [
        "Too long: may not be more than 1048576 bytes"
    ]


def test_a_claim_only_grows_beyond_what_it_has() -> None:
    claims = kind("PersistentVolumeClaim")

    def claim(size: str) -> dict[str, Any]:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "volumeName": "v",
        }
        return named(spec=spec, status={"phase": "Bound", "capacity": {"storage": "1Gi"}})

    assert update_errors(claims, claim("2Gi"), claim("1Gi")) == []
    assert update_errors(claims, claim("2Gi"), claim("9Ti")) == [], "a growth that failed"
    assert update_errors(claims, claim("1Gi"), claim("2Gi")) == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]
    other = claim("1Gi")
    other["spec"]["volumeName"] = "w"
    assert (
        "spec: Forbidden: spec is immutable after creation except"
        in update_errors(claims, other, claim("1Gi"))[0]
    )


def test_a_volume_of_a_node_stays_below_its_path() -> None:
    def volume(path: str, source: str) -> dict[str, Any]:
        where = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            source: {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}},
        }
        return {"metadata": {"name": "v"}, "spec": spec}

    for source in ("local", "hostPath"):
        assert errors(kind("PersistentVolume"), volume("/srv/a..b", source)) == []
        (error,) = errors(kind("PersistentVolume"), volume("/srv/../etc", source))
        assert error.startswith(f"spec.{source}.path: Invalid value:")
        assert error.endswith("must not contain '..'")


def test_a_binding_keeps_its_role() -> None:
    bindings = kind("RoleBinding", "rbac.authorization.k8s.io")
    group = "rbac.authorization.k8s.io"
    old = named(roleRef={"apiGroup": group, "kind": "Role", "name": "a"})
    new = named(roleRef={"apiGroup": group, "kind": "Role", "name": "b"})
    (error,) = update_errors(bindings, new, old)
    assert error.endswith("cannot change roleRef")


def test_network_policies_have_peers_and_blocks() -> None:
    policies = kind("NetworkPolicy", "networking.k8s.io")
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}
    spec = {"podSelector": {}, "ingress": [{"from": [{}, {"ipBlock": block}]}]}
    assert errors(policies, named(spec=spec)) == [
        "spec.ingress[0].from[0]: Required value: must specify a peer",
        'spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "11.0.0.0/16": '
        "must be a strict subset of `cidr`",
    ]


def test_an_ingress_needs_path_types_and_backends() -> None:
    ingresses = kind("Ingress", "networking.k8s.io")
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web"}}}
    spec = {"rules": [{"host": "example.com", "http": {"paths": [path]}}]}
    assert errors(ingresses, named(spec=spec)) == [
        "spec.rules[0].http.paths[0].backend: Required value: port name or number is required"
    ]
    path["backend"] = {"service": {"name": "web", "port": {"number": 80}}}
    assert errors(ingresses, named(spec=spec)) == []


def test_cluster_kinds_are_checked() -> None:
    assert errors(kind("PriorityClass", "scheduling.k8s.io"), clustered(value=2**31 - 1)) == [
        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
    ]
    assert errors(kind("Namespace"), {"metadata": {"name": "a.b"}}) == [
        'metadata.name: Invalid value: "a.b": must not contain dots'
    ]
    taints = [{"key": "k", "effect": "NoSchedule"}] * 2
    (error,) = errors(kind("Node"), clustered(spec={"taints": taints}))
    assert error.startswith("spec.taints[1]: Duplicate value")


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (names.dns1123_label, "a-1", "a."),
        (names.dns1123_subdomain, "a.b-c", "A"),
        (names.dns1035_label, "a1", "1a"),
        (names.qualified_name, "example.com/a_B.c", "a/b/c"),
        (names.label_value, "", "-"),
        (names.port_name, "http-2", "2-"),
        (names.config_key, "a_b.C", "a/b"),
        (names.wildcard_subdomain, "*.example.com", "*"),
        (names.c_identifier, "_a", "1"),
    ],
)
def test_forms_of_names(form: names.Form, good: str, bad: str) -> None:
    assert form(good) == []
    assert form(bad)


def test_a_pod_is_resized_within_its_class() -> None:
    def sized(cpu: str, **more: Any) -> dict[str, Any]:
        return named(spec=pod_spec(container(resources={"requests": {"cpu": cpu}}, **more)))

    assert validate_resize(POD, sized("2"), sized("1")) == []
    other = validate_resize(POD, sized("2", image="x"), sized("1"))
    assert [str(e) for e in other] == ["spec: Forbidden: only cpu and memory resources are mutable"]
    (error,) = validate_resize(POD, named(spec=pod_spec()), sized("1"))
    assert error.message.endswith("Pod QOS Class may not change as a result of resizing")


def test_webhooks_say_what_they_are_called_for() -> None:
    hooks = kind("ValidatingWebhookConfiguration", "admissionregistration.k8s.io")
    good = {
        "name": "a.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [
            {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        ],
    }
    assert errors(hooks, named(webhooks=[good])) == []
    bad = {"name": "a.b", "clientConfig": {}, "timeoutSeconds": 60}
    assert [error.split(":")[0] for error in errors(hooks, named(webhooks=[bad]))] == [
        "webhooks[0].name",
        "webhooks[0].admissionReviewVersions",
        "webhooks[0].sideEffects",
        "webhooks[0].timeoutSeconds",
        "webhooks[0].clientConfig",
    ]


def test_an_aggregated_api_is_called_what_it_serves() -> None:
    services = kind("APIService", "apiregistration.k8s.io")
    obj = named(spec={"group": "a.com", "version": "v1", "groupPriorityMinimum": 1})
    assert errors(services, obj) == [
        'metadata.name: Invalid value: "web": must be `spec.version+"."+spec.group`: "v1.a.com"',
        "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
    ]
