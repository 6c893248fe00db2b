"""What is done next for a pod."""

from datetime import timedelta

import pytest

from node.cri.base import ContainerState
from node.kubelet.plan import (
    MakeSandbox,
    Plan,
    Remove,
    RemoveSandbox,
    Run,
    Stop,
    StopAll,
    StopSandbox,
    next_backoff,
    plan,
)
from node.kubelet.view import Backoff, Memory, PodView, Problem
from tests.unit.kubelet.pods import NOW, container, pod, sandbox, seen, view

EXITED = ContainerState.EXITED


def planned(a_pod: object, a_view: PodView, memory: Memory | None = None) -> Plan:
    return plan(a_pod, a_view, memory or Memory(), NOW)  # type: ignore[arg-type]


def test_a_new_pod_gets_a_sandbox_first() -> None:
    assert planned(pod(), PodView()).steps == [MakeSandbox(0)]


def test_then_every_container_is_run() -> None:
    wanted = pod(container("a"), container("b"))
    assert planned(wanted, view()).steps == [Run("a", 0, "s0"), Run("b", 0, "s0")]


def test_a_pod_that_runs_needs_nothing() -> None:
    made = planned(pod(), view(seen(container())))
    assert (made.steps, made.again_at, made.gone) == ([], None, False)


def test_init_containers_run_one_after_the_other() -> None:
    first, second, main = container("i1"), container("i2"), container()
    wanted = pod(main, initContainers=[first, second])
    assert planned(wanted, view()).steps == [Run("i1", 0, "s0")]
    assert planned(wanted, view(seen(first))).steps == []
    done = seen(first, EXITED)
    assert planned(wanted, view(done)).steps == [Run("i2", 0, "s0")]
    both = view(done, seen(second, EXITED))
    assert planned(wanted, both).steps == [Run("c", 0, "s0")]


def test_a_sidecar_holds_the_rest_until_it_has_started() -> None:
    side = container("side", restartPolicy="Always", startupProbe={"exec": {}})
    wanted = pod(container(), initContainers=[side])
    up = view(seen(side))
    assert planned(wanted, up).steps == []
    assert planned(wanted, up, Memory(started={"side-0"})).steps == [Run("c", 0, "s0")]


def test_a_dead_sidecar_is_restarted_while_the_pod_works() -> None:
    side = container("side", restartPolicy="Always")
    wanted = pod(container(), initContainers=[side], restartPolicy="Never")
    current = view(seen(side, EXITED, code=1), seen(container()))
    assert planned(wanted, current).steps == [Run("side", 1, "s0")]


def test_init_containers_run_again_in_a_new_sandbox() -> None:
    init = container("i")
    wanted = pod(container(), initContainers=[init])
    old = (seen(container(), EXITED), seen(init, EXITED))
    boxes = (sandbox(1), sandbox(0, ready=False))
    assert planned(wanted, view(*old, sandboxes=boxes)).steps == [Run("i", 1, "s1")]


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 1, True),
        ("OnFailure", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_decides(policy: str, code: int, restarts: bool) -> None:
    wanted = pod(restartPolicy=policy)
    steps = planned(wanted, view(seen(container(), EXITED, code=code))).steps
    assert steps == ([Run("c", 1, "s0")] if restarts else [StopSandbox("s0")])


def test_a_container_may_have_rules_of_its_own() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    spec = container(restartPolicy="Never", restartPolicyRules=[rule])
    wanted = pod(spec, restartPolicy="Never")
    again = view(seen(spec, EXITED, code=42))
    assert planned(wanted, again).steps == [Run("c", 1, "s0")]
    assert planned(wanted, view(seen(spec, EXITED, code=1))).steps == [StopSandbox("s0")]


def test_a_crash_loop_waits_and_says_so() -> None:
    memory = Memory(restarts={"c": Backoff(timedelta(seconds=40), NOW)})
    made = planned(pod(), view(seen(container(), EXITED, code=1, ago=15)), memory)
    assert made.steps == []
    assert made.again_at == NOW + timedelta(seconds=25)
    assert made.waiting["c"].reason == "CrashLoopBackOff"
    assert made.waiting["c"].message == ("back-off 40s restarting failed container=c pod=p_ns(u1)")


def test_the_back_off_doubles_up_to_five_minutes_and_is_forgotten() -> None:
    backoff, delays = None, []
    for _ in range(7):
        backoff = next_backoff(backoff, NOW)
        delays.append(int(backoff.delay.total_seconds()))
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    later = next_backoff(backoff, NOW + timedelta(minutes=11))
    assert later.delay == timedelta(seconds=10)


def test_a_container_that_failed_its_probe_is_stopped_and_then_restarted() -> None:
    running = seen(container())
    memory = Memory(unhealthy={"c-0": "Container {name} failed liveness probe"})
    assert planned(pod(), view(running), memory).steps == [
        Stop(running, "Container {name} failed liveness probe")
    ]


def test_a_changed_image_replaces_the_container() -> None:
    (step,) = planned(pod(container(image="busybox:2")), view(seen(container()))).steps
    assert isinstance(step, Stop)
    assert "definition changed" in step.why


def test_a_problem_is_shown_and_tried_again_when_due() -> None:
    wait = timedelta(seconds=10)
    problem = Problem("ErrImagePull", "no", NOW + wait, wait, is_image=True)
    made = planned(pod(), view(), Memory(problems={"c": problem}))
    assert (made.steps, made.waiting["c"].reason) == ([], "ErrImagePull")
    assert made.again_at == problem.retry_at
    later = plan(pod(), view(), Memory(problems={"c": problem}), NOW + wait)
    assert later.steps == [Run("c", 0, "s0")]


def test_a_deleted_pod_is_stopped_then_its_sandbox_then_it_is_gone() -> None:
    meta = {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 7}
    wanted = pod(meta=meta)
    (step,) = planned(wanted, view(seen(container()))).steps
    assert isinstance(step, StopAll)
    assert step.grace == 7
    ended = seen(container(), EXITED)
    assert planned(wanted, view(ended)).steps == [StopSandbox("s0")]
    assert planned(wanted, view(ended, sandboxes=(sandbox(ready=False),))).gone


def test_a_pod_past_its_deadline_is_stopped() -> None:
    wanted = pod(activeDeadlineSeconds=30, status={"startTime": "2026-03-01T11:59:45Z"})
    assert planned(wanted, view(seen(container()))).again_at == NOW + timedelta(seconds=15)
    late = plan(wanted, view(seen(container())), Memory(), NOW + timedelta(seconds=15))
    assert isinstance(late.steps[0], StopAll)


def test_a_finished_pod_is_never_started_again() -> None:
    wanted = pod(status={"phase": "Failed"})
    assert planned(wanted, PodView()).gone


def test_sidecars_are_stopped_when_the_others_are_done() -> None:
    side = container("side", restartPolicy="Always")
    wanted = pod(container(), initContainers=[side], restartPolicy="Never")
    (step,) = planned(wanted, view(seen(side), seen(container(), EXITED))).steps
    assert isinstance(step, StopAll)


def test_containers_of_a_dead_sandbox_are_stopped_before_the_next_one() -> None:
    dead = view(seen(container()), sandboxes=(sandbox(ready=False),))
    (step,) = planned(pod(), dead).steps
    assert isinstance(step, StopAll)
    ended = view(seen(container(), EXITED), sandboxes=(sandbox(ready=False),))
    assert planned(pod(), ended).steps == [MakeSandbox(1)]


def test_old_dead_containers_and_empty_sandboxes_are_removed() -> None:
    containers = (
        seen(container(), attempt=3),
        seen(container(), EXITED, attempt=2),
        seen(container(), EXITED, attempt=1),
    )
    boxes = (sandbox(1), sandbox(0, ready=False))
    steps = planned(pod(), view(*(containers), sandboxes=boxes)).steps
    assert Remove("c-1", "c") in steps
    assert RemoveSandbox("s0") not in steps
    moved = seen(container(), sandbox="s1")
    assert RemoveSandbox("s0") in planned(pod(), view(moved, sandboxes=boxes)).steps


def test_an_ephemeral_container_starts_once() -> None:
    debug = container("debug")
    wanted = pod(ephemeralContainers=[debug])
    assert planned(wanted, view(seen(container()))).steps == [Run("debug", 0, "s0")]
    ended = view(seen(container()), seen(debug, EXITED, code=1))
    assert planned(wanted, ended).steps == []


def test_a_clock_that_is_set_back_does_not_prolong_a_wait() -> None:
    memory = Memory(restarts={"c": Backoff(timedelta(seconds=40), NOW)})
    current = view(seen(container(), EXITED, code=1, ago=-3600))
    assert planned(pod(), current, memory).steps == [Run("c", 1, "s0")]
