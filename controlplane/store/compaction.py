"""
When to forget history, and how much: decided from values, done by the caller.

A client may go on from a revision for as long as etcd behind kube-apiserver lets
it, five minutes, and always from the last thousand revisions. Deleting rows
writes to flash, so it is done in steps of some size. The caller asks only after
writes: a store that nobody writes to is never compacted.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    revisions: int = 1000  # the newest ones stay, however old
    seconds: float = 300.0  # so does what is younger, however much
    step: int = 500  # revisions that one compaction forgets at least


@dataclass(frozen=True, slots=True)
class Mark:
    """At this time of a monotonic clock, this was the newest revision."""

    at: float
    revision: int


@dataclass(frozen=True, slots=True)
class Plan:
    compact_to: int  # for Store.compact; 0: not now
    marks: tuple[Mark, ...]  # for the next call


DEFAULT = Retention()


def plan(
    marks: Sequence[Mark],
    *,
    now: float,
    newest: int,
    compacted: int,
    retention: Retention = DEFAULT,
) -> Plan:
    """``marks`` of the last plan, () at the start; ``newest`` and ``compacted`` from statistics."""
    kept = list(marks)
    if not kept or (newest > kept[-1].revision and now - kept[-1].at >= retention.seconds / 10):
        kept.append(Mark(now, newest))
    old = [mark for mark in kept if now - mark.at >= retention.seconds]
    target = min(old[-1].revision, newest - retention.revisions) if old else 0
    # Of the old marks only the newest says anything that the others do not.
    kept = kept[max(0, len(old) - 1) :]
    due = target - compacted >= retention.step
    return Plan(target if due else 0, tuple(kept))
