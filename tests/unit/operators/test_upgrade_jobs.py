"""Nodes of another Kubernetes are upgraded by Jobs, which a real API server takes or refuses."""

from datetime import timedelta
from typing import Any

import pytest

from operators.upgrade import jobplan
from operators.upgrade.base import Drained
from operators.upgrade.jobs import NodeJobs
from tests.fakes.api_server import NOW as SERVER_NOW
from tests.fakes.operators_http import HttpClient, api

Object = dict[str, Any]
JOBS = "/apis/batch/v1/namespaces/ops/jobs"
PODS = "/api/v1/namespaces/ops/pods"
VERSION = "v1.36.4+k3s1"


def plan(name: str = "fleet", *, uid: str = "u1", **template: Any) -> Object:
    given = {"image": "rancher/k3s-upgrade", **template}
    metadata = {"name": name, "uid": uid}
    return {"metadata": metadata, "spec": {"jobTemplate": given}}


async def begin(client: HttpClient) -> NodeJobs:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ops"}}
    await client.create("/api/v1/namespaces", body)
    return NodeJobs(client, namespace="ops", now=lambda: SERVER_NOW + timedelta(seconds=20))


async def only_job(client: HttpClient) -> Object:
    (found,) = (await client.get(JOBS))["items"]
    assert isinstance(found, dict)
    return found


async def end(client: HttpClient, kind: str, **more: str) -> None:
    name = (await only_job(client))["metadata"]["name"]
    early = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
    stamp = "2026-01-02T03:04:05Z"
    conditions = [
        {"type": t, "status": "True", "lastTransitionTime": stamp, "lastProbeTime": stamp, **more}
        for t in (early, kind)
    ]
    counts = {"succeeded": 1} if kind == "Complete" else {"failed": 1}
    done = {"completionTime": stamp} if kind == "Complete" else {}
    status = {"conditions": conditions, "startTime": stamp, **counts, **done}
    await client.merge(f"{JOBS}/{name}/status", {"status": status})


async def test_a_job_is_made_once_and_followed() -> None:
    async with api() as (_, client):
        jobs = await begin(client)
        started = await jobs.ensure(plan(), "agent-1", VERSION)
        name = (await only_job(client))["metadata"]["name"]
        assert name.startswith("apply-fleet-on-agent-1-with-")
        assert started.message == f"job {name} is started"
        runs = await jobs.ensure(plan(), "agent-1", VERSION)
        later = SERVER_NOW + timedelta(seconds=25)
        assert runs == Drained(done=False, message=f"job {name} runs", retry_at=later)
        await end(client, "Complete")
        done = await jobs.ensure(plan(), "agent-1", VERSION)
        assert done == Drained(done=True, message="", retry_at=None)
        await jobs.remove("fleet", "agent-1")
        assert (await client.get(JOBS))["items"] == []
        await jobs.remove("fleet", "agent-1")


async def test_a_job_that_failed_says_why() -> None:
    async with api() as (_, client):
        jobs = await begin(client)
        await jobs.ensure(plan(), "agent-1", VERSION)
        await end(client, "Failed", reason="BackoffLimitExceeded", message="it is over")
        found = await jobs.ensure(plan(), "agent-1", VERSION)
    assert found.failed
    assert found.message.endswith(" failed: BackoffLimitExceeded: it is over")


async def test_the_job_is_as_its_images_expect_it() -> None:
    prepare = {"image": "rancher/k3s-upgrade", "args": ["prepare", "server-plan"]}
    given = plan(
        args=["--flag"],
        env=[{"name": "A", "value": "b"}],
        prepare=prepare,
        secrets=[{"name": "a.token", "defaultMode": 256}, {"name": "b", "path": "/etc/b"}],
        volumes=[{"name": "data", "source": "/srv", "destination": "/data"}],
        serviceAccountName="system-upgrade",
        tolerations=[{"key": "x", "operator": "Exists"}],
        activeDeadlineSeconds=0,
        backoffLimit=99,
    )
    async with api() as (_, client):
        jobs = await begin(client)
        body = jobplan.job(given, "agent-1", VERSION, "ops")
        await client.create(f"{JOBS}?fieldValidation=Strict&dryRun=All", body)
        await jobs.ensure(given, "agent-1", VERSION)
        found = await only_job(client)
    spec, pod = found["spec"], found["spec"]["template"]["spec"]
    assert "activeDeadlineSeconds" not in spec
    assert spec["backoffLimit"] == 99
    assert (pod["nodeName"], pod["restartPolicy"]) == ("agent-1", "Never")
    assert all(pod[name] for name in ("hostPID", "hostIPC", "hostNetwork"))
    (first,), (main,) = pod["initContainers"], pod["containers"]
    assert (first["args"], main["args"]) == (["prepare", "server-plan"], ["--flag"])
    assert main["image"] == "rancher/k3s-upgrade:v1.36.4-k3s1"
    assert main["securityContext"]["privileged"]
    environment = {entry["name"]: entry.get("value") for entry in main["env"]}
    assert environment.keys() == {
        *("SYSTEM_UPGRADE_NODE_NAME", "SYSTEM_UPGRADE_POD_NAME", "SYSTEM_UPGRADE_POD_UID"),
        *("SYSTEM_UPGRADE_PLAN_NAME", "SYSTEM_UPGRADE_PLAN_LATEST_HASH"),
        *("SYSTEM_UPGRADE_PLAN_LATEST_VERSION", "A"),
    }
    assert environment["SYSTEM_UPGRADE_PLAN_LATEST_VERSION"] == "v1.36.4-k3s1"
    mounts = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    assert mounts == {
        "host-root": "/host",
        "pod-info": "/run/system-upgrade/pod",
        "secret-a-token": "/run/system-upgrade/secrets/a.token",
        "secret-b": "/etc/b",
        "data": "/data",
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("rancher/k3s-upgrade", "rancher/k3s-upgrade:v1.36.4-k3s1"),
        ("host:5000/a", "host:5000/a:v1.36.4-k3s1"),
        ("host:5000/a:b", "host:5000/a:b"),
        ("a@sha256:b", "a@sha256:b"),
    ],
)
def test_an_image_without_a_tag_has_the_versions(given: str, wanted: str) -> None:
    assert jobplan.image(given, VERSION) == wanted


def test_another_version_or_template_is_another_job() -> None:
    names = {
        jobplan.job(given, "a", version, "ops")["metadata"]["name"]
        for given in (plan(), plan(args=["x"]))
        for version in (VERSION, "v1.36.5+k3s1")
    }
    assert len(names) == 4
    assert all(len(name) <= 63 for name in names)


async def test_names_however_long_are_taken_by_the_api() -> None:
    long, node = "p" * 63 + ".x" * 40, "node." * 30 + "example"
    async with api() as (_, client):
        jobs = await begin(client)
        await jobs.ensure(plan(long), node, VERSION)
        found = await only_job(client)
        assert found["spec"]["template"]["spec"]["nodeName"] == node
        await jobs.remove(long, node)
        assert (await client.get(JOBS))["items"] == []


async def test_the_job_of_another_plan_of_that_name_goes_first() -> None:
    async with api() as (_, client):
        jobs = await begin(client)
        await jobs.ensure(plan(uid="before"), "a", VERSION)
        found = await jobs.ensure(plan(), "a", VERSION)
        assert "of before to go" in found.message
        assert "is started" in (await jobs.ensure(plan(), "a", VERSION)).message
        assert (await only_job(client))["metadata"]["labels"][jobplan.UID_LABEL] == "u1"


async def test_what_a_pod_waits_for_is_said() -> None:
    async with api() as (_, client):
        jobs = await begin(client)
        await jobs.ensure(plan(), "agent-1", VERSION)
        name = (await only_job(client))["metadata"]["name"]
        labels = {"batch.kubernetes.io/job-name": name}
        spec = {"containers": [{"name": "upgrade", "image": "x"}], "nodeName": "agent-1"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}}
        await client.create(PODS, {**body, "spec": spec})
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
        container: Object = {"name": "upgrade", "state": waiting, "image": "x", "imageID": ""}
        container |= {"ready": False, "restartCount": 0}
        status = {"phase": "Pending", "containerStatuses": [container]}
        await client.merge(f"{PODS}/p/status", {"status": status})
        found = await jobs.ensure(plan(), "agent-1", VERSION)
        assert found.message == f"job {name} runs: ErrImagePull: no such host"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({}, "spec.jobTemplate is needed"),
        ({"args": []}, "spec.jobTemplate.image: is needed"),
        ({"image": "a", "imag": "b"}, "spec.jobTemplate.imag: unknown field"),
        ({"image": "a", "prepare": {"args": []}}, "spec.jobTemplate.prepare.image: is needed"),
        ({"image": "a", "volumes": [{"name": "b"}]}, "volumes[0].source: is needed"),
        ({"image": "a", "backoffLimit": -1}, "backoffLimit: must be a number"),
        ({"image": "a", "secrets": [{"path": "b"}]}, "secrets[0].name: is needed"),
        ({"image": "a", "env": [{"value": "b"}]}, "the API refuses the job: "),
    ],
)
async def test_a_template_that_is_wrong_has_failed(template: Object, said: str) -> None:
    async with api() as (_, client):
        jobs = await begin(client)
        given = {"metadata": {"name": "x", "uid": "u"}, "spec": {"jobTemplate": template}}
        found = await jobs.ensure(given, "a", VERSION)
    assert found.failed
    assert said in found.message
