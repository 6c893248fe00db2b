"""
A time of day that knows how the clock was set meanwhile.

A board without a battery starts in 1970, or where it was switched off, and learns the true
time minutes later, when its objects already carry times of the wrong clock. A difference of two
times of day says nothing then. So the time that is handed to whoever decides remembers how
the clock was set since the machine started, and :func:`elapsed` counts what really passed.

Times of an earlier start are taken as they are: nobody knows how long the machine was off.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# This program is not older, so no true clock is behind it. Renewed with each release.
BUILD = datetime(2026, 11, 1, tzinfo=UTC)
_MUCH = timedelta(hours=1)
_SECOND = timedelta(seconds=1)  # objects carry whole seconds


@dataclass(frozen=True, slots=True)
class Step:
    """The clock was set: it went from ``begin`` to ``before``, and on from ``after``."""

    begin: datetime
    before: datetime
    after: datetime


class Moment(datetime):
    """Now. What is computed from it is a plain time: only now is compared with what was."""

    steps: tuple[Step, ...] = ()  # the oldest first
    sure: bool = True  # False: the clock was never set by anybody who knows


def moment(seconds: float, *, steps: tuple[Step, ...] = (), sure: bool = True) -> Moment:
    """``seconds`` since 1970."""
    made = Moment.fromtimestamp(seconds, UTC)
    made.steps, made.sure = steps, sure
    return made


def is_sure(now: datetime) -> bool:
    """Whether this may be the true time."""
    return now >= BUILD and getattr(now, "sure", True)


def trusts_dates(now: datetime) -> bool:
    """
    Whether other people's certificates may be judged by their dates.

    Not while the true time is unknown, nor, until the machine starts again, once the clock has
    been set by much: what was made before bears the dates of another clock.
    """
    steps: tuple[Step, ...] = getattr(now, "steps", ())
    return is_sure(now) and all(abs(s.after - s.before) < _MUCH for s in steps)


def is_over(end: datetime, now: datetime) -> bool:
    """
    Whether a time that was set as an end has come.

    One that the clock jumped over comes as much later as it was away before that.
    """
    if now <= end:
        return False
    steps: tuple[Step, ...] = getattr(now, "steps", ())
    for step in steps:
        if step.before <= end < step.after:
            return elapsed(step.after, now) > end - step.before
    return True


def elapsed(since: datetime, now: datetime) -> timedelta:
    """
    How long ago that really was; what the clock was set by since then does not count.

    Negative: ``since`` is ahead of every clock that this machine has had since its start.
    """
    steps: tuple[Step, ...] = getattr(now, "steps", ())
    plain = now - since
    if not steps or steps[-1].after - _SECOND <= since <= now:
        return plain
    later = now - steps[-1].after  # how long the clock has been what it is
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        if step.begin - _SECOND <= since <= step.before + _SECOND:
            return step.before - since + later
        later += step.before - step.begin
    return plain


def left(
    since: datetime, span: timedelta, now: datetime, *, ahead: timedelta = timedelta(0)
) -> timedelta:
    """
    What is left of a time span that began at ``since``; 0: it is over.

    ``ahead`` is the answer where ``since`` lies in the future, which only a clock that was
    wrong can have written: such a wait would take years.
    """
    passed = elapsed(since, now)
    if passed < -_SECOND:
        return ahead
    return max(span - passed, timedelta(0))
