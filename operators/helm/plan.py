"""
From the record of a release and what is wanted of it to the next step. Pure.

What was last wanted is remembered where Helm remembers what it did: each revision
that we make carries a hash of all that shapes it, and its own number, as labels of its
record. A revision that a person makes (``helm rollback`` copies the labels of an older
one) has a number that is not its own, so it is never taken for ours: what a person
did stands until the HelmChart changes. A restart forgets nothing.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

FINALIZER = "wrangler.cattle.io/on-helm-chart-remove"
UNMANAGED = "helmcharts.helm.cattle.io/unmanaged"
MANAGED_BY = "helmcharts.cattle.io/managed-by"
# Ours, and what K3s writes: a chart that comes with its data directory or a backup stays managed.
MANAGERS = frozenset({"pinnace", "helm-controller"})
HASH_LABEL = "helmcharts.helm.cattle.io/configHash"
REVISION_LABEL = "pinnace.dev/helm-revision"
OWNER_LABEL = "pinnace.dev/helm-chart-namespace"

# A node that stops in the middle of an upgrade is no failure of the chart, but a chart
# that stops the node each time is.
INTERRUPTIONS = 3
# So many attempts at a chart in so many seconds are a storm; then each waits longer than the one
# before it, up to a limit, until it has been calm for as long.
STORM_ATTEMPTS = 9
STORM_SECONDS = 600.0
STORM_FIRST_PAUSE = 30.0
STORM_LONGEST_PAUSE = 300.0


class Step(enum.Enum):
    IGNORE = enum.auto()  # not ours to touch
    FORGET = enum.auto()  # take the finalizer away, nothing else
    UNINSTALL = enum.auto()
    INSTALL = enum.auto()
    UPGRADE = enum.auto()
    REINSTALL = enum.auto()  # uninstall, then install
    ROLLBACK = enum.auto()  # to the last revision that was good
    CLEAN = enum.auto()  # uninstall a first install that failed, and leave it so
    HEAL = enum.auto()  # a revision was interrupted: mark it failed and look again
    WAIT = enum.auto()  # somebody else may be at work on the release
    LEAVE = enum.auto()  # failed, and the failure policy is to leave it so
    ROLLED_BACK = enum.auto()  # what is wanted failed, what was before it runs
    NOTHING = enum.auto()  # as wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of a release, from the labels of its record."""

    version: int
    status: str
    hash: str  # "": made by somebody else
    recorded: int  # the number that we gave it; 0: made by somebody else
    modified_at: int  # seconds since 1970
    uid: str = ""  # of its record: a revision of the same number may come after it
    owner: str = ""  # namespace of the HelmChart that it is of; its name is the release's

    @property
    def ours(self) -> bool:
        return self.recorded == self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of earlier attempts at just what is wanted now."""

    interrupted: int = 0  # how often in a row one was cut short
    given_up: bool = False
    touched: bool = False  # the chart was changed since, if not in what shapes the release
    rolling_back: bool = False  # we began to; Helm gives the revision the labels of another


NOTHING_KNOWN = Memory()


def managed(chart: Object) -> bool:
    annotations = chart["metadata"].get("annotations") or {}
    return UNMANAGED not in annotations and annotations.get(MANAGED_BY, "pinnace") in MANAGERS


def is_held(chart: Object) -> bool:
    """Whether our finalizer keeps a chart that is nobody's any more from going."""
    metadata = chart["metadata"]
    nobodys = UNMANAGED in (metadata.get("annotations") or {})
    return (
        nobodys
        and "deletionTimestamp" in metadata
        and FINALIZER in (metadata.get("finalizers") or ())
    )


def labels(
    config_hash: str, history: Sequence[Revision], step: Step, *, owner: str
) -> tuple[tuple[str, str], ...]:
    """Of the revision that this step makes. ``owner``: the namespace of the HelmChart."""
    last = 0 if step is Step.REINSTALL or not history else history[-1].version
    return (
        (HASH_LABEL, config_hash),
        (REVISION_LABEL, str(last + 1)),
        (OWNER_LABEL, owner),
    )


def history_of(records: Sequence[Object]) -> tuple[Revision, ...]:
    """From the metadata of the records in which Helm keeps a release; oldest first."""
    found = []
    for metadata in records:
        label = metadata.get("labels") or {}
        if label.get("owner") == "helm" and label.get("version", "").isdecimal():
            recorded = label.get(REVISION_LABEL, "")
            modified = label.get("modifiedAt") or label.get("createdAt") or ""
            revision = Revision(
                version=int(label["version"]),
                status=label.get("status", "unknown"),
                hash=label.get(HASH_LABEL, ""),
                recorded=int(recorded) if recorded.isdecimal() else 0,
                modified_at=int(modified) if modified.isdecimal() else 0,
                uid=str(metadata.get("uid") or ""),
                owner=label.get(OWNER_LABEL, ""),
            )
            found.append(revision)
    return tuple(sorted(found, key=lambda revision: revision.version))


def last_ours(history: Sequence[Revision]) -> Revision | None:
    return next((found for found in reversed(history) if found.ours), None)


def recorded_hash(history: Sequence[Revision]) -> str:
    """What the last revision of ours was made from; "": there is none."""
    found = last_ours(history)
    return found.hash if found else ""


def last_good(history: Sequence[Revision]) -> Revision | None:
    """The last one that worked. One that failed is never superseded, so those that are worked."""
    good = {"deployed", "superseded"}
    return next((found for found in reversed(history) if found.status in good), None)


def on_deletion(chart: Object, namespace: Object | None, history: Sequence[Revision]) -> Step:
    if FINALIZER not in (chart["metadata"].get("finalizers") or ()):
        return Step.IGNORE
    # All in it goes anyway, and what an uninstall needs may be gone already.
    terminating = namespace is None or "deletionTimestamp" in namespace["metadata"]
    return Step.FORGET if terminating or not history else Step.UNINSTALL


def decide(
    history: Sequence[Revision],
    wanted_hash: str,
    *,
    policy: str,
    timeout: int,
    now: float,
    waited: float = 0.0,
    memory: Memory = NOTHING_KNOWN,
) -> Step:
    """
    ``now``: seconds since 1970. ``waited``: for how many seconds this process has seen the last
    revision as it is. No step of ours is under way when this is asked.
    """
    if not history or history[-1].status == "uninstalled":
        return Step.INSTALL
    last = history[-1]
    match last.status:
        case "uninstalling":
            return Step.CLEAN if memory.given_up else Step.REINSTALL
        case "failed":
            return _after_failure(history, wanted_hash, policy, memory)
        case "deployed" if recorded_hash(history) == wanted_hash:
            return _as_recorded(history, memory)
        case status if status.startswith("pending-"):
            # The clock of the machine may have been wrong when the record was written.
            abandoned = now - last.modified_at > timeout or waited >= timeout
            ours = last.ours or (memory.rolling_back and status == "pending-rollback")
            return Step.HEAL if ours or abandoned else Step.WAIT
        case _:
            return Step.UPGRADE


def _after_failure(
    history: Sequence[Revision], wanted_hash: str, policy: str, memory: Memory
) -> Step:
    if policy == "abort":
        return Step.LEAVE
    again = Step.UPGRADE if policy == "retry" or last_good(history) else Step.REINSTALL
    if policy == "retry" or 0 < memory.interrupted < INTERRUPTIONS:
        return again
    if policy != "rollback":
        return Step.REINSTALL
    if recorded_hash(history) != wanted_hash or memory.touched:
        return again
    return Step.ROLLBACK if last_good(history) else Step.CLEAN


def _as_recorded(history: Sequence[Revision], memory: Memory) -> Step:
    ours = last_ours(history)
    if ours is None or ours.status != "failed":
        return Step.NOTHING
    return Step.UPGRADE if memory.touched else Step.ROLLED_BACK


def storm(ages: Sequence[float], held: int) -> float | None:
    """
    How many seconds the next attempt has to wait because there were so many of late; None: it is
    calm.

    ``ages``: of the last few attempts, in seconds, newest first; ``held``: how many of them had
    to wait for this reason since it was calm.
    """
    recent = [age for age in ages if age < STORM_SECONDS]
    if not recent or (not held and len(recent) < STORM_ATTEMPTS):
        return None
    pause = min(STORM_FIRST_PAUSE * 2.0 ** min(held, 10), STORM_LONGEST_PAUSE)
    return max(0.0, pause - recent[0])
