import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from operators.helm.base import Job
from operators.helm.wanted import (
    Drift,
    Inputs,
    Missing,
    Refused,
    access_of,
    dependencies,
    drift_of,
    failure_policy,
    hash_of,
    ignored_values,
    job_of,
    names,
    origin_of,
    seconds,
    target_of,
    watched_secrets,
    window_of,
)

NOTHING = Inputs(
    config=None, secrets={}, config_maps={}, kubernetes_api="10.0.0.1:6443", cluster_ca="CA\n"
)


def chart(**spec: Any) -> dict[str, Any]:
    spec = {"chartContent": "dGd6"} | spec
    return {"metadata": {"name": "web", "namespace": "kube-system"}, "spec": spec}


def secret(**data: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}


def test_values_are_in_the_order_of_k3s() -> None:
    def spec(who: str) -> dict[str, Any]:
        return {
            "valuesContent": f"{who} content",
            "values": {"of": who},
            "valuesSecrets": [{"name": who, "keys": ["b", "a"]}],
        }

    secrets = {who: secret(a=f"{who} a", b=f"{who} b") for who in ("chart", "config")}
    inputs = replace(NOTHING, config={"spec": spec("config")}, secrets=secrets)
    job = job_of(chart(**spec("chart"), set={"last": "x"}), inputs)
    assert job.values == (
        "chart content",
        '{"of": "chart"}',
        "chart b",
        "chart a",
        "config content",
        '{"of": "config"}',
        "config b",
        "config a",
    )
    assert job.set_string == (("last", "x"),)


def test_set_tells_literals_from_strings_and_sorts_them() -> None:
    job = job_of(chart(set={"z": 3, "a": "true", "b": "3", "c": "x,y", "d": True}), NOTHING)
    assert job.set == (("a", "true"), ("d", "true"), ("z", "3"))
    assert job.set_string == (("b", "3"), ("c", r"x\,y"))


def job(**spec: Any) -> Job:
    return job_of(chart(**spec), NOTHING)


@pytest.mark.parametrize(
    "change",
    [
        {"values": {"a": 1}},
        {"valuesContent": "a: 1"},
        {"set": {"a": 1}},
        {"chartContent": "b3RoZXI="},
        {"targetNamespace": "other"},
        {"takeOwnership": True},
    ],
)
def test_what_shapes_the_release_changes_the_hash(change: dict[str, Any]) -> None:
    assert hash_of(job(**change)) != hash_of(job())


@pytest.mark.parametrize(
    "change", [{"timeout": "9m"}, {"backOffLimit": 1}, {"jobImage": "x"}, {"createNamespace": True}]
)
def test_what_only_says_how_to_get_there_does_not(change: dict[str, Any]) -> None:
    assert hash_of(job(**change)) == hash_of(job())


def test_a_hash_fits_a_label() -> None:
    assert len(hash_of(job())) <= 63


def test_a_secret_with_ignored_updates_is_used_but_no_reason_for_an_upgrade() -> None:
    made = chart(valuesSecrets=[{"name": "s", "keys": ["k"], "ignoreUpdates": True}])

    def digest(text: str) -> tuple[str, tuple[str, ...]]:
        inputs = replace(NOTHING, secrets={"s": secret(k=text)})
        found = job_of(made, inputs)
        return hash_of(found, ignored_values(made, inputs)), found.values

    one, two = digest("a: 1"), digest("a: 2")
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_a_secret_that_is_not_there_is_waited_for() -> None:
    with pytest.raises(Missing, match="Secret s with k is not there"):
        job(valuesSecrets=[{"name": "s", "keys": ["k"]}])
    assert job(valuesSecrets=[{"name": "s"}]).values == ()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"chartContent": ""}, "NoChart"),
        ({"chartContent": "", "chart": "web"}, "NoRepository"),
        ({"helmVersion": "v2"}, "UnsupportedVersion"),
        ({"timeout": "soon"}, "InvalidTimeout"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        job(**spec)
    assert refused.value.reason == reason


def test_the_address_of_the_api_is_filled_in_and_its_authority_trusted() -> None:
    source = job(chartContent="", chart="https://%{KUBERNETES_API}%/web.tgz", repoCA="MORE").source
    assert source.chart == "https://10.0.0.1:6443/web.tgz"
    assert source.ca == "MORE\nCA"


def test_credentials_come_from_secrets() -> None:
    spec = {
        "chart": "oci://r/web",
        "chartContent": "",
        "authSecret": {"name": "a"},
        "dockerRegistrySecret": {"name": "d"},
        "repoCAConfigMap": {"name": "c"},
    }
    docker = json.dumps({"auths": {}})
    secrets = {
        "a": secret(username="u", password="p"),
        "d": {"data": {".dockerconfigjson": base64.b64encode(docker.encode()).decode()}},
    }
    maps = {"c": {"data": {"z": "Z", "a": "A"}}}
    found = job_of(chart(**spec), replace(NOTHING, secrets=secrets, config_maps=maps)).source
    assert (found.username, found.password, found.registry_auth) == ("u", "p", docker)
    assert found.ca == "A\nZ"
    assert names(chart(**spec), None) == (frozenset({"a", "d"}), frozenset({"c"}))


def test_a_config_overrides_the_policy_of_the_chart() -> None:
    made = chart(failurePolicy="abort")
    assert failure_policy(made, None) == "abort"
    assert failure_policy(made, {"spec": {"failurePolicy": "retry"}}) == "retry"
    assert failure_policy(chart(), {"spec": {}}) == "reinstall"


@pytest.mark.parametrize(
    ("text", "expected"), [("", 300), ("300s", 300), ("5m30s", 330), ("1.5h", 5400), ("1ms", 1)]
)
def test_timeouts_are_durations_of_go(text: str, expected: int) -> None:
    assert seconds(text) == expected


def test_the_release_lives_in_the_target_namespace() -> None:
    assert target_of(chart()).namespace == "kube-system"
    assert target_of(chart(targetNamespace="web")).namespace == "web"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a,b", r"a\,b"),
        (r"a\,b", r"a\,b"),
        (r"a\\,b", r"a\\\,b"),
        (",,", r"\,\,"),
        ("{a,b}", r"{a\,b}"),
    ],
)
def test_a_comma_is_text_unless_it_is_escaped_already(given: str, expected: str) -> None:
    assert job(set={"a": given}).set_string == (("a", expected),)


def test_null_in_set_is_literal_and_case_does_not_count() -> None:
    assert job(set={"a": "NULL", "b": "False"}).set == (("a", "NULL"), ("b", "False"))


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("insecureSkipTLSVerify", True, "insecure"),
        ("plainHTTP", True, "plain_http"),
        ("authPassCredentials", True, "pass_credentials"),
        ("version", "1.x", "version"),
        ("repo", "https://r", "repo"),
        ("repoCA", "PEM", "ca"),
    ],
)
def test_how_to_reach_a_chart_is_passed_on(field: str, value: Any, where: str) -> None:
    found = job(**{"chart": "https://r/web.tgz", "chartContent": "", field: value}).source
    assert getattr(found, where) == value


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("createNamespace", True, "create_namespace"),
        ("takeOwnership", True, "take_ownership"),
        ("serverSide", "false", "server_side"),
        ("forceConflicts", True, "force_conflicts"),
    ],
)
def test_how_to_install_is_passed_on(field: str, value: Any, where: str) -> None:
    assert getattr(job(**{field: value}), where) == value
    assert getattr(job(), where) in {False, "auto"}


def test_a_config_overrides_how_it_is_applied() -> None:
    config = {"spec": {"serverSide": "false", "forceConflicts": False}}
    found = job_of(chart(serverSide="true", forceConflicts=True), replace(NOTHING, config=config))
    assert (found.server_side, found.force_conflicts) == ("false", False)


def test_only_a_rollback_waits_for_what_was_applied() -> None:
    assert job(failurePolicy="rollback").wait
    assert not job(failurePolicy="reinstall").wait
    config = {"spec": {"failurePolicy": "rollback"}}
    assert job_of(chart(failurePolicy="retry"), replace(NOTHING, config=config)).wait


def test_a_chart_in_the_object_beats_the_rest() -> None:
    found = job(chart="web", version="1", repo="https://r", authSecret={"name": "a"})
    assert (found.source.content, found.source.chart, found.source.repo) == ("dGd6", "", "")


def test_what_only_jobs_would_use_is_accepted() -> None:
    unused = {"bootstrap": True, "jobImage": "i", "podSecurityContext": {}, "securityContext": {}}
    assert job(**unused) == job()


def test_dependencies_are_in_the_same_namespace_unless_they_say_otherwise() -> None:
    given = [{"name": "a"}, {"name": "b", "namespace": "other"}]
    assert dependencies(chart(dependsOn=given)) == ("kube-system/a", "other/b")
    assert dependencies(chart(dependsOn=None)) == ()


def test_access_changes_with_the_version_of_a_credential_and_tells_nothing_of_it() -> None:
    made = chart(authSecret={"name": "a"}, repoCAConfigMap={"name": "c"})
    version = {"metadata": {"uid": "u", "resourceVersion": "1"}}

    def access(**found: Any) -> str:
        return access_of(
            made, replace(NOTHING, secrets={"a": found.get("a")}, config_maps={"c": found.get("c")})
        )

    assert access() == ""
    seen = {access(a=version), access(c=version), access(a=version, c=version)}
    seen.add(access(a={"metadata": {"uid": "u", "resourceVersion": "2"}}))
    assert len(seen) == 4
    data = {"metadata": version["metadata"], "data": {"password": "c2VjcmV0"}}
    assert access(a=data) == access(a=version)


def test_credentials_are_watched_and_optional_values_are_not() -> None:
    made = chart(
        authSecret={"name": "a"},
        dockerRegistrySecret={"name": "d"},
        valuesSecrets=[
            {"name": "v", "keys": ["k"]},
            {"name": "o", "keys": ["k"], "ignoreUpdates": True},
            {"name": "unused"},
        ],
    )
    assert watched_secrets(made, None) == {"a", "d", "v"}


def test_drift_is_looked_for_as_asked() -> None:
    assert drift_of(chart()) is None
    assert drift_of(chart(driftDetection={"mode": "none"})) is None
    rule = {"kind": "Deployment", "paths": ["/spec/replicas"]}
    asked = chart(driftDetection={"mode": "correct", "ignore": [rule], "interval": "10s"})
    assert drift_of(asked) == Drift(mode="correct", ignore=(rule,), interval=60)
    assert drift_of(chart(driftDetection={"mode": "detect"})) == Drift(
        mode="detect", ignore=(), interval=None
    )


def test_without_a_window_it_is_always_open() -> None:
    assert window_of(chart()) is None
    window = window_of(
        chart(maintenanceWindow={"days": ["mo"], "startTime": "1:00", "endTime": "2:00"})
    )
    assert window is not None
    assert window.days == {0}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "spec.chartContent"),
        ({"chartContent": "", "chart": "oci://r/web", "version": "1"}, "oci://r/web version 1"),
        ({"chartContent": "", "chart": "web", "repo": "https://r"}, "web from https://r"),
    ],
)
def test_where_a_chart_comes_from_is_told(spec: dict[str, Any], expected: str) -> None:
    assert origin_of(chart(**spec)) == expected


def test_content_may_say_where_it_was_had_from() -> None:
    made = chart()
    made["metadata"]["annotations"] = {"helm.cattle.io/chart-url": "https://r/web.tgz"}
    assert origin_of(made) == "spec.chartContent from https://r/web.tgz"
