"""
Where one node stands with a plan, and what it waits for. Pure.

All of it is read from the Node: what the operator noted there (its progress), what it asked
(the request) and what the node answered (the report). Nothing depends on the plan's status
or on memory, so whoever looks comes to the same, whoever was killed before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from operators.upgrade.base import Offer
from operators.upgrade.objects import Node, Progress, Report, moment
from operators.upgrade.spec import Plan, Wanted

# A node that has not come back this long after its trial must be over will not by itself.
MARGIN = timedelta(minutes=10)
# One that is away for so long while it has yet to be disturbed gives its turn to another.
AWAY = timedelta(minutes=5)
# A download and a write take no longer, on whatever line and card.
INSTALL = timedelta(hours=6)


class Phase(StrEnum):
    PENDING = "Pending"  # its turn comes
    WAITING = "Waiting"  # its turn would come, were it ready or free
    DOWNLOADING = "Downloading"
    INSTALLING = "Installing"
    INSTALLED = "Installed"
    DRAINING = "Draining"
    RUNNING = "Running"  # its Job
    SWITCHING = "Switching"
    TRIAL = "Trial"
    COMMITTED = "Committed"  # until postComplete is done
    LOST = "Lost"  # it never came back
    ROLLING_BACK = "RollingBack"
    UPDATED = "Updated"
    SKIPPED = "Skipped"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"
    FAILED = "Failed"


FAILURES = frozenset({Phase.ROLLED_BACK, Phase.REFUSED, Phase.FAILED})
FINAL = FAILURES | {Phase.UPDATED, Phase.SKIPPED}
IDLE = frozenset({Phase.PENDING, Phase.WAITING})
CANCELLED = "Cancelled"  # the outcome of a request that was taken away


class Step(StrEnum):
    """What comes next, where nothing has to happen before."""

    NONE = ""
    DISTURB = "Disturb"  # it may be cordoned, drained and switched, if the plan allows it now
    DRAIN = "Drain"  # go on draining
    JOB = "Job"  # see to its Job
    JUDGE = "Judge"  # its trial is healthy: perform the checks
    FINISH = "Finish"  # it came to an end, ``outcome``
    TELL = "Tell"  # postComplete
    GIVE_UP = "GiveUp"  # take the request away, its turn comes again


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    node: Node
    phase: Phase
    message: str = ""
    step: Step = Step.NONE
    outcome: str = ""  # of FINISH: a final phase
    wake: datetime | None = None  # when time alone changes this

    @property
    def final(self) -> bool:
        return self.phase in FINAL

    @property
    def active(self) -> bool:
        """It takes one of the places that the plan may fill at once."""
        return not self.final and self.phase not in IDLE

    @property
    def shown(self) -> Phase:
        """As people read it: an end also while it is only about to be written."""
        ended = Phase(self.outcome) if self.outcome else self.phase
        return self.phase if ended is Phase.UPDATED else ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan wants of any node, now."""

    plan: Plan
    wanted: Wanted
    versions: Mapping[str, str]  # by board; "" for nodes without; missing: not known
    offers: Mapping[str, Offer] | None  # None: not asked yet
    now: datetime

    def version(self, node: Node) -> str:
        return self.versions.get(node.board, "")


def holds(node: Node, plan: Plan) -> Progress | None:
    """What this plan is about to do to the node."""
    progress = node.progress
    return progress if progress and progress.active and progress.uid == plan.uid else None


def state_of(node: Node, asked: Asked) -> State:
    """Of a node that this plan has, or has in work."""
    if progress := holds(node, asked.plan):
        return _active(node, progress, asked)
    progress, version = node.progress, asked.version(node)
    if progress and progress.uid == asked.plan.uid and progress.version == version:
        found = _ended(node, progress, asked)
        if found is not None:
            return found
    return _idle(node, version, asked)


def _idle(node: Node, version: str, asked: Asked) -> State:
    if node.leaving:
        return State(node=node, phase=Phase.SKIPPED, message="is being deleted")
    if not node.board and not asked.wanted.job:
        why = "has no slots of Pinnace, and the plan has no jobTemplate"
        return State(node=node, phase=Phase.SKIPPED, message=why)
    if version and node.board and node.runs(version):
        return State(node=node, phase=Phase.UPDATED)
    if node.board and asked.offers is not None and node.board not in asked.offers:
        why = f"there is no bundle for its board, {node.board}"
        return State(node=node, phase=Phase.SKIPPED, message=why)
    failed = node.report.failed if node.report else ()
    if version in failed and not asked.wanted.retry_failed:
        why = f"{version} failed here before; spec.retryFailed tries it again"
        return State(node=node, phase=Phase.REFUSED, message=why)
    if not node.ready:
        phase = Phase.SKIPPED if asked.wanted.skip_not_ready else Phase.WAITING
        return State(node=node, phase=phase, message="is not Ready")
    return State(node=node, phase=Phase.PENDING)


def _ended(node: Node, progress: Progress, asked: Asked) -> State | None:
    """None: it ended in a way that counts no more."""
    if progress.outcome == Phase.UPDATED:
        if not progress.job and not node.runs(progress.version):
            return None
        return _after(node, progress, asked)
    if progress.outcome not in FAILURES:
        return None
    phase = Phase(progress.outcome)
    may_again = phase is not Phase.ROLLED_BACK or asked.wanted.retry_failed
    if may_again and progress.generation < asked.plan.generation:
        return None
    return State(node=node, phase=phase, message=progress.why)


def _after(node: Node, progress: Progress, asked: Asked) -> State:
    if progress.told or not asked.wanted.tells:
        return State(node=node, phase=Phase.UPDATED)
    due = _later(progress.end, timedelta(seconds=asked.wanted.delay), asked.now)
    if due <= asked.now:
        return State(node=node, phase=Phase.COMMITTED, step=Step.TELL)
    return State(node=node, phase=Phase.COMMITTED, message="settles", wake=due)


def _active(node: Node, progress: Progress, asked: Asked) -> State:
    if progress.job:
        return _job(node, progress, asked)
    if progress.back:
        return _back(node, progress, asked)
    if progress.switch:
        return _switched(node, progress, asked)
    if node.request is None:
        why = "its request was taken away"
        return State(node=node, phase=Phase.DOWNLOADING, message=why, step=Step.GIVE_UP)
    answer = node.answer
    if answer and answer.phase in FAILURES:
        if node.runs(progress.version):  # brought there by a person meanwhile
            return _finish(node, Phase.UPDATED, "")
        return _finish(node, Phase(answer.phase), answer.message)
    if progress.drain:
        return State(node=node, phase=Phase.DRAINING, step=Step.DRAIN)
    if answer and answer.phase == Phase.INSTALLED:
        return State(node=node, phase=Phase.INSTALLED, step=Step.DISTURB)
    return _installing(node, progress, answer, asked)


def _installing(node: Node, progress: Progress, answer: Report | None, asked: Asked) -> State:
    installing = answer is not None and answer.phase == Phase.INSTALLING
    phase = Phase.INSTALLING if installing else Phase.DOWNLOADING
    message = _told(answer) if answer else "has not answered yet"
    over = _later(progress.started, INSTALL, asked.now)
    if over <= asked.now:
        return _finish(node, Phase.FAILED, f"did not install it within {INSTALL}: {message}")
    if not node.ready:
        gone = _later(node.changed, AWAY, asked.now)
        if gone <= asked.now:
            return State(node=node, phase=phase, message="is not Ready", step=Step.GIVE_UP)
        return State(node=node, phase=phase, message="is not Ready", wake=gone)
    return State(node=node, phase=phase, message=message, wake=over)


def _switched(node: Node, progress: Progress, asked: Asked) -> State:
    answer = node.answer
    if answer and answer.phase == Phase.COMMITTED:
        return _finish(node, Phase.UPDATED, "")
    if answer and answer.phase in FAILURES:
        return _finish(node, Phase(answer.phase), answer.message)
    lost = _lost(node, progress.switch, asked)
    if lost.phase is Phase.LOST:
        return lost
    trial = answer is not None and answer.phase == Phase.TRIAL
    phase = Phase.TRIAL if trial else Phase.SWITCHING
    judged = node.request is not None and bool(node.request.verdict)
    judge = trial and answer is not None and answer.healthy and bool(asked.wanted.checks)
    return State(
        node=node,
        phase=phase,
        message=_told(answer) if answer else "",
        step=Step.JUDGE if judge and not judged else Step.NONE,
        wake=lost.wake,
    )


def _back(node: Node, progress: Progress, asked: Asked) -> State:
    answer = node.answer
    if not progress.switch:
        return State(node=node, phase=Phase.ROLLING_BACK, step=Step.DRAIN)
    if answer and answer.phase in FAILURES:
        return _finish(node, Phase(answer.phase), answer.message)
    if answer and answer.phase == Phase.COMMITTED and not node.runs(progress.version):
        return _finish(node, Phase.ROLLED_BACK, answer.message)
    lost = _lost(node, progress.switch, asked)
    if lost.phase is Phase.LOST:
        return lost
    return State(node=node, phase=Phase.ROLLING_BACK, message=_told(answer), wake=lost.wake)


def _job(node: Node, progress: Progress, asked: Asked) -> State:
    if progress.drain and not progress.switch:
        return State(node=node, phase=Phase.DRAINING, step=Step.DRAIN)
    return State(node=node, phase=Phase.RUNNING, step=Step.JOB)


def _lost(node: Node, since: str, asked: Asked) -> State:
    limit = timedelta(seconds=asked.wanted.soak + asked.wanted.deadline) + MARGIN
    over = _later(since, limit, asked.now)
    if over <= asked.now:
        why = f"did not come back within {int(limit.total_seconds())} s"
        return State(node=node, phase=Phase.LOST, message=why)
    return State(node=node, phase=Phase.SWITCHING, wake=over)


def _finish(node: Node, outcome: Phase, why: str) -> State:
    """It still takes its place until that is written."""
    phase = Phase.COMMITTED if outcome is Phase.UPDATED else Phase.SWITCHING
    return State(node=node, phase=phase, message=why, step=Step.FINISH, outcome=outcome)


def _told(answer: Report | None) -> str:
    if answer is None:
        return ""
    percent = f"{answer.percent} %" if 0 < answer.percent < 100 else ""
    return ": ".join(filter(None, (percent, answer.message)))


def _later(since: str, by: timedelta, now: datetime) -> datetime:
    """A time that lies ahead is that of a clock that was wrong: it counts from now."""
    return min(moment(since) or now, now) + by
