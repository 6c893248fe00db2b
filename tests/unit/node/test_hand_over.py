"""A child may ask the daemon to end the others and to go on alone, in a process aside."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from node.supervise.aside import DIED, run_aside
from node.supervise.base import Forked

HANDS_OVER, STAYS = "tests.fakes.hands_over", "tests.fakes.child"
PATIENCE = 30


def in_a_process(work: Callable[[], int]) -> int:
    """Its exit code; signals and forks belong to a main thread of its own."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    timer = threading.Timer(PATIENCE, os.kill, (pid, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status)


def supervise(folder: Path, report: Path) -> int:
    from node.supervise.apply import Supervisor

    told = {"report": str(report)}
    services = [
        Forked(name="one", module=STAYS, settings=told),
        Forked(name="two", module=HANDS_OVER, settings=told, after=("one",)),
    ]
    supervisor = Supervisor(services, run_dir=folder, clock=time.monotonic, on_ready=lambda: None)
    return 1 if supervisor.run() else 0


def test_a_child_that_hands_over_ends_all_and_the_daemon_goes_on_alone(tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert in_a_process(lambda: supervise(tmp_path, report)) == 1
    lines = report.read_text().splitlines()
    assert lines[-2:] == ["handed over", "orderly stop"]
    assert sum(line.startswith("life") for line in lines) == 1  # nobody was started again


@pytest.mark.parametrize(
    ("told", "code"), [({"code": 0}, 0), ({"code": 75}, 75), ({"raises": True}, DIED)]
)
def test_what_is_run_aside_is_another_process_whose_answer_counts(
    tmp_path: Path, told: Mapping[str, Any], code: int
) -> None:
    settings = {"report": str(tmp_path / "report"), **told}

    def work() -> int:
        (tmp_path / "daemon").write_text(str(os.getpid()))
        return run_aside(HANDS_OVER, settings, "update")

    assert in_a_process(work) == code
    daemon = (tmp_path / "daemon").read_text()
    assert (tmp_path / "report").read_text() == f"aside of {daemon}\n"


def test_a_module_that_cannot_be_loaded_is_an_answer_too(tmp_path: Path) -> None:
    assert in_a_process(lambda: run_aside("tests.fakes.no_such_module", {}, "update")) == DIED
