"""What is reported of a pod."""

from typing import Any

import pytest

from node.cri.base import ContainerState
from node.kubelet.status import Inputs, patch, pod_status
from node.kubelet.view import Memory, PodView, Waiting
from tests.unit.kubelet.pods import NOW, SETTINGS, container, pod, sandbox, seen, view

EXITED = ContainerState.EXITED


def reported(
    a_pod: dict[str, Any],
    a_view: PodView,
    memory: Memory | None = None,
    waiting: dict[str, Waiting] | None = None,
) -> dict[str, Any]:
    return pod_status(
        Inputs(
            pod=a_pod,
            view=a_view,
            memory=memory or Memory(),
            waiting=waiting or {},
            settings=SETTINGS,
            now=NOW,
        )
    )


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == kind)


def test_a_running_pod_is_ready() -> None:
    status = reported(pod(), view(seen(container())))
    assert status["phase"] == "Running"
    assert (status["podIP"], status["podIPs"]) == ("10.42.0.9", [{"ip": "10.42.0.9"}])
    assert (status["hostIP"], status["qosClass"]) == ("192.168.1.5", "BestEffort")
    assert status["startTime"] == "2026-03-01T12:00:00Z"
    for kind in ("Ready", "ContainersReady", "Initialized", "PodReadyToStartContainers"):
        assert condition(status, kind)["status"] == "True"
    assert status["containerStatuses"] == [
        {
            "name": "c",
            "image": "docker.io/library/busybox:1",
            "imageID": "sha256:1",
            "containerID": "containerd://c-0",
            "lastState": {},
            "ready": True,
            "restartCount": 0,
            "started": True,
            "state": {"running": {"startedAt": "2026-03-01T11:59:00Z"}},
        }
    ]


def test_a_pod_that_begins_waits_for_its_containers() -> None:
    status = reported(pod(), PodView())
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [c]"


def test_containers_behind_init_containers_are_initializing() -> None:
    init = container("i")
    status = reported(pod(initContainers=[init]), view(seen(init)))
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    initialized = condition(status, "Initialized")
    assert initialized["reason"] == "ContainersNotInitialized"
    assert initialized["message"] == "containers with incomplete status: [i]"


def test_a_pod_deleted_before_anything_started_has_failed() -> None:
    for a_pod in (pod(), pod(initContainers=[container("i")])):
        assert reported(a_pod, PodView())["phase"] == "Pending"
        a_pod["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        assert reported(a_pod, PodView())["phase"] == "Failed"


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
        ("Always", (0, 0), "Running"),
    ],
)
def test_the_phase_follows_how_the_containers_ended(
    policy: str, codes: tuple[int, int], phase: str
) -> None:
    a, b = container("a"), container("b")
    ended = view(seen(a, EXITED, code=codes[0]), seen(b, EXITED, code=codes[1]))
    assert reported(pod(a, b, restartPolicy=policy), ended)["phase"] == phase


def test_a_finished_pod_is_not_ready_because_it_completed() -> None:
    status = reported(pod(restartPolicy="Never"), view(seen(container(), EXITED)))
    assert condition(status, "Ready")["reason"] == "PodCompleted"
    assert condition(status, "Initialized")["reason"] == "PodCompleted"
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Completed", 0)


def test_a_crash_loop_shows_why_it_waits_and_how_it_ended() -> None:
    ended = seen(container(), EXITED, code=3, attempt=2, message="boom")
    waiting = {"c": Waiting("CrashLoopBackOff", "back-off")}
    status = reported(pod(), view(ended), waiting=waiting)
    (shown,) = status["containerStatuses"]
    assert status["phase"] == "Running"
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert shown["lastState"]["terminated"]["message"] == "boom"
    assert shown["restartCount"] == 2


def test_a_container_with_a_readiness_probe_is_ready_when_it_says_so() -> None:
    spec = container(readinessProbe={"exec": {}})
    running = view(seen(spec))
    assert not reported(pod(spec), running)["containerStatuses"][0]["ready"]
    assert reported(pod(spec), running, Memory(ready={"c-0": True}))["containerStatuses"][0][
        "ready"
    ]


def test_a_readiness_gate_has_to_hold_too() -> None:
    gates = [{"conditionType": "example.com/go"}]
    status = reported(pod(readinessGates=gates), view(seen(container())))
    assert condition(status, "ContainersReady")["status"] == "True"
    assert condition(status, "Ready")["reason"] == "ReadinessGatesNotReady"
    held = {"conditions": [{"type": "example.com/go", "status": "True"}]}
    status = reported(pod(readinessGates=gates, status=held), view(seen(container())))
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "example.com/go")["status"] == "True"


def test_transition_times_change_only_with_the_status() -> None:
    old = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    status = reported(pod(status={"conditions": [old]}), view(seen(container())))
    assert condition(status, "Ready")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert condition(status, "ContainersReady")["lastTransitionTime"] == "2026-03-01T12:00:00Z"


def test_a_failed_pod_stays_failed() -> None:
    old = {"phase": "Failed", "reason": "Evicted", "message": "low"}
    status = reported(pod(status=old), PodView())
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", "low")


def test_a_sidecar_that_runs_keeps_the_pod_running() -> None:
    side = container("side", restartPolicy="Always")
    wanted = pod(initContainers=[side], restartPolicy="Never")
    status = reported(wanted, view(seen(side), seen(container(), EXITED)))
    assert status["phase"] == "Running"


def test_the_generation_is_observed() -> None:
    status = reported(pod(meta={"generation": 4}), view(seen(container())))
    assert status["observedGeneration"] == 4
    assert condition(status, "Ready")["observedGeneration"] == 4


def test_nothing_is_patched_when_nothing_changed() -> None:
    status = reported(pod(), view(seen(container())))
    again = reported(pod(status=status), view(seen(container())))
    assert patch(status, again) == {}


def test_a_patch_names_what_goes() -> None:
    old = reported(pod(), PodView())
    new = reported(pod(status=old), view(seen(container())))
    changes = patch(old, new)
    ready = next(c for c in changes["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"
    assert ready["reason"] is None
    moved = {**new, "podIPs": [{"ip": "10.42.0.10"}], "podIP": "10.42.0.10"}
    assert patch(new, moved)["podIPs"] == [
        {"ip": "10.42.0.10"},
        {"ip": "10.42.0.9", "$patch": "delete"},
    ]


def test_an_old_sandbox_is_not_ready_to_start_containers() -> None:
    status = reported(pod(), view(sandboxes=(sandbox(ready=False),)))
    assert condition(status, "PodReadyToStartContainers")["status"] == "False"
