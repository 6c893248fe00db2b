"""The supervisor: what it decides, and real children that die, hang and stop."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from node.supervise import plan
from node.supervise.base import Executed, Facts, Forked, Phase
from node.supervise.plan import AskForSign, Kill, Start, Terminate

API = Forked(name="api", module="x", settings={})
AGENT = Forked(name="agent", module="x", settings={}, after=("api",))
CRI = Executed(name="cri", argv=("true",), log=Path("log"))


def facts(**phases: Facts) -> Mapping[str, Facts]:
    return phases


def test_starts_what_waits_for_nobody() -> None:
    decided = plan.running(facts(api=Facts(service=API), agent=Facts(service=AGENT)), 0.0)
    assert decided.steps == (Start("api"),)


def test_starts_the_next_once_the_first_was_ready() -> None:
    api = Facts(service=API, phase=Phase.READY, was_ready=True, heard=1.0)
    decided = plan.running(facts(api=api, agent=Facts(service=AGENT)), 1.0)
    assert decided.steps == (Start("agent"),)


def test_a_dependent_is_started_again_while_the_first_is_down() -> None:
    api = Facts(service=API, was_ready=True, failures=3, since=5.0)
    decided = plan.running(facts(api=api, agent=Facts(service=AGENT)), 5.0)
    assert decided == plan.Plan((Start("agent"),), 5.0 + plan.restart_delay(3))


def test_the_delay_doubles_up_to_a_bound() -> None:
    assert [plan.restart_delay(n) for n in (1, 2, 3, 4, 20)] == [0.0, 0.5, 1.0, 2.0, 30.0]


def test_a_long_life_clears_the_record() -> None:
    ready = Facts(service=API, phase=Phase.READY, since=0.0, failures=7)
    assert plan.failures_after_death(ready, plan.LONG_LIFE) == 1
    assert plan.failures_after_death(ready, 1.0) == 8


def test_a_silent_child_is_asked_and_then_killed() -> None:
    ready = Facts(service=API, phase=Phase.READY, was_ready=True, heard=0.0)
    assert plan.running(facts(api=ready), 1.0).wake_at == plan.ASK_EVERY
    assert plan.running(facts(api=ready), plan.ASK_EVERY).steps == (AskForSign("api"),)
    asked = replace(ready, asked=plan.ASK_EVERY)
    (step,) = plan.running(facts(api=asked), plan.ASK_EVERY + plan.ANSWER_WITHIN).steps
    assert isinstance(step, Kill)


def test_an_executed_child_is_not_asked() -> None:
    ready = Facts(service=CRI, phase=Phase.READY, was_ready=True)
    assert plan.running(facts(cri=ready), 1e6) == plan.Plan((), None)


def test_stops_the_last_first_and_waits_for_each() -> None:
    order = ("api", "agent")
    ready = Facts(service=API, phase=Phase.READY)
    both = facts(api=ready, agent=replace(ready, service=AGENT))
    assert plan.stopping(both, order, 0.0).steps == (Terminate("agent"),)
    leaving = facts(api=ready, agent=Facts(service=AGENT, phase=Phase.STOPPING, since=0.0))
    assert plan.stopping(leaving, order, 1.0) == plan.Plan((), plan.STOP_WITHIN)
    (step,) = plan.stopping(leaving, order, plan.STOP_WITHIN).steps
    assert isinstance(step, Kill)
    gone = facts(api=ready, agent=Facts(service=AGENT))
    assert plan.stopping(gone, order, 0.0).steps == (Terminate("api"),)


def run_supervisor(folder: Path, *lines: str) -> tuple[int, str]:
    """In a process of its own, as the daemon is: signals and forks belong to a main thread."""
    report = folder / "report"
    pid = os.fork()
    if pid == 0:
        try:
            _supervise(folder, report)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    timer = threading.Timer(20, os.kill, (pid, signal.SIGKILL))
    timer.start()
    for wanted in lines:
        while wanted not in (report.read_text() if report.exists() else ""):
            assert time.monotonic() < deadline, f"no {wanted!r} in {report.read_text()!r}"
            os.sched_yield()
        if wanted.startswith("child"):
            victim = int(report.read_text().split("child ")[1].split()[0])
            os.kill(victim, signal.SIGKILL)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status), report.read_text()


def _supervise(folder: Path, report: Path) -> None:
    from node.supervise.apply import Supervisor

    service = Forked(name="one", module="tests.fakes.child", settings={"report": str(report)})
    Supervisor(
        [service], run_dir=folder, clock=time.monotonic, on_ready=lambda: _note(report, "all ready")
    ).run()
    _note(report, "supervisor stopped")


def _note(report: Path, text: str) -> None:
    with report.open("a") as file:
        file.write(text + "\n")


def test_a_child_that_was_killed_comes_back_and_stops_in_order(tmp_path: Path) -> None:
    code, report = run_supervisor(tmp_path, "all ready", "child", "life 2")
    assert code == 0
    assert report.endswith("orderly stop\nsupervisor stopped\n")
