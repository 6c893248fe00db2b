"""Plans of system-upgrade-controller become UpgradePlans, against an API that serves both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.client import ApiError
from operators.upgrade import cattleplan
from operators.upgrade.cattle import CattlePlans
from tests.fakes.operators_http import HttpClient, custom

Object = dict[str, Any]
NOW = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)
SPACE = "/apis/upgrade.cattle.io/v1/namespaces/system-upgrade/plans"
PLANS = "/apis/upgrade.pinnace.dev/v1/upgradeplans"
KEY = "system-upgrade/server-plan"
CHANNEL = "https://updates.example.com/stable"
# As K3s's documentation has them, with the one annotation that Pinnace needs.
DOCUMENTED = """
apiVersion: upgrade.cattle.io/v1
kind: Plan
metadata:
  name: server-plan
  namespace: system-upgrade
  annotations: {upgrade.pinnace.dev/channel: "https://updates.example.com/stable"}
spec:
  concurrency: 1
  cordon: true
  nodeSelector:
    matchExpressions:
    - {key: node-role.kubernetes.io/control-plane, operator: In, values: ["true"]}
  serviceAccountName: system-upgrade
  upgrade: {image: rancher/k3s-upgrade}
  channel: https://update.k3s.io/v1-release/channels/stable
---
apiVersion: upgrade.cattle.io/v1
kind: Plan
metadata:
  name: agent-plan
  namespace: system-upgrade
  annotations: {upgrade.pinnace.dev/channel: "https://updates.example.com/stable"}
spec:
  concurrency: 1
  cordon: true
  nodeSelector:
    matchExpressions:
    - {key: node-role.kubernetes.io/control-plane, operator: DoesNotExist}
  prepare: {args: [prepare, server-plan], image: rancher/k3s-upgrade}
  serviceAccountName: system-upgrade
  upgrade: {image: rancher/k3s-upgrade}
  channel: https://update.k3s.io/v1-release/channels/stable
"""


def plan(annotations: dict[str, str] | None = None, **changes: Any) -> Object:
    (body, _) = yaml.safe_load_all(DOCUMENTED)
    if annotations is not None:
        body["metadata"]["annotations"] = annotations
    spec = {**body["spec"], **changes}
    body["spec"] = {name: value for name, value in spec.items() if value is not None}
    assert isinstance(body, dict)
    return body


@asynccontextmanager
async def begun() -> AsyncIterator[tuple[HttpClient, CattlePlans]]:
    kinds = (("upgrade.cattle.io/v1", "Plan"), ("upgrade.pinnace.dev/v1", "UpgradePlan"))
    async with custom(*kinds) as (_, client):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "system-upgrade"}}
        await client.create("/api/v1/namespaces", body)
        yield client, CattlePlans(client, now=lambda: NOW)


async def conditions(
    client: HttpClient, name: str = "server-plan"
) -> dict[str, tuple[str, str, str]]:
    found = await client.get(f"{SPACE}/{name}")
    return {
        c["type"]: (c["status"], c["reason"], c["message"]) for c in found["status"]["conditions"]
    }


def writes(client: HttpClient) -> list[str]:
    return [path for verb, path in client.asked if verb != "GET" and "/events" not in path]


async def progress(client: HttpClient, name: str, **status: Any) -> None:
    live = await client.get(f"{PLANS}/{name}")
    status = {"observedGeneration": live["metadata"]["generation"], **status}
    await client.merge(f"{PLANS}/{name}/status", {"status": status})


async def test_a_documented_plan_becomes_an_upgrade_plan() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan())
        await cattle.reconcile(KEY)
        made = await client.get(f"{PLANS}/system-upgrade.server-plan")
        spec = made["spec"]
        assert (spec["channel"], spec["concurrency"], spec["cordon"]) == (CHANNEL, 1, True)
        assert not spec["suspend"]
        assert spec["nodeSelector"]["matchExpressions"] == [
            {"key": "node-role.kubernetes.io/control-plane", "operator": "In", "values": ["true"]},
            {
                "key": "plan.upgrade.cattle.io/server-plan",
                "operator": "NotIn",
                "values": ["disabled"],
            },
        ]
        assert cattle.keys_of(made) == [KEY]
        said = await conditions(client)
        note = "spec.serviceAccountName: has no effect, no pod runs"
        assert said["Validated"] == ("True", "PlanIsValid", note)
        assert said["LatestResolved"] == ("Unknown", "Unknown", "")


async def test_nothing_is_written_where_nothing_changes() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan(drain={"force": True}, postCompleteDelay="30s"))
        await cattle.reconcile(KEY)
        before = len(writes(client))
        for _ in range(3):
            await cattle.reconcile(KEY)
        assert len(writes(client)) == before


async def test_how_far_it_is_is_told_in_the_plan() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan())
        await cattle.reconcile(KEY)
        resolved = {"type": "Resolved", "status": "True", "reason": "Resolved"}
        complete = {"type": "Complete", "status": "False", "reason": "Progressing", "message": "x"}
        nodes = [{"name": "a", "phase": "Trial"}, {"name": "b", "phase": "Pending"}]
        at = "system-upgrade.server-plan"
        version = "v1.36.4+pinnace1"
        await progress(client, at, version=version, nodes=nodes, conditions=[resolved, complete])
        await cattle.reconcile(KEY)
        found = (await client.get(f"{SPACE}/server-plan"))["status"]
        assert (found["latestVersion"], found["applying"]) == ("v1.36.4-pinnace1", ["a"])
        assert len(found["latestHash"]) == 56
        said = await conditions(client)
        assert said["LatestResolved"] == ("True", "Channel", "")
        assert said["Complete"] == ("False", "Progressing", "x")
        done = complete | {"status": "True", "reason": "Complete"}
        nodes = [{"name": "a", "phase": "Updated"}]
        await progress(client, at, version=version, nodes=nodes, conditions=[resolved, done])
        await cattle.reconcile(KEY)
        assert (await conditions(client))["Complete"] == ("True", "Complete", "x")
        assert "applying" not in (await client.get(f"{SPACE}/server-plan"))["status"]


async def test_agents_wait_for_the_plan_of_the_servers() -> None:
    async with begun() as (client, cattle):
        for body in yaml.safe_load_all(DOCUMENTED):
            await client.create(SPACE, body)
        agents = "system-upgrade/agent-plan"
        await cattle.reconcile(agents)
        at = f"{PLANS}/system-upgrade.agent-plan"
        assert (await client.get(at))["spec"]["suspend"]
        said = await conditions(client, "agent-plan")
        assert said["Complete"] == ("False", "Waiting", "waits for Plan server-plan")
        await cattle.reconcile(KEY)
        servers = await client.get(f"{PLANS}/system-upgrade.server-plan")
        assert cattle.keys_of(servers) == [agents, KEY]
        await progress(client, "system-upgrade.server-plan", phase="Complete")
        await cattle.reconcile(agents)
        assert not (await client.get(at))["spec"]["suspend"]
        await client.merge(f"{PLANS}/system-upgrade.server-plan", {"spec": {"concurrency": 2}})
        await cattle.reconcile(agents)
        assert (await client.get(at))["spec"]["suspend"], "what is Complete was of before"


async def test_what_somebody_adds_stays_and_what_was_translated_follows() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan(drain={"force": True}))
        await cattle.reconcile(KEY)
        at = f"{PLANS}/system-upgrade.server-plan"
        door = [{"name": "door", "tcp": {"host": "x", "port": 1}}]
        await client.merge(at, {"spec": {"healthChecks": door, "failurePolicy": "RollbackAll"}})
        await client.merge(f"{SPACE}/server-plan", {"spec": {"drain": None, "concurrency": 3}})
        await cattle.reconcile(KEY)
        spec = (await client.get(at))["spec"]
        assert (spec["concurrency"], spec["failurePolicy"]) == (3, "RollbackAll")
        assert spec["healthChecks"][0]["name"] == "door"
        assert "drain" not in spec


async def test_a_plan_that_goes_takes_its_upgrade_plan_along() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan())
        await cattle.reconcile(KEY)
        await client.delete(f"{SPACE}/server-plan")
        await cattle.reconcile(KEY)
        with pytest.raises(ApiError, match="not found"):
            await client.get(f"{PLANS}/system-upgrade.server-plan")
        await cattle.reconcile(KEY)


async def test_an_upgrade_plan_of_somebody_else_is_left_alone() -> None:
    async with begun() as (client, cattle):
        metadata = {"name": "system-upgrade.server-plan"}
        body = {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan", "metadata": metadata}
        await client.create(PLANS, {**body, "spec": {"channel": "/srv/mine"}})
        await client.create(SPACE, plan())
        await cattle.reconcile(KEY)
        status, reason, message = (await conditions(client))["Validated"]
        assert (status, reason) == ("False", "NotTranslatable")
        assert "of somebody else" in message
        await client.delete(f"{SPACE}/server-plan")
        await cattle.reconcile(KEY)
        live = await client.get(f"{PLANS}/system-upgrade.server-plan")
        assert live["spec"]["channel"] == "/srv/mine"


async def test_what_cannot_be_translated_is_refused_and_stops_what_was() -> None:
    async with begun() as (client, cattle):
        await client.create(SPACE, plan())
        await cattle.reconcile(KEY)
        args = {"spec": {"upgrade": {"image": "rancher/k3s-upgrade", "args": ["--force"]}}}
        await client.merge(f"{SPACE}/server-plan", args)
        await cattle.reconcile(KEY)
        said = await conditions(client)
        why = "spec.upgrade.args: cannot be translated: no container runs"
        assert said["Validated"] == ("False", "NotTranslatable", why)
        assert (await client.get(f"{PLANS}/system-upgrade.server-plan"))["spec"]["suspend"]
        events = await client.get("/api/v1/namespaces/system-upgrade/events")
        assert [event["reason"] for event in events["items"]] == ["ValidateFailed"]
        before = len(writes(client))
        await cattle.reconcile(KEY)
        assert len(writes(client)) == before


NOTHING: dict[str, str] = {}


@pytest.mark.parametrize(
    ("annotations", "changes", "said"),
    [
        (NOTHING, {}, "spec.channel: names versions of K3s; the annotation"),
        (NOTHING, {"channel": None}, "spec: version or channel is needed"),
        (
            None,
            {"version": "v1.36.4+k3s1"},
            "spec.version: 'v1.36.4+k3s1' is no version of Pinnace",
        ),
        (NOTHING, {"version": "v1.36.4+pinnace1"}, "spec.version: the annotation"),
        (None, {"upgrade": None}, "spec.upgrade: is needed"),
        (
            None,
            {"upgrade": {"image": "busybox"}},
            "spec.upgrade.image: 'busybox' cannot be translated",
        ),
        (
            None,
            {"upgrade": {"image": "k3s-upgrade", "envs": [{"name": "a"}]}},
            "spec.upgrade.envs: cannot",
        ),
        (None, {"prepare": {"image": "busybox", "args": ["prepare", "x"]}}, "spec.prepare: cannot"),
        (
            None,
            {"prepare": {"image": "k3s-upgrade", "command": ["x"]}},
            "spec.prepare.command: cannot",
        ),
        (None, {"secrets": [{"name": "a"}]}, "spec.secrets: cannot be translated"),
        (None, {"unheard": 1}, "spec.unheard: unknown field"),
        (None, {"window": {"days": ["someday"]}}, "spec.window: days: 'someday' is no day"),
        (None, {"drain": {"timeout": "soon"}}, "spec.drain.timeout: 'soon' is no duration"),
        (
            None,
            {"drain": {"deleteLocalData": True, "deleteEmptydirData": True}},
            "spec.drain: cannot specify both deleteEmptydirData and deleteLocalData",
        ),
        (None, {"drain": {"pods": 1}}, "spec.drain.pods: unknown field"),
        (None, {"postCompleteDelay": "x"}, "spec.postCompleteDelay: 'x' is no duration"),
        (
            None,
            {"postCompleteLabels": {"a": "$(LATEST_HASH)"}},
            "spec.postCompleteLabels.a: $(LATEST_HASH)",
        ),
        (
            None,
            {"nodeSelector": {"matchLabels": {"a b": "c"}}},
            "spec.nodeSelector.matchLabels.a b: ",
        ),
        (None, {"concurrency": -1}, "spec.concurrency: must be a number"),
    ],
)
def test_each_field_that_cannot_be_translated_is_named(
    annotations: dict[str, str] | None, changes: Object, said: str
) -> None:
    found = cattleplan.translate(plan(annotations, **changes))
    assert any(line.startswith(said) for line in found.refused), found.refused
    assert found.spec == {}


def test_every_field_that_can_be_translated_is() -> None:
    window = {"days": ["mo"], "startTime": "22:00", "endTime": "23:00", "timeZone": "UTC"}
    drain = {
        "timeout": 90_000_000_001,
        "gracePeriod": 5,
        "deleteEmptydirData": False,
        "ignoreDaemonSets": False,
        "force": True,
        "disableEviction": True,
        "skipWaitForDeleteTimeout": 9,
        "podSelector": {"matchLabels": {"a": "b"}},
    }
    given = plan(
        {cattleplan.SOURCE: "/srv/bundles", cattleplan.CHANNEL_KEY: "key"},
        version="v1.36.4-pinnace2",
        concurrency=4,
        exclusive=True,
        cordon=None,
        drain=drain,
        window=window,
        postCompleteDelay="1m30s",
        postCompleteLabels={"version": "$(LATEST_VERSION)"},
        jobActiveDeadlineSecs=900,
        tolerations=[{"operator": "Exists"}],
        priorityClassName="x",
        imagePullSecrets=[{"name": "a"}],
    )
    found = cattleplan.translate(given)
    assert not found.refused
    assert {key: value for key, value in found.spec.items() if key != "nodeSelector"} == {
        "version": "v1.36.4+pinnace2",
        "source": "/srv/bundles",
        "channelKey": "key",
        "concurrency": 4,
        "exclusive": True,
        "cordon": False,
        "window": window,
        "drain": {
            "enabled": True,
            "timeoutSeconds": 91,
            "gracePeriodSeconds": 5,
            "deleteEmptyDirData": False,
            "ignoreDaemonSets": False,
            "force": True,
            "disableEviction": True,
            "skipWaitForDeleteTimeout": 9,
            "podSelector": {"matchLabels": {"a": "b"}},
        },
        "postComplete": {"labels": {"version": "$(LATEST_VERSION)"}, "delaySeconds": 90},
    }
    assert [note.split(":")[0] for note in found.notes] == [
        "spec.serviceAccountName",
        "spec.tolerations",
        "spec.imagePullSecrets",
        "spec.priorityClassName",
        "spec.jobActiveDeadlineSecs",
        "spec.channel",
    ]


def test_a_version_of_a_channel_is_looked_up_there() -> None:
    found = cattleplan.translate(plan(version="v1.36.4+pinnace1", channel=None))
    assert found.spec["source"] == f"{CHANNEL}/channel.json"


def test_defaults_are_those_of_the_controller() -> None:
    found = cattleplan.translate(plan(drain={}, cordon=None))
    assert found.spec["drain"] == {
        "enabled": True,
        "force": False,
        "deleteEmptyDirData": True,
        "ignoreDaemonSets": True,
        "disableEviction": False,
    }
    none = cattleplan.translate(plan(concurrency=None))
    assert none.idle == "spec.concurrency is 0, so no node is selected"
    nobody = cattleplan.translate(plan(nodeSelector=None))
    assert nobody.idle == "spec.nodeSelector is not given, so no node is selected"


@pytest.mark.parametrize(
    ("given", "seconds"), [("2m", 120), ("1.5s", 2), ("0", None), (10**9, 1), ("1h1ms", 3601)]
)
def test_durations_are_as_go_writes_them(given: Any, seconds: int | None) -> None:
    found = cattleplan.translate(plan(postCompleteDelay=given))
    assert (found.spec.get("postComplete") or {}).get("delaySeconds") == seconds


def test_names_of_two_namespaces_are_two_names() -> None:
    assert cattleplan.name_of("a/b.c") == "a.b.c"
    assert cattleplan.name_of("a-b/c") != cattleplan.name_of("a/b-c")


def test_a_definition_is_there_for_whoever_has_plans() -> None:
    root = Path(__file__).parent.parent.parent.parent
    found = yaml.safe_load((root / "controlplane/deploy/crds/plans.yaml").read_text())
    (version,) = found["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert fields.keys() == set(cattleplan.FIELDS)
