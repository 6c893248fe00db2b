import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.objects import facts, walk
from controlplane.objects.convert import convert
from controlplane.objects.defaults import apply_defaults
from controlplane.objects.kinds import Kind, Kinds

# Our inputs, and what the conversions of Kubernetes v1.36.3 make of them, without nulls.
CASES: list[dict[str, Any]] = orjson.loads(
    (Path(__file__).parent / "conversions.json").read_bytes()
)
KINDS = Kinds(facts.builtin_kinds())


def kind(api_version: str, name: str) -> Kind:
    found = KINDS.by_kind(api_version, name)
    assert found is not None
    return found


CORE_EVENT = kind("v1", "Event")
EVENT = kind("events.k8s.io/v1", "Event")
V1 = kind("autoscaling/v1", "HorizontalPodAutoscaler")
V2 = kind("autoscaling/v2", "HorizontalPodAutoscaler")


def _parsed(obj: dict[str, Any]) -> dict[str, Any]:
    """With the annotations that hold JSON as what they hold: the order of keys is free."""
    copy: dict[str, Any] = orjson.loads(orjson.dumps(obj))
    annotations = copy["metadata"].get("annotations", {})
    for name, text in annotations.items():
        with contextlib.suppress(ValueError):
            annotations[name] = orjson.loads(text)
    return copy


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['input']['kind']}-{case['to']}")
def test_objects_are_converted_as_upstream_does(case: dict[str, Any]) -> None:
    obj = case["input"]
    source = kind(obj["apiVersion"], obj["kind"])
    decoded, _ = walk.decode(obj, facts.schema_of(source), strict=True)
    apply_defaults(source, decoded)
    converted = convert(decoded, source, kind(case["to"], obj["kind"]))
    assert _parsed(converted) == _parsed(case["output"])


def test_events_change_names_there_and_back() -> None:
    core = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "web"},
        "reason": "Started",
        "message": "it runs",
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:05Z",
        "count": 2,
        "type": "Normal",
        "reportingComponent": "kubelet",
        "reportingInstance": "node-1",
    }
    event = convert(core, CORE_EVENT, EVENT)
    assert event["apiVersion"] == "events.k8s.io/v1"
    assert event["regarding"] == {"kind": "Pod", "name": "web"}
    assert event["note"] == "it runs"
    assert event["deprecatedCount"] == 2
    assert event["reportingController"] == "kubelet"
    assert "message" not in event
    assert convert(event, EVENT, CORE_EVENT) == core


def autoscaler(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"mine": "1"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 5,
            **spec,
        },
        "status": {"desiredReplicas": 0, "currentMetrics": []},
    }


CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
}
PODS = {
    "type": "Pods",
    "pods": {
        "metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
        "target": {"type": "AverageValue", "averageValue": "10"},
    },
}
OBJECT = {
    "type": "Object",
    "object": {
        "describedObject": {"kind": "Service", "name": "web", "apiVersion": "v1"},
        "metric": {"name": "hits"},
        "target": {"type": "AverageValue", "averageValue": "3"},
    },
}
EXTERNAL = {
    "type": "External",
    "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "30"}},
}
BEHAVIOR = {
    "scaleDown": {
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }
}


def test_the_cpu_percentage_is_a_field_of_v1() -> None:
    old = convert(autoscaler(metrics=[CPU]), V2, V1)
    assert old["apiVersion"] == "autoscaling/v1"
    assert old["spec"]["targetCPUUtilizationPercentage"] == 60
    assert old["metadata"]["annotations"] == {"mine": "1"}


def test_other_metrics_and_behavior_survive_v1_in_annotations() -> None:
    new = autoscaler(metrics=[PODS, OBJECT, EXTERNAL, CPU], behavior=BEHAVIOR)
    old = convert(new, V2, V1)
    assert old["metadata"]["annotations"].keys() == {
        "mine",
        "autoscaling.alpha.kubernetes.io/metrics",
        "autoscaling.alpha.kubernetes.io/behavior",
    }
    back = convert(old, V1, V2)
    assert back["spec"] == new["spec"]
    assert back["metadata"] == new["metadata"]


def test_status_survives_v1() -> None:
    new = autoscaler(metrics=[CPU])
    new["status"] = {
        "desiredReplicas": 2,
        "currentMetrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "current": {"averageUtilization": 50, "averageValue": "100m"},
                },
            }
        ],
        "conditions": [
            {"type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
        ],
    }
    old = convert(new, V2, V1)
    assert old["status"]["currentCPUUtilizationPercentage"] == 50
    assert convert(old, V1, V2)["status"] == new["status"]


def test_v1_without_a_percentage_means_eighty() -> None:
    old = {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}}}
    [metric] = convert(old, V1, V2)["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


def test_broken_annotations_are_dropped() -> None:
    old = {
        "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "{no"}},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 10},
    }
    new = convert(old, V1, V2)
    assert "annotations" not in new["metadata"]
    assert len(new["spec"]["metrics"]) == 1


def test_custom_resources_change_their_version_only() -> None:
    def version(name: str) -> Kind:
        return Kind(
            group="example.com",
            version=name,
            kind="Gadget",
            plural="gadgets",
            singular="gadget",
            namespaced=True,
            custom=True,
        )

    obj = {"apiVersion": "example.com/v1", "kind": "Gadget", "spec": {"a": None}}
    assert convert(obj, version("v1"), version("v2")) == {
        **obj,
        "apiVersion": "example.com/v2",
    }
