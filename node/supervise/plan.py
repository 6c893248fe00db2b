"""
Decide what the supervisor does next. No I/O, no clock: facts and the time in, steps out.

A child that dies is started again: at once the first time, then after a delay
that doubles up to half a minute, so that a broken child neither takes the
machine down nor stays away long. A forked child that does not answer is hung
and is killed. Stopping goes in the reverse order of starting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.supervise.base import Facts, Forked, Phase

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
LONG_LIFE = 60.0  # a child that was ready this long starts with a clean record
ASK_EVERY = 30.0  # between signs of life; rare, since each one wakes two processes
ANSWER_WITHIN = 60.0
STOP_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    name: str


@dataclass(frozen=True, slots=True)
class AskForSign:
    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    name: str
    why: str


Step = Start | AskForSign | Terminate | Kill


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[Step, ...]
    wake_at: float | None  # when to decide again if nothing happens; None: only on events


def restart_delay(failures: int) -> float:
    if failures <= 1:
        return 0.0
    return float(min(FIRST_DELAY * 2 ** (failures - 2), LONGEST_DELAY))


def failures_after_death(facts: Facts, now: float) -> int:
    lived_long = facts.phase is Phase.READY and now - facts.since >= LONG_LIFE
    return 1 if lived_long else facts.failures + 1


def running(facts: Mapping[str, Facts], now: float) -> Plan:
    """What to do while everything should run."""
    steps: list[Step] = []
    wakes: list[float] = []
    ready_once = {name for name, fact in facts.items() if fact.was_ready}
    for name, fact in facts.items():
        match fact.phase:
            case Phase.WAITING if ready_once.issuperset(fact.service.after):
                due = fact.since + restart_delay(fact.failures)
                _when(due, now, Start(name), (steps, wakes))
            case Phase.READY if isinstance(fact.service, Forked):
                _look_after(fact, now, (steps, wakes))
            case _:
                pass
    return Plan(tuple(steps), min(wakes, default=None))


def _when(due: float, now: float, step: Step, out: tuple[list[Step], list[float]]) -> None:
    steps, wakes = out
    if due <= now:
        steps.append(step)
    else:
        wakes.append(due)


def _look_after(fact: Facts, now: float, out: tuple[list[Step], list[float]]) -> None:
    name = fact.service.name
    if fact.asked is None:
        _when(fact.heard + ASK_EVERY, now, AskForSign(name), out)
    else:
        kill = Kill(name, f"it gave no sign of life for {ANSWER_WITHIN:.0f} s")
        _when(fact.asked + ANSWER_WITHIN, now, kill, out)


def stopping(facts: Mapping[str, Facts], order: Sequence[str], now: float) -> Plan:
    """One after the other, the last started first; empty once nothing runs."""
    for name in reversed(order):
        fact = facts[name]
        match fact.phase:
            case Phase.WAITING:
                continue
            case Phase.STOPPING if now - fact.since >= STOP_WITHIN:
                return Plan((Kill(name, f"it did not stop within {STOP_WITHIN:.0f} s"),), None)
            case Phase.STOPPING:
                return Plan((), fact.since + STOP_WITHIN)
            case _:
                return Plan((Terminate(name),), now + STOP_WITHIN)
    return Plan((), None)
