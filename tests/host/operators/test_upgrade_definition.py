"""The definition of UpgradePlan, on Pinnace's API server and on upstream's."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from operators.upgrade.spec import PATH, wanted_of
from tests.fakes.operators_cluster import ROOT, Cluster, condition, new_cluster
from tests.upstream.cluster import needs_upstream, upstream

pytestmark = pytest.mark.root
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "upgradeplans.upgrade.pinnace.dev"
STRICT = "?fieldValidation=Strict"
EXAMPLE = ROOT / "examples" / "upgradeplan.yaml"
KEEP = {"matchExpressions": [{"key": "keep", "operator": "DoesNotExist"}]}
CHECKS: list[dict[str, Any]] = [
    {"name": "tcp", "tcp": {"host": "$(NODE_IP)", "port": 22}, "timeoutSeconds": 3},
    {
        "name": "http",
        "http": {
            "url": "https://web",
            "expectedStatus": [200, "300-399"],
            "headers": {"Host": "a"},
            "insecureSkipVerify": True,
            "bodyContains": "ok",
        },
    },
    {"name": "exec", "exec": {"namespace": "a", "podSelector": {}, "command": ["true"]}},
    {
        "name": "cel",
        "cel": {
            "apiVersion": "v1",
            "kind": "Node",
            "selector": {},
            "expression": "has(object.spec)",
        },
    },
    {"name": "pods", "pods": {"namespace": "a", "selector": {"matchLabels": {"a": "b"}}}},
]
EVERYTHING: dict[str, Any] = {
    "version": "v1.36.4+pinnace1",
    "source": "https://there/pinnace",
    "channelKey": "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
    "channelIntervalMinutes": 60,
    "nodeSelector": KEEP,
    "concurrency": "20%",
    "exclusive": True,
    "order": {"stages": [{"matchLabels": {"zone": "a"}}, KEEP]},
    "window": {"days": ["mo", "Tuesday", "0"], "startTime": "22:00", "endTime": "5am"},
    "windows": [
        {"days": ["fr"], "startTime": "1:00", "endTime": "2:00:30", "timeZone": "Europe/Berlin"}
    ],
    "cordon": False,
    "drain": {
        "enabled": True,
        "timeoutSeconds": 600,
        "gracePeriodSeconds": -1,
        "force": True,
        "deleteEmptyDirData": True,
        "ignoreDaemonSets": True,
        "disableEviction": True,
        "skipWaitForDeleteTimeout": 60,
        "podSelector": KEEP,
    },
    "healthChecks": CHECKS,
    "soakSeconds": 0,
    "trialDeadlineSeconds": 600,
    "failurePolicy": "Continue",
    "canaries": [
        {"name": "a", "nodeSelector": KEEP, "soakSeconds": 60},
        {"name": "b", "count": 2, "soakSeconds": 0},
        {"name": "c", "percent": 10, "soakSeconds": 0},
    ],
    "retryFailed": True,
    "notReadyNodes": "Skip",
    "postComplete": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "delaySeconds": 10},
    "suspend": True,
    "jobTemplate": {
        "image": "rancher/k3s-upgrade",
        "command": ["a"],
        "args": ["b"],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "envFrom": [{"configMapRef": {"name": "a"}}],
        "volumes": [{"name": "a", "source": "/etc", "destination": "/x"}],
        "securityContext": {"privileged": True},
        "prepare": {"image": "busybox:1", "args": ["true"]},
        "secrets": [{"name": "s", "path": "/run/s"}],
        "serviceAccountName": "a",
        "imagePullSecrets": [{"name": "p"}],
        "priorityClassName": "c",
        "tolerations": [{"operator": "Exists"}],
        "backoffLimit": 1,
        "activeDeadlineSeconds": 0,
        "ttlSecondsAfterFinished": 60,
    },
}


@pytest.fixture(
    scope="module",
    params=["pinnace", pytest.param("upstream", marks=needs_upstream("etcd", "kube-apiserver"))],
)
def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(str(request.param))
    if request.param == "pinnace":
        with new_cluster(folder) as cluster:
            cluster.until(DEFINITIONS, NAME, is_served)
            yield cluster
        return
    with upstream(folder) as there:
        path = ROOT / "controlplane" / "deploy" / "crds" / "upgradeplans.yaml"
        there.create(f"{DEFINITIONS}{STRICT}", yaml.safe_load(path.read_text()))
        there.until(DEFINITIONS, NAME, is_served)
        yield there


def is_served(definition: Any) -> bool:
    return bool(condition(definition, "Established").get("status") == "True")


def plan(name: str, **spec: Any) -> dict[str, Any]:
    kind = {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan"}
    return {**kind, "metadata": {"name": name}, "spec": spec}


def test_every_field_is_taken_as_it_is_and_understood(api: Cluster) -> None:
    made = api.create(f"{PATH}{STRICT}", plan("everything", **EVERYTHING))
    checks = made["spec"].pop("healthChecks")
    assert [check | CHECKS[number] for number, check in enumerate(checks)] == checks
    assert made["spec"] == {key: v for key, v in EVERYTHING.items() if key != "healthChecks"}
    wanted_of({**made["spec"], "healthChecks": checks})


def test_the_example_is_taken_and_understood(api: Cluster) -> None:
    made = api.create(f"{PATH}{STRICT}", yaml.safe_load(EXAMPLE.read_text()))
    wanted = wanted_of(made["spec"])
    assert (wanted.percent, wanted.policy) == (10, "RollbackAll")


def test_the_defaults_are_those_of_the_operator(api: Cluster) -> None:
    made = api.create(f"{PATH}{STRICT}", plan("plain", channel="/usb"))
    assert made["spec"] == {
        "channel": "/usb",
        "channelIntervalMinutes": 360,
        "concurrency": 1,
        "cordon": True,
        "soakSeconds": 60,
        "trialDeadlineSeconds": 900,
        "failurePolicy": "Pause",
        "notReadyNodes": "Wait",
    }
    assert wanted_of(made["spec"]) == wanted_of({"channel": "/usb"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "exactly one of version and channel"),
        ({"version": "v1", "channel": "/usb"}, "exactly one of version and channel"),
        ({"channel": "/usb", "source": "/usb"}, "source goes with version"),
        ({"version": "v1", "source": "usb"}, "spec.source"),
        ({"version": "v1", "soakSeconds": 900, "trialDeadlineSeconds": 60}, "longer than"),
        ({"version": "v1", "concurrency": 0}, "a number from 1 on"),
        ({"version": "v1", "concurrency": "0%"}, "a number from 1 on"),
        ({"version": "v1", "failurePolicy": "hope"}, "spec.failurePolicy"),
        ({"version": "v1", "canaries": [{"name": "a"}]}, "exactly one of nodeSelector"),
        (
            {"version": "v1", "canaries": [{"name": "a", "count": 1, "percent": 1}]},
            "exactly one of nodeSelector",
        ),
        ({"version": "v1", "window": {"days": ["mo"], "startTime": "1"}}, "endTime"),
        ({"version": "v1", "window": {"days": [], "startTime": "1", "endTime": "2"}}, "days"),
        ({"version": "v1", "healthChecks": [{"name": "a"}]}, "exactly one of http"),
        ({"version": "v1", "healthChecks": [{"name": "A", "pods": {}}]}, "healthChecks[0]"),
        ({"version": "v1", "jobTemplate": {}}, "jobTemplate.image"),
        ({"version": "v1", "nodeSelector": {"matchExpressions": [{"key": "a"}]}}, "operator"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(
    api: Cluster, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        api.create(PATH, plan("refused", **spec))
    assert "422" in str(refused.value)
    assert words in str(refused.value)


def test_the_columns_are_what_one_wants_to_know(api: Cluster) -> None:
    [version] = api.get(f"{DEFINITIONS}/{NAME}")["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Version", "Phase", "Updated", "Age"]
