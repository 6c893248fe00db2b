from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.objects import facts, walk
from controlplane.objects.defaults import apply_body_defaults, apply_defaults
from controlplane.objects.defaults_pods import pull_policy
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind, Kinds

# Our inputs, and what the decoder, the defaults and the conversions of Kubernetes v1.36.3 make
# of them; nulls are left out. DaemonSets are not among them: upstream annotates those.
CASES: list[dict[str, Any]] = orjson.loads((Path(__file__).parent / "upstream.json").read_bytes())
KINDS = Kinds(facts.builtin_kinds())


def defaulted(api_version: str, name: str, **obj: Any) -> dict[str, Any]:
    kind = KINDS.by_kind(api_version, name)
    assert kind is not None
    out, _ = walk.decode(obj, facts.schema_of(kind), strict=True)
    apply_defaults(kind, out)
    return out


def pod_spec(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = defaulted("v1", "Pod", spec=spec)["spec"]
    return found


def container(**fields: Any) -> dict[str, Any]:
    [found] = pod_spec(containers=[{"name": "a", "image": "nginx:1", **fields}])["containers"]
    assert isinstance(found, dict)
    return found


def _name(case: dict[str, Any]) -> str:
    return f"{case['input']['apiVersion']}/{case['input']['kind']}"


@pytest.mark.parametrize("case", [case for case in CASES if "output" in case], ids=_name)
def test_objects_are_decoded_and_defaulted_as_upstream_does(case: dict[str, Any]) -> None:
    obj = case["input"]
    schema = facts.schema_of_body(obj["apiVersion"], obj["kind"])
    assert schema is not None
    out, _ = walk.decode(obj, schema, strict=True)
    apply_body_defaults(obj["apiVersion"], obj["kind"], out)
    assert out == case["output"]


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case], ids=_name)
def test_bad_objects_are_refused_in_the_words_of_upstream(case: dict[str, Any]) -> None:
    obj = case["input"]
    schema = facts.schema_of_body(obj["apiVersion"], obj["kind"])
    assert schema is not None
    with pytest.raises(StatusError) as caught:
        walk.decode(obj, schema, strict=True)
    assert str(caught.value).partition(f"handled as a {obj['kind']}: ")[2] == case["error"]


def test_bare_pods_get_what_upstream_gives_them() -> None:
    spec = pod_spec(containers=[{"name": "a", "image": "nginx"}])
    assert spec == {
        "containers": [
            {
                "name": "a",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/a/nginx", "Always"),
        ("registry:5000/a/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "0" * 64, "Always"),
        ("", "IfNotPresent"),
        ("Not An Image", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_probes_ports_and_references_are_filled_in() -> None:
    found = container(
        ports=[{"containerPort": 80}],
        livenessProbe={"httpGet": {"port": 80}},
        startupProbe={"grpc": {"port": 1}, "periodSeconds": 3},
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        lifecycle={"preStop": {"httpGet": {"port": 80}}},
    )
    assert found["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert found["livenessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert found["startupProbe"]["grpc"] == {"port": 1, "service": ""}
    assert found["startupProbe"]["periodSeconds"] == 3
    assert found["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert found["lifecycle"]["preStop"]["httpGet"]["scheme"] == "HTTP"


def test_limits_become_requests_in_pods_but_not_in_templates() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}
    assert container(resources=resources)["resources"]["requests"] == {
        "cpu": "100m",
        "memory": "1Gi",
    }
    template = {"spec": {"containers": [{"name": "a", "resources": resources}]}}
    made = defaulted("apps/v1", "Deployment", spec={"template": template})
    [found] = made["spec"]["template"]["spec"]["containers"]
    assert found["resources"] == resources
    assert "enableServiceLinks" not in made["spec"]["template"]["spec"]


def test_requests_are_rounded_up_to_a_thousandth() -> None:
    found = container(resources={"requests": {"cpu": "100u", "memory": "1"}})
    assert found["resources"]["requests"] == {"cpu": "1m", "memory": "1"}


def test_pod_level_requests_are_those_of_the_containers_together() -> None:
    spec = pod_spec(
        resources={"limits": {"cpu": "2", "memory": "1Gi"}},
        initContainers=[
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "500m"}}},
        ],
        containers=[{"name": "a", "resources": {"requests": {"cpu": "200m"}}}],
    )
    assert spec["resources"]["requests"] == {"cpu": "600m", "memory": "1Gi"}


def test_pods_on_the_host_network_use_their_own_ports() -> None:
    spec = pod_spec(hostNetwork=True, containers=[{"name": "a", "ports": [{"containerPort": 80}]}])
    assert spec["containers"][0]["ports"][0]["hostPort"] == 80


def test_volumes_get_modes_and_sources() -> None:
    volumes = pod_spec(
        volumes=[
            {"name": "none"},
            {"name": "host", "hostPath": {"path": "/a"}},
            {"name": "cm", "configMap": {"name": "a"}},
            {
                "name": "all",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "t"}},
                        {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "x"}}]}},
                    ]
                },
            },
            {"name": "claim", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "image", "image": {"reference": "a:1"}},
        ]
    )["volumes"]
    assert volumes[0] == {"name": "none", "emptyDir": {}}
    assert volumes[1]["hostPath"] == {"path": "/a", "type": ""}
    assert volumes[2]["configMap"]["defaultMode"] == 420
    projected = volumes[3]["projected"]
    assert projected["defaultMode"] == 420
    assert projected["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    [item] = projected["sources"][1]["downwardAPI"]["items"]
    assert item["fieldRef"]["apiVersion"] == "v1"
    claim = volumes[4]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["volumeMode"] == "Filesystem"
    assert volumes[5]["image"]["pullPolicy"] == "IfNotPresent"


def test_both_names_of_the_service_account_are_written() -> None:
    assert pod_spec(serviceAccount="a")["serviceAccountName"] == "a"
    assert pod_spec(serviceAccountName="a")["serviceAccount"] == "a"


def test_services_get_policies_by_their_type() -> None:
    spec = defaulted("v1", "Service", spec={"ports": [{"port": 80}]})["spec"]
    assert spec == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }
    balanced = defaulted(
        "v1", "Service", spec={"type": "LoadBalancer", "sessionAffinity": "ClientIP"}
    )["spec"]
    assert balanced["externalTrafficPolicy"] == "Cluster"
    assert balanced["allocateLoadBalancerNodePorts"] is True
    assert balanced["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    external = defaulted("v1", "Service", spec={"type": "ExternalName", "externalName": "a"})
    assert "internalTrafficPolicy" not in external["spec"]


def test_plain_secrets_are_encoded_and_opaque() -> None:
    made = defaulted("v1", "Secret", data={"a": "YQ=="}, stringData={"a": "b", "c": "ü"})
    assert made["type"] == "Opaque"
    assert made["data"] == {"a": "Yg==", "c": "w7w="}
    assert "stringData" not in made


def test_namespaces_carry_their_name() -> None:
    made = defaulted("v1", "Namespace", metadata={"name": "a"})
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    assert made["status"]["phase"] == "Active"
    assert "labels" not in defaulted("v1", "Namespace", metadata={"generateName": "a"})["metadata"]


def test_workloads_get_their_strategies() -> None:
    deployment = defaulted("apps/v1", "Deployment")["spec"]
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert (deployment["replicas"], deployment["progressDeadlineSeconds"]) == (1, 600)
    recreated = defaulted("apps/v1", "Deployment", spec={"strategy": {"type": "Recreate"}})
    assert recreated["spec"]["strategy"] == {"type": "Recreate"}
    daemons = defaulted("apps/v1", "DaemonSet")["spec"]["updateStrategy"]
    assert daemons["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    stateful = defaulted("apps/v1", "StatefulSet", spec={"volumeClaimTemplates": [{}]})["spec"]
    assert stateful["updateStrategy"]["rollingUpdate"] == {"partition": 0}
    assert stateful["podManagementPolicy"] == "OrderedReady"
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    [claim] = stateful["volumeClaimTemplates"]
    assert (claim["kind"], claim["status"]) == ("PersistentVolumeClaim", {"phase": "Pending"})


def test_jobs_run_once_unless_told_otherwise() -> None:
    labels = {"metadata": {"labels": {"a": "b"}}}
    job = defaulted("batch/v1", "Job", spec={"template": labels})
    assert job["metadata"]["labels"] == {"a": "b"}
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    indexed = defaulted("batch/v1", "Job", spec={"backoffLimitPerIndex": 1, "parallelism": 2})
    assert indexed["spec"]["backoffLimit"] == 2**31 - 1
    assert "completions" not in indexed["spec"]
    cron = defaulted("batch/v1", "CronJob", spec={"schedule": "* * * * *"})["spec"]
    assert (cron["concurrencyPolicy"], cron["successfulJobsHistoryLimit"]) == ("Allow", 3)


def test_autoscalers_aim_at_eighty_percent() -> None:
    spec = defaulted(
        "autoscaling/v2", "HorizontalPodAutoscaler", spec={"behavior": {"scaleUp": {}}}
    )["spec"]
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    assert spec["behavior"]["scaleUp"]["policies"][0]["value"] == 4
    assert spec["behavior"]["scaleDown"]["selectPolicy"] == "Max"
    assert "stabilizationWindowSeconds" not in spec["behavior"]["scaleDown"]


def test_claims_and_volumes_wait_for_each_other() -> None:
    claim = defaulted("v1", "PersistentVolumeClaim")
    assert (claim["spec"]["volumeMode"], claim["status"]["phase"]) == ("Filesystem", "Pending")
    volume = defaulted("v1", "PersistentVolume", spec={"hostPath": {"path": "/a"}})
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["hostPath"]["type"] == ""
    assert defaulted("storage.k8s.io/v1", "StorageClass")["volumeBindingMode"] == "Immediate"


def test_policies_say_which_directions_they_mean() -> None:
    ingress = defaulted("networking.k8s.io/v1", "NetworkPolicy")["spec"]
    assert ingress == {"podSelector": {}, "policyTypes": ["Ingress"]}
    egress = {"egress": [{"ports": [{"port": 53}]}]}
    both = defaulted("networking.k8s.io/v1", "NetworkPolicy", spec=egress)["spec"]
    assert both["policyTypes"] == ["Ingress", "Egress"]
    assert both["egress"][0]["ports"][0]["protocol"] == "TCP"


def test_bindings_name_the_group_of_roles_and_subjects() -> None:
    subjects = [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]
    made = defaulted("rbac.authorization.k8s.io/v1", "RoleBinding", subjects=subjects)
    assert made["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
    assert made["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    assert "apiGroup" not in made["subjects"][1]


def test_webhooks_fail_closed_and_match_equivalents() -> None:
    webhook = {
        "name": "a",
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["CREATE"]}],
    }
    made = defaulted(
        "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", webhooks=[webhook]
    )
    [found] = made["webhooks"]
    assert (found["failurePolicy"], found["timeoutSeconds"]) == ("Fail", 10)
    assert (found["matchPolicy"], found["reinvocationPolicy"]) == ("Equivalent", "Never")
    assert found["namespaceSelector"] == found["objectSelector"] == {}
    assert found["clientConfig"]["service"]["port"] == 443
    assert found["rules"][0]["scope"] == "*"


def test_definitions_are_named_after_their_kind() -> None:
    spec = {"names": {"kind": "Gadget", "plural": "gadgets"}}
    versions = [{"name": "v1", "storage": False}, {"name": "v2", "storage": True}]
    made = defaulted(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", spec={**spec, "versions": versions}
    )
    assert made["spec"]["names"]["singular"] == "gadget"
    assert made["spec"]["names"]["listKind"] == "GadgetList"
    assert made["spec"]["conversion"] == {"strategy": "None"}
    assert made["status"]["storedVersions"] == ["v2"]


def test_limits_of_containers_fill_each_other() -> None:
    limits = [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]
    [item] = defaulted("v1", "LimitRange", spec={"limits": limits})["spec"]["limits"]
    assert item["default"] == {"cpu": "2"}
    assert item["defaultRequest"] == {"cpu": "2", "memory": "1Mi"}


@pytest.mark.parametrize(
    "kind", facts.builtin_kinds(), ids=lambda kind: f"{kind.api_version}/{kind.kind}"
)
def test_defaulting_twice_is_defaulting_once_and_yields_what_decodes(kind: Kind) -> None:
    once, _ = walk.decode({}, facts.schema_of(kind), strict=True)
    apply_defaults(kind, once)
    twice, warnings = walk.decode(once, facts.schema_of(kind), strict=True)
    assert warnings == []
    apply_defaults(kind, twice)
    assert twice == once


def test_token_requests_last_an_hour() -> None:
    body: dict[str, Any] = {"spec": {}}
    apply_body_defaults("authentication.k8s.io/v1", "TokenRequest", body)
    assert body["spec"]["expirationSeconds"] == 3600
