"""Defaults of apps, batch and autoscaling. Source: the fields' documentation."""

from typing import Any

from controlplane.objects.defaults_core import persistent_volume_claim
from controlplane.objects.defaults_pods import Dict, dig, fill, pod_spec, template

_ROLLING = "RollingUpdate"
_NO_LIMIT = 2**31 - 1
_SCALE_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": (
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ),
}
_SCALE_DOWN = {
    "selectPolicy": "Max",
    "policies": ({"type": "Percent", "value": 100, "periodSeconds": 15},),
}
DEFAULT_CPU_UTILIZATION = 80


def deployment(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600})
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", _ROLLING)
    if strategy["type"] == _ROLLING:
        fill(
            strategy.setdefault("rollingUpdate", {}),
            {"maxUnavailable": "25%", "maxSurge": "25%"},
        )
    template(obj)


def daemon_set(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", _ROLLING)
    if strategy["type"] == _ROLLING:
        fill(strategy.setdefault("rollingUpdate", {}), {"maxUnavailable": 1, "maxSurge": 0})
    template(obj)


def stateful_set(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    fill(
        spec,
        {"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"},
    )
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = _ROLLING
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == _ROLLING and "rollingUpdate" in strategy:
        strategy["rollingUpdate"].setdefault("partition", 0)
    fill(
        spec.setdefault("persistentVolumeClaimRetentionPolicy", {}),
        {"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    template(obj)
    for claim in spec.get("volumeClaimTemplates", ()):
        persistent_volume_claim(claim)
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")


def replica_set(obj: Dict) -> None:
    obj.setdefault("spec", {}).setdefault("replicas", 1)
    template(obj)


def job(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    if "parallelism" not in spec:
        spec.setdefault("completions", 1)
        spec["parallelism"] = 1
    per_index = "backoffLimitPerIndex" in spec
    replacement = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    fill(
        spec,
        {
            "backoffLimit": _NO_LIMIT if per_index else 6,
            "completionMode": "NonIndexed",
            "suspend": False,
            "podReplacementPolicy": replacement,
            "manualSelector": False,
        },
    )
    labels = dig(spec, "template", "metadata", "labels")
    if labels:
        obj.setdefault("metadata", {}).setdefault("labels", dict(labels))
    _job_spec(spec)


def _job_spec(spec: Dict) -> None:
    for rule in dig(spec, "podFailurePolicy").get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            if not pattern.get("status"):
                pattern["status"] = "True"
    if "template" in spec:
        pod_spec(spec["template"].setdefault("spec", {}))


def cron_job(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    fill(
        spec,
        {
            "concurrencyPolicy": "Allow",
            "suspend": False,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
        },
    )
    _job_spec(dig(spec, "jobTemplate", "spec"))


def autoscaler_v1(obj: Dict) -> None:
    obj.setdefault("spec", {}).setdefault("minReplicas", 1)


def autoscaler(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        spec["metrics"] = [cpu_metric(DEFAULT_CPU_UTILIZATION)]
    behavior = spec.get("behavior")
    if behavior is not None:
        for name, rules in (("scaleUp", _SCALE_UP), ("scaleDown", _SCALE_DOWN)):
            fill(behavior.setdefault(name, {}), _copy(rules))


def _copy(rules: dict[str, Any]) -> Dict:
    return {**rules, "policies": [dict(policy) for policy in rules["policies"]]}


def cpu_metric(percent: int) -> Dict:
    """What autoscaling/v1 says with ``targetCPUUtilizationPercentage``."""
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}
