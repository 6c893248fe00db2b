from dataclasses import replace
from typing import Any

import pytest

from operators.helm.plan import (
    FINALIZER,
    HASH_LABEL,
    REVISION_LABEL,
    Revision,
    Step,
    decide,
    history_of,
    labels,
    on_deletion,
)

SEEN = Revision(version=1, status="deployed", hash="h", recorded=1, modified_at=100)
NAMESPACE = {"metadata": {"name": "kube-system"}}


def chart(**spec: Any) -> dict[str, Any]:
    spec = {"chartContent": "dGd6"} | spec
    return {"metadata": {"name": "web", "namespace": "kube-system"}, "spec": spec}


def step(*history: Revision, policy: str = "reinstall", now: float = 100) -> Step:
    return decide(history, "h", policy=policy, timeout=300, now=now)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param((), Step.INSTALL, id="never"),
        pytest.param((replace(SEEN, status="uninstalled"),), Step.INSTALL, id="kept-history"),
        pytest.param((SEEN,), Step.NOTHING, id="as-wanted"),
        pytest.param((replace(SEEN, hash="other"),), Step.UPGRADE, id="changed"),
        pytest.param((replace(SEEN, hash="", recorded=0),), Step.UPGRADE, id="made-by-a-person"),
        pytest.param((replace(SEEN, status="failed"),), Step.REINSTALL, id="failed"),
        pytest.param((replace(SEEN, status="uninstalling"),), Step.REINSTALL, id="half-gone"),
        pytest.param((replace(SEEN, status="pending-upgrade"),), Step.HEAL, id="ours-interrupted"),
        pytest.param(
            (replace(SEEN, status="pending-install", recorded=0),), Step.WAIT, id="somebody-at-work"
        ),
    ],
)
def test_a_release_takes_one_step_at_a_time(history: tuple[Revision, ...], expected: Step) -> None:
    assert step(*history) is expected


def test_what_a_person_started_and_left_is_healed_after_the_timeout() -> None:
    theirs = replace(SEEN, status="pending-upgrade", recorded=0, modified_at=100)
    assert step(theirs, now=401) is Step.HEAL


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("reinstall", Step.REINSTALL), ("retry", Step.UPGRADE), ("abort", Step.LEAVE)],
)
def test_a_failure_is_answered_by_the_policy(policy: str, expected: Step) -> None:
    assert step(replace(SEEN, status="failed"), policy=policy) is expected


def test_a_rollback_stands_until_the_chart_changes() -> None:
    first = replace(SEEN, hash="before", status="superseded")
    second = replace(SEEN, version=2, recorded=2, status="superseded")
    # Helm copies the labels of the revision that it went back to.
    back = replace(first, version=3, status="deployed")
    assert step(first, second, back) is Step.NOTHING
    assert decide((first, second, back), "new", policy="retry", timeout=1, now=0) is Step.UPGRADE


def test_going_back_to_older_values_is_a_change() -> None:
    first = replace(SEEN, status="superseded")
    second = replace(SEEN, version=2, recorded=2, hash="other")
    assert step(first, second) is Step.UPGRADE


def test_revisions_are_read_from_labels_in_order_of_their_numbers() -> None:
    def record(version: int, **more: str) -> dict[str, Any]:
        label = {"owner": "helm", "version": str(version), "status": "deployed", **more}
        return {"name": f"v{version}", "labels": label}

    ours = {HASH_LABEL: "h", REVISION_LABEL: "10", "modifiedAt": "7"}
    found = history_of([record(10, **ours), record(9), {"name": "other", "labels": {}}])
    assert [revision.version for revision in found] == [9, 10]
    assert not found[0].ours
    assert found[1] == Revision(version=10, status="deployed", hash="h", recorded=10, modified_at=7)


def test_a_new_revision_is_labelled_with_its_own_number() -> None:
    assert dict(labels("h", (), Step.INSTALL))[REVISION_LABEL] == "1"
    assert dict(labels("h", (SEEN,), Step.UPGRADE))[REVISION_LABEL] == "2"
    assert dict(labels("h", (SEEN,), Step.REINSTALL))[REVISION_LABEL] == "1"


@pytest.mark.parametrize(
    ("finalizers", "namespace", "history", "expected"),
    [
        ([], NAMESPACE, (SEEN,), Step.IGNORE),
        ([FINALIZER], NAMESPACE, (SEEN,), Step.UNINSTALL),
        ([FINALIZER], NAMESPACE, (), Step.FORGET),
        ([FINALIZER], None, (SEEN,), Step.FORGET),
        ([FINALIZER], {"metadata": {"deletionTimestamp": "now"}}, (SEEN,), Step.FORGET),
    ],
)
def test_a_deleted_chart_is_uninstalled_unless_all_around_it_goes(
    finalizers: list[str], namespace: Any, history: tuple[Revision, ...], expected: Step
) -> None:
    made = chart()
    made["metadata"]["finalizers"] = finalizers
    assert on_deletion(made, namespace, history) is expected
