"""A person works on the same releases with the ``helm`` program, before, beside and after us."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.charts import packing, program
from tests.charts.person import Person
from tests.e2e.conftest import Space

HASH = "helmcharts.helm.cattle.io/configHash"


@pytest.fixture
def person(space: Space) -> Person:
    try:
        program.find()
    except program.NoHelm as why:
        pytest.skip(str(why))
    return Person(space)


def listed(person: Person, *arguments: str) -> Any:
    return json.loads(person.helm(*arguments, "--output=json"))


def test_the_program_sees_what_we_made_and_renders_the_same(person: Person, tmp_path: Path) -> None:
    values = {"word": "seen", "settings": {"added": [1, {"a": None}]}}
    person.apply("web", "probing", values=values, set={"replicas": 2})
    person.deployed("web", 1)
    [row] = listed(person, "ls")
    assert (row["name"], row["revision"], row["status"]) == ("web", "1", "deployed")
    assert (row["chart"], row["app_version"]) == ("probing-1.0.0", "3.14")
    given = listed(person, "get", "values", "web")
    assert given == {**values, "replicas": 2}
    assert "The password of web" in person.helm("get", "notes", "web")

    # Rendered anew by the program against the same API: what is there is found by lookup.
    (tmp_path / "chart.tgz").write_bytes(packing.packed("probing"))
    (tmp_path / "values.json").write_text(json.dumps(given))
    argv = ("template", "web", f"{tmp_path}/chart.tgz", f"--values={tmp_path}/values.json")
    theirs = person.helm(*argv, "--dry-run=server", "--no-hooks")
    ours = person.helm("get", "manifest", "web")
    differ = set(theirs.strip().split("\n")) ^ set(ours.strip().split("\n"))
    assert {line.split(":")[0].strip() for line in differ} == {"helm"}
    hooks = person.helm("get", "hooks", "web")
    assert "name: web-check" in hooks

    assert "Succeeded" in person.helm("test", "web", "--timeout=40s")
    assert person.space.kubectl("get", "pods", "-o", "name") == ""


def test_secrets_that_are_made_once_stay_over_upgrades(person: Person) -> None:
    person.apply("web", "probing")
    person.deployed("web", 1)
    secrets = ("get", "secret", "web-credentials", "web-tls", "-o", "jsonpath={.items[*].data}")
    first = person.space.kubectl(*secrets)
    person.apply("web", "probing", at="1.2.0", values={"word": "other"})
    person.deployed("web", 2)
    assert person.space.kubectl(*secrets) == first
    assert person.data("web-seen")["greeting"] == "web of OTHER"
    seen = person.data("web-seen")
    assert (seen["first"], seen["revision"], seen["account"]) == ("false", "2", "default")
    assert (seen["deployments"], seen["policy"], seen["monitors"]) == ("true", "true", "false")
    version = json.loads(person.space.kubectl("get", "--raw", "/version"))
    assert seen["kube"] == version["gitVersion"]


def test_what_a_person_rolls_back_or_upgrades_stands_until_the_chart_changes(
    person: Person, tmp_path: Path
) -> None:
    person.apply("web", "hooks", values={"jobs": ["pre-rollback"], "message": "one"})
    person.deployed("web", 1)
    person.apply("web", "hooks", values={"jobs": [], "message": "two"})
    person.deployed("web", 2)

    person.helm("rollback", "web", "1", "--timeout=40s")
    assert person.data("web")["message"] == "one"
    assert person.last("web") == (3, "deployed")
    # Another chart is done after it: so that this one has had its turn.
    person.space.kubectl("label", "helmchart", "web", "touched=yes")
    person.apply("next")
    person.deployed("next", 1)
    assert person.last("web") == (3, "deployed")
    said = [row["description"] for row in listed(person, "history", "web")]
    assert said[-1].startswith("Rollback to 1")

    (tmp_path / "chart.tgz").write_bytes(packing.packed("told", "9.0.0"))
    person.helm("upgrade", "web", f"{tmp_path}/chart.tgz", "--set=by=hand")
    assert person.told("web") == {"of": "chart", "by": "hand"}
    person.apply("web", "hooks", values={"jobs": [], "message": "three"})
    person.deployed("web", 5)
    assert person.data("web")["message"] == "three"


def test_what_a_person_uninstalls_comes_again_with_the_next_change(person: Person) -> None:
    person.apply("web")
    person.deployed("web", 1)
    person.helm("uninstall", "web")
    person.change("web", set={"a": 1})
    person.deployed("web", 1)
    assert person.told("web") == {"of": "chart", "a": 1}
    # And where nothing is left to uninstall, the HelmChart goes all the same.
    person.helm("uninstall", "web")
    person.delete("web")
    assert person.left("web") == []


def test_a_release_of_another_controller_is_taken_over(person: Person, tmp_path: Path) -> None:
    """What K3s leaves: a release with its own hash, and a Job that is done or never was."""
    (tmp_path / "told.tgz").write_bytes(packing.packed("told"))
    (tmp_path / "hooks.tgz").write_bytes(packing.packed("hooks"))
    label = f"--labels={HASH}=SHA256-OF-ANOTHER"
    person.helm("install", "fine", f"{tmp_path}/told.tgz", "--set=by=hand", label)
    job = ("job", "helm-install-fine", "--image=docker.io/library/busybox:1.35")
    made = json.loads(person.space.kubectl("create", *job, "--dry-run=client", "-o", "json"))
    person.put(made | {"spec": made["spec"] | {"suspend": True}})
    failing = "--set=fails=pre-install,jobs={pre-install},policy=hook-failed"
    said = person.helm("install", "bad", f"{tmp_path}/hooks.tgz", failing, label, check=False)
    assert "failed" in said
    assert person.last("bad") == (1, "failed")
    person.helm("install", "stuck", f"{tmp_path}/told.tgz", label)
    pending(person, "stuck")

    person.apply("fine", values={"by": "us"})
    person.apply("bad", "hooks", values={"jobs": []})
    person.apply("stuck", timeout="2s", failurePolicy="retry")
    person.deployed("fine", 2)
    assert person.told("fine") == {"of": "chart", "by": "us"}
    # By the policy, which is to begin anew.
    person.deployed("bad", 1)
    # Somebody may be at work on it, so it is waited for, for as long as that may take.
    person.deployed("stuck", 2)
    assert person.space.value("job", "helm-install-fine", path="{.spec.suspend}") == "true"


def pending(person: Person, name: str) -> None:
    record = f"sh.helm.release.v1.{name}.v1"
    labels = ("status=pending-install", "--overwrite")
    person.space.kubectl("label", "secret", record, *labels)


def test_a_release_that_is_gone_but_for_its_record_and_one_without(
    person: Person, tmp_path: Path
) -> None:
    """Deleted by hand: the record of the last revision, of all, and an object of the release."""
    person.apply("web", values={"n": 1})
    person.deployed("web", 1)
    person.change("web", values={"n": 2})
    person.deployed("web", 2)
    person.space.kubectl("delete", "secret", "sh.helm.release.v1.web.v2")
    person.change("web", values={"n": 3})
    person.space.until(lambda: person.told("web") == {"of": "chart", "n": 3})
    person.deployed("web", person.last("web")[0])

    person.space.kubectl("delete", "secret", "-lowner=helm,name=web")
    person.space.kubectl("delete", "configmap", "web")
    person.change("web", values={"n": 4})
    person.deployed("web", 1)
    assert person.told("web") == {"of": "chart", "n": 4}
    person.delete("web")
    assert person.left("web") == []
