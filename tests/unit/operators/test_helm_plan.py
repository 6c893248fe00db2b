from dataclasses import replace
from typing import Any

import pytest

from operators.helm.plan import (
    FINALIZER,
    HASH_LABEL,
    MANAGED_BY,
    REVISION_LABEL,
    STORM_ATTEMPTS,
    STORM_SECONDS,
    UNMANAGED,
    Memory,
    Revision,
    Step,
    decide,
    history_of,
    labels,
    managed,
    on_deletion,
    storm,
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
    assert dict(labels("h", (), Step.INSTALL, owner="n"))[REVISION_LABEL] == "1"
    assert dict(labels("h", (SEEN,), Step.UPGRADE, owner="n"))[REVISION_LABEL] == "2"
    assert dict(labels("h", (SEEN,), Step.REINSTALL, owner="n"))[REVISION_LABEL] == "1"


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


FAILED = replace(SEEN, version=2, recorded=2, status="failed")
BACK = replace(SEEN, hash="before", version=3, status="deployed")  # a rollback copies the labels
BEFORE = replace(SEEN, hash="before", status="superseded")


@pytest.mark.parametrize(
    ("history", "memory", "expected"),
    [
        pytest.param((BEFORE, FAILED), Memory(), Step.ROLLBACK, id="failed"),
        pytest.param((replace(FAILED, version=1, recorded=1),), Memory(), Step.CLEAN, id="first"),
        pytest.param((BEFORE, FAILED, BACK), Memory(), Step.ROLLED_BACK, id="back"),
        pytest.param((BEFORE, FAILED, BACK), Memory(touched=True), Step.UPGRADE, id="touched"),
        pytest.param((BEFORE, FAILED), Memory(touched=True), Step.UPGRADE, id="touched-before"),
        pytest.param(
            (replace(FAILED, version=1, recorded=1),),
            Memory(touched=True),
            Step.REINSTALL,
            id="first-touched",
        ),
        pytest.param(
            (BEFORE, replace(FAILED, hash="other")), Memory(), Step.UPGRADE, id="failed-as-it-was"
        ),
        pytest.param(
            (BEFORE, FAILED, replace(BACK, status="failed")),
            Memory(),
            Step.ROLLBACK,
            id="half-back",
        ),
        pytest.param((BEFORE, FAILED), Memory(interrupted=2), Step.UPGRADE, id="interrupted"),
        pytest.param((BEFORE, FAILED), Memory(interrupted=3), Step.ROLLBACK, id="each-time"),
        pytest.param(
            (replace(FAILED, version=1, recorded=1, status="uninstalling"),),
            Memory(given_up=True),
            Step.CLEAN,
            id="half-clean",
        ),
        pytest.param(
            (BEFORE, FAILED, replace(BACK, status="pending-rollback")),
            Memory(),
            Step.WAIT,
            id="going",
        ),
    ],
)
def test_rollback_goes_back_once_and_stays_there(
    history: tuple[Revision, ...], memory: Memory, expected: Step
) -> None:
    found = decide(history, "h", policy="rollback", timeout=300, now=100, memory=memory)
    assert found is expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("reinstall", Step.UPGRADE), ("retry", Step.UPGRADE), ("abort", Step.LEAVE)],
)
def test_an_interruption_is_no_failure_of_the_chart(policy: str, expected: Step) -> None:
    memory = Memory(interrupted=1)
    found = decide((BEFORE, FAILED), "h", policy=policy, timeout=300, now=100, memory=memory)
    assert found is expected


@pytest.mark.parametrize("status", ["superseded", "unknown"])
def test_what_is_not_deployed_is_not_as_wanted(status: str) -> None:
    # Somebody deleted the record of the newest revision.
    assert step(replace(SEEN, status=status)) is Step.UPGRADE


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback"])
def test_what_this_process_has_seen_pending_for_long_is_healed(status: str) -> None:
    theirs = replace(SEEN, status=status, recorded=0, modified_at=10**9)
    waits = [
        decide((theirs,), "h", policy="retry", timeout=300, now=100, waited=waited)
        for waited in (299.0, 300.0)
    ]
    assert waits == [Step.WAIT, Step.HEAL]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, True),
        ({UNMANAGED: "true"}, False),
        ({MANAGED_BY: "helm-controller"}, True),
        ({MANAGED_BY: "pinnace"}, True),
        ({MANAGED_BY: "rke2"}, False),
    ],
)
def test_charts_of_another_manager_are_its_own(
    annotations: dict[str, str] | None, expected: bool
) -> None:
    assert managed({"metadata": {"annotations": annotations}}) is expected


def test_too_many_attempts_of_late_are_a_storm() -> None:
    ages = [float(n) for n in range(5, 60, 5)][:STORM_ATTEMPTS]
    assert storm(ages[:-1], 0) is None
    assert storm(ages, 0) == 25.0
    assert storm([40.0, *ages[1:]], 0) == 0.0
    assert storm(ages, 1) == 55.0
    assert storm(ages[:1], 1) == 55.0
    assert storm(ages, 20) == 295.0
    assert storm([], 5) is None
    assert storm([STORM_SECONDS], 5) is None
