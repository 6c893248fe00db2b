"""What a HelmChart may say, field by field, and what comes of it on a node."""

import base64
import json
from typing import Any

import pytest

from tests.charts.person import Person, condition, manifest
from tests.e2e.conftest import Space


@pytest.fixture
def person(space: Space) -> Person:
    return Person(space)


def test_a_change_of_version_values_content_or_set_is_one_upgrade_each(person: Person) -> None:
    person.apply("web", at="1.0.0", valuesContent="of: content")
    chart = person.deployed("web", 1)
    assert person.told("web") == {"of": "content"}
    assert condition(chart, "JobCreated")["status"] == "True"
    assert "annotations" not in chart["metadata"]

    person.apply("web", at="1.1.0", valuesContent="of: content")
    person.deployed("web", 2)
    assert person.data("web")["version"] == "1.1.0"

    person.apply("web", at="1.1.0", valuesContent="of: content", values={"of": {"a": [1]}})
    person.deployed("web", 3)
    assert person.told("web") == {"of": {"a": [1]}}

    given = {"of": "007", "number": 7, "truth": "true", "deep.er[1]": "a,b", "none": "null"}
    person.apply("web", at="1.1.0", valuesContent="of: content", set=given)
    person.deployed("web", 4)
    assert person.told("web") == {
        "of": "007",
        "number": 7,
        "truth": True,
        "deep": {"er": [None, "a,b"]},
        "none": None,
    }
    row = person.space.kubectl("get", "hc", "web", "--no-headers").split()
    assert row[:2] == ["web", "False"]  # of the columns: failed
    assert person.events("web").count("Deployed") == 4
    assert set(person.revisions("web").values()) == {"superseded", "deployed"}
    assert person.space.kubectl("get", "jobs,pods,serviceaccounts", "-o", "name").split() == [
        "serviceaccount/default"
    ]


LAYERS = ("content", "values", "secret", "configContent", "configValues", "configSecret", "set")


def layer(name: str) -> dict[str, str]:
    """Each says something of itself and of all that come after it."""
    return dict.fromkeys(LAYERS[LAYERS.index(name) :], name)


def secret(name: str, **values: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {key: json.dumps(value) for key, value in values.items()},
    }


def test_the_layers_of_values_count_in_their_order(person: Person) -> None:
    person.put(
        secret("of-chart", all=layer("secret"), unread={"unread": True}),
        secret("of-config", all=layer("configSecret")),
        manifest(
            "HelmChartConfig",
            "web",
            {
                "valuesContent": json.dumps(layer("configContent")),
                "values": layer("configValues"),
                "valuesSecrets": [{"name": "of-config", "keys": ["all"]}],
            },
        ),
    )
    mine: dict[str, Any] = {
        "valuesContent": json.dumps({"of": "content"} | layer("content")),
        "values": layer("values"),
        "valuesSecrets": [{"name": "of-chart", "keys": ["all"]}, {"name": "no-keys"}],
        "set": layer("set"),
    }
    person.apply("web", **mine)
    person.deployed("web", 1)
    assert person.told("web") == {"of": "content", **{name: name for name in LAYERS}}

    # Changed, then gone: its layers with it.
    person.configure("web", valuesContent="{configContent: changed, more: yes}")
    person.deployed("web", 2)
    fallen = dict.fromkeys(("configContent", "configValues", "configSecret"), "secret")
    told = person.told("web")
    assert told == {n: n for n in LAYERS} | fallen | {
        "of": "content",
        "configContent": "changed",
        "more": True,
    }
    person.space.kubectl("delete", "helmchartconfig", "web")
    person.deployed("web", 3)
    assert person.told("web") == {n: n for n in LAYERS} | fallen | {"of": "content"}


def test_a_secret_of_values_counts_when_it_changes_unless_that_is_ignored(person: Person) -> None:
    person.put(secret("watched", v={"watched": 1}), secret("ignored", v={"ignored": 1}))
    entries: list[dict[str, Any]] = [
        {"name": "watched", "keys": ["v"]},
        {"name": "ignored", "keys": ["v"], "ignoreUpdates": True},
        {"name": "not-there", "keys": ["v"], "ignoreUpdates": True},
    ]
    person.apply("web", valuesSecrets=entries)
    person.deployed("web", 1)
    assert person.told("web") == {"of": "chart", "watched": 1, "ignored": 1}

    person.put(secret("ignored", v={"ignored": 2}))
    person.put(secret("watched", v={"watched": 2}))
    person.deployed("web", 2)
    assert person.told("web") == {"of": "chart", "watched": 2, "ignored": 2}
    assert person.revisions("web") == {1: "superseded", 2: "deployed"}

    # One that is missing is waited for.
    person.space.kubectl("delete", "secret", "watched")
    person.change("web", set={"x": 1})
    assert "watched" in person.says("web", "Ready", status="False", reason="Waiting")["message"]
    person.put(secret("watched", v={"watched": 3}))
    person.deployed("web", 3)
    assert person.told("web")["watched"] == 3


def test_namespaces_are_made_and_left_and_may_go_first(person: Person) -> None:
    here = person.space.name
    target = f"{here}-target"
    person.apply("away", targetNamespace=target)
    assert target in person.failed("away")["message"]
    person.change("away", createNamespace=True)
    person.deployed("away", 1, namespace=target)
    assert person.revisions("away") == {}
    assert person.space.node.get("namespace", target)["status"]["phase"] == "Active"

    # Where the HelmChart's namespace goes, nothing is uninstalled, and nothing holds it up.
    person.apply("near")
    person.deployed("near", 1)
    person.space.node.kubectl("delete", "namespace", here, "--timeout=40s")
    assert person.revisions("away", namespace=target) == {1: "deployed"}
    person.space.node.kubectl("delete", "namespace", target)
    person.space.node.kubectl("create", "namespace", here)


def test_what_cannot_be_is_said_at_once(person: Person) -> None:
    person.apply("second", helmVersion="v2")
    person.apply("timeless", timeout="soon")
    person.apply("empty", of="")
    person.apply("nowhere", of="", chart="web", version="1")
    person.apply("torn", of="", chartContent="bm8gY2hhcnQ=")
    assert "supported" in person.failed("second", "Unsupported version")["message"]
    assert "soon" in person.failed("timeless", "InvalidTimeout")["message"]
    person.failed("empty", "NoChart")
    person.failed("nowhere", "NoRepository")
    person.failed("torn", "ChartLoadError")
    person.space.refused("patch", "hc", "empty", "--type=merge", "-p", '{"spec":{"driver":"sql"}}')
    for name in ("second", "timeless", "empty", "nowhere", "torn"):
        person.delete(name)


def test_after_as_many_attempts_as_backofflimit_says_it_gives_up(person: Person) -> None:
    person.apply("far", of="", chart="web", repo="http://127.0.0.1:1", backOffLimit=0)
    assert "127.0.0.1:1" in person.failed("far", "BackoffLimitExceeded")["message"]
    # Another state is another beginning.
    person.apply("far", backOffLimit=0)
    person.deployed("far", 1)


def test_what_is_about_the_job_alone_is_taken_and_has_no_job(person: Person) -> None:
    person.apply(
        "web",
        bootstrap=True,
        jobImage="registry.local/klipper-helm:v1",
        backOffLimit=3,
        timeout="1m30s",
        podSecurityContext={"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
        securityContext={"privileged": True, "capabilities": {"add": ["NET_ADMIN"]}},
    )
    chart = person.deployed("web", 1)
    assert "jobName" not in chart["status"]
    assert person.space.kubectl("get", "jobs,pods", "-o", "name") == ""


def test_the_record_may_be_a_configmap(person: Person) -> None:
    person.apply("web", driver="configmap")
    person.deployed("web", 1, driver="configmaps")
    person.change("web", set={"x": 1})
    person.deployed("web", 2, driver="configmaps")
    assert person.revisions("web") == {}
    person.delete("web")
    assert person.space.kubectl("get", "configmaps", "-o", "name").split() == [
        "configmap/kube-root-ca.crt"
    ]


def test_fields_of_others_are_respected_unless_they_are_to_be_forced(person: Person) -> None:
    person.apply("web", failurePolicy="retry", values={"of": "first"})
    person.deployed("web", 1)
    managers = person.space.get("configmap", "web", "--show-managed-fields")["metadata"]
    assert {entry["operation"] for entry in managers["managedFields"]} == {"Apply"}
    other = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "web"},
        "data": {"values": "of another"},
    }
    flags = ("--server-side", "--force-conflicts", "--field-manager=other")
    person.space.apply(json.dumps(other), *flags)

    person.change("web", values={"of": "second"})
    assert "conflict" in person.failed("web")["message"]
    assert person.data("web")["values"] == "of another"
    person.configure("web", forceConflicts=True)
    person.deployed("web", person.last("web")[0] + 1)
    assert person.told("web") == {"of": "second"}

    # Without server-side apply there is nothing to force.
    person.configure("web", forceConflicts=True, serverSide="false")
    person.change("web", values={"of": "third"})
    person.space.until(lambda: person.told("web") == {"of": "third"})
    managers = person.space.get("configmap", "web", "--show-managed-fields")["metadata"]
    assert "Update" in {entry["operation"] for entry in managers["managedFields"]}


def test_what_is_there_already_is_taken_over_only_when_asked(person: Person) -> None:
    person.space.kubectl("create", "configmap", "web", "--from-literal=was=there")
    person.apply("web", failurePolicy="retry")
    assert "cannot be imported" in person.failed("web")["message"]
    assert person.data("web") == {"was": "there"}
    person.change("web", takeOwnership=True)
    person.deployed("web", max(1, person.last("web")[0]))
    assert person.told("web") == {"of": "chart"}


def test_an_install_that_takes_too_long_fails_and_leaves_no_job(person: Person) -> None:
    values = {"jobs": ["pre-install"], "hangs": "pre-install", "policy": "hook-failed"}
    person.apply("slow", "hooks", values=values, timeout="1s", failurePolicy="abort")
    person.space.until(lambda: person.last("slow") == (1, "failed"))
    person.failed("slow")
    assert "JobFailed" in person.events("slow")
    assert person.space.kubectl("get", "jobs", "-o", "name") == ""
    person.delete("slow")


def failing(jobs: str) -> dict[str, Any]:
    return {"jobs": [jobs], "fails": jobs, "message": "second", "policy": "hook-failed"}


def test_after_a_failed_upgrade_the_policy_decides(person: Person) -> None:
    policies = ("abort", "rollback", "reinstall")
    for policy in policies:
        person.apply(policy, "hooks", values={"jobs": []}, failurePolicy=policy)
    for policy in policies:
        person.deployed(policy, 1)
        person.change(policy, values=failing("pre-upgrade"))

    person.failed("abort", "Aborted")
    assert person.revisions("abort") == {1: "deployed", 2: "failed"}
    assert person.data("abort")["message"] == "first"

    person.failed("rollback", "RolledBack")
    person.space.until(lambda: person.last("rollback") == (3, "deployed"))
    assert person.revisions("rollback")[2] == "failed"
    assert person.data("rollback")["message"] == "first"

    # The install of a new release has no pre-upgrade.
    person.deployed("reinstall", 1)
    assert person.data("reinstall")["message"] == "second"

    # The policy of the configuration wins.
    person.configure("abort", failurePolicy="reinstall")
    person.deployed("abort", 1)
    assert person.data("abort")["message"] == "second"


def test_a_chart_that_somebody_else_looks_after_is_left_alone(person: Person) -> None:
    spec = {"chartContent": base64.b64encode(b"no chart").decode()}
    mark = {"helmcharts.helm.cattle.io/unmanaged": "true"}
    person.put(manifest("HelmChart", "theirs", spec, annotations=mark))
    person.apply("ours")
    person.deployed("ours", 1)
    theirs = person.chart("theirs")
    assert theirs is not None
    assert "status" not in theirs
    assert "finalizers" not in theirs["metadata"]
    person.space.kubectl("delete", "helmchart", "theirs", "--timeout=5s")
