from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.objects.facts import builtin_kinds
from controlplane.objects.kinds import Column, Kind
from controlplane.objects.printing.cells import human
from controlplane.objects.tables import table

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
BORN = "2026-01-01T11:55:00Z"


def kind(name: str, group: str = "", **more: Any) -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind=name,
        plural=name.lower() + "s",
        singular=name.lower(),
        namespaced=True,
        **more,
    )


def named(**more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web", "namespace": "n", "creationTimestamp": BORN}, **more}


def row(of: Kind, obj: Any) -> dict[str, Any]:
    made = table(of, [obj], now=NOW)
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (179 * 60, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (729 * 86400, "729d"),
        (731 * 86400, "2y1d"),
        (3000 * 86400, "8y"),
    ],
)
def test_ages_are_short(seconds: int, text: str) -> None:
    assert human(timedelta(seconds=seconds)) == text


def running(**more: Any) -> dict[str, Any]:
    return {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}, **more}


def waiting(reason: str) -> dict[str, Any]:
    return {
        "name": "c",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": reason}},
    }


def ended(code: int, reason: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    return {"name": "c", "ready": False, "restartCount": 0, "state": state}


def pod(status: Any, **spec: Any) -> dict[str, Any]:
    return named(spec={"containers": [{"name": "c"}], **spec}, status=status)


@pytest.mark.parametrize(
    ("status", "ready", "shown"),
    [
        ({"phase": "Pending"}, "0/1", "Pending"),
        ({"phase": "Running", "containerStatuses": [running()]}, "1/1", "Running"),
        (
            {"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]},
            "0/1",
            "CrashLoopBackOff",
        ),
        ({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, "0/1", "Completed"),
        ({"phase": "Failed", "containerStatuses": [ended(3)]}, "0/1", "ExitCode:3"),
        ({"phase": "Failed", "reason": "Evicted"}, "0/1", "Evicted"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ],
            },
            "0/1",
            "SchedulingGated",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [running(), ended(0, "Completed")],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
            "1/1",
            "Running",
        ),
    ],
)
def test_the_status_of_a_pod_sums_up_its_containers(status: Any, ready: str, shown: str) -> None:
    cells = row(kind("Pod"), pod(status))
    assert (cells["Ready"], cells["Status"]) == (ready, shown)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (waiting("PodInitializing"), "Init:0/2"),
        (waiting("ImagePullBackOff"), "Init:ImagePullBackOff"),
        (ended(1, "Error"), "Init:Error"),
        (ended(2), "Init:ExitCode:2"),
    ],
)
def test_init_containers_show_how_far_they_are(state: Any, shown: str) -> None:
    status = {"phase": "Pending", "initContainerStatuses": [state]}
    inits = [{"name": "c"}, {"name": "d"}]
    assert row(kind("Pod"), pod(status, initContainers=inits))["Status"] == shown


def test_sidecars_count_as_containers() -> None:
    side = {"name": "s", "restartPolicy": "Always"}
    status = {
        "phase": "Running",
        "initContainerStatuses": [running(name="s", started=True, restartCount=2)],
        "containerStatuses": [running()],
    }
    cells = row(kind("Pod"), pod(status, initContainers=[side]))
    assert (cells["Ready"], cells["Restarts"]) == ("2/2", "2")


def test_restarts_say_when_the_last_one_was() -> None:
    last = {"terminated": {"finishedAt": "2026-01-01T11:58:30Z"}}
    status = {"phase": "Running", "containerStatuses": [running(restartCount=3, lastState=last)]}
    assert row(kind("Pod"), pod(status))["Restarts"] == "3 (90s ago)"


def test_a_deleted_pod_is_terminating_until_it_is_done() -> None:
    obj = pod({"phase": "Running", "containerStatuses": [running()]})
    obj["metadata"]["deletionTimestamp"] = BORN
    assert row(kind("Pod"), obj)["Status"] == "Terminating"
    obj["status"] = {"phase": "Succeeded"}
    assert row(kind("Pod"), obj)["Status"] == "Succeeded"


def test_the_row_of_a_finished_pod_says_so() -> None:
    made = table(kind("Pod"), [pod({"phase": "Succeeded"})], now=NOW)
    assert made["rows"][0]["conditions"][0]["type"] == "Completed"


def test_what_is_included_is_the_callers_choice() -> None:
    obj = named(data={"a": "b"})
    of = kind("ConfigMap")

    def included(how: str) -> Any:
        return table(of, [obj], now=NOW, include_object=how)["rows"][0]["object"]

    assert included("None") is None
    assert included("Object") == obj
    assert (
        included("")
        == included("Metadata")
        == {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
    )


WORKLOAD = {
    "replicas": 2,
    "selector": {"matchLabels": {"app": "web"}},
    "template": {"spec": {"containers": [{"name": "c", "image": "nginx"}]}},
}


@pytest.mark.parametrize(
    ("of", "obj", "expected"),
    [
        (
            kind("Deployment", "apps"),
            named(spec=WORKLOAD, status={"readyReplicas": 1, "updatedReplicas": 2}),
            {
                "Name": "web",
                "Ready": "1/2",
                "Up-to-date": 2,
                "Available": 0,
                "Age": "5m",
                "Containers": "c",
                "Images": "nginx",
                "Selector": "app=web",
            },
        ),
        (
            kind("StatefulSet", "apps"),
            named(spec=WORKLOAD, status={"readyReplicas": 2}),
            {"Name": "web", "Ready": "2/2", "Age": "5m", "Containers": "c", "Images": "nginx"},
        ),
        (
            kind("Job", "batch"),
            named(
                spec={**WORKLOAD, "completions": 3},
                status={"succeeded": 1, "startTime": "2026-01-01T11:59:00Z"},
            ),
            {
                "Name": "web",
                "Status": "Running",
                "Completions": "1/3",
                "Duration": "60s",
                "Age": "5m",
                "Containers": "c",
                "Images": "nginx",
                "Selector": "app=web",
            },
        ),
        (
            kind("Service"),
            named(
                spec={
                    "type": "LoadBalancer",
                    "clusterIP": "10.43.0.1",
                    "selector": {"a": "b"},
                    "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}],
                },
                status={"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
            ),
            {
                "Name": "web",
                "Type": "LoadBalancer",
                "Cluster-IP": "10.43.0.1",
                "External-IP": "192.0.2.1",
                "Port(s)": "80:30000/TCP",
                "Age": "5m",
                "Selector": "a=b",
            },
        ),
        (
            kind("Node"),
            named(
                spec={"unschedulable": True},
                status={
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.3"},
                },
            ),
            {
                "Name": "web",
                "Status": "Ready,SchedulingDisabled",
                "Roles": "<none>",
                "Age": "5m",
                "Version": "v1.36.3",
                "Internal-IP": "<none>",
                "External-IP": "<none>",
                "OS-Image": "<unknown>",
                "Kernel-Version": "<unknown>",
                "Container-Runtime": "<unknown>",
            },
        ),
        (
            kind("Role", "rbac.authorization.k8s.io"),
            named(),
            {"Name": "web", "Created At": BORN},
        ),
        (
            kind("PersistentVolumeClaim"),
            named(
                spec={"volumeName": "v", "storageClassName": "local-path"},
                status={
                    "phase": "Bound",
                    "capacity": {"storage": "1024Mi"},
                    "accessModes": ["ReadWriteOnce"],
                },
            ),
            {
                "Name": "web",
                "Status": "Bound",
                "Volume": "v",
                "Capacity": "1Gi",
                "Access Modes": "RWO",
                "StorageClass": "local-path",
                "VolumeAttributesClass": "<unset>",
                "Age": "5m",
                "VolumeMode": "<unset>",
            },
        ),
        (
            kind("HorizontalPodAutoscaler", "autoscaling"),
            named(
                spec={
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "maxReplicas": 3,
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"averageUtilization": 80}},
                        }
                    ],
                }
            ),
            {
                "Name": "web",
                "Reference": "Deployment/d",
                "Targets": "cpu: <unknown>/80%",
                "MinPods": "<unset>",
                "MaxPods": 3,
                "Replicas": 0,
                "Age": "5m",
            },
        ),
    ],
)
def test_rows_are_those_of_kubectl(of: Kind, obj: Any, expected: Any) -> None:
    assert row(of, obj) == expected


def test_events_are_told_by_what_they_are_about() -> None:
    event = named(
        type="Warning",
        reason="BackOff",
        message="x\n",
        count=3,
        involvedObject={"kind": "Pod", "name": "p"},
        source={"component": "kubelet"},
        firstTimestamp=BORN,
        lastTimestamp="2026-01-01T11:59:50Z",
    )
    cells = row(kind("Event"), event)
    assert cells["Last Seen"] == "10s"
    assert (cells["Object"], cells["Message"], cells["Count"]) == ("pod/p", "x", 3)


def test_custom_resources_have_the_columns_of_their_definition() -> None:
    of = kind(
        "Foo",
        "example.com",
        custom=True,
        columns=(
            Column(
                name="Ready",
                type="string",
                json_path='.status.conditions[?(@.type=="Ready")].status',
            ),
            Column(name="Size", type="integer", json_path=".spec.size", priority=1),
            Column(name="Since", type="date", json_path=".metadata.creationTimestamp"),
            Column(name="On", type="boolean", json_path=".spec.size"),
            Column(name="List", type="string", json_path=".spec.list"),
        ),
    )
    obj = named(
        spec={"size": 3, "list": [1, 2]},
        status={"conditions": [{"type": "Ready", "status": "True"}]},
    )
    assert row(of, obj) == {
        "Name": "web",
        "Ready": "True",
        "Size": 3,
        "Since": "5m",
        "On": None,
        "List": "[1,2]",
    }


def test_custom_resources_without_columns_show_their_age() -> None:
    assert row(kind("Foo", "example.com", custom=True), named()) == {"Name": "web", "Age": "5m"}


@pytest.mark.parametrize("of", builtin_kinds(), ids=lambda k: f"{k.group}/{k.version}/{k.kind}")
def test_every_built_in_kind_has_a_row_even_when_it_is_empty(of: Kind) -> None:
    made = table(of, [named()], now=NOW)
    (only,) = made["rows"]
    assert len(only["cells"]) == len(made["columnDefinitions"])
    assert "web" in only["cells"]
