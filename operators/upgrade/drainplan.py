"""
Which pods a drain takes away, which it leaves, and for which it stops. Pure.

As ``kubectl drain`` does it, in its order and its words: mirror pods and those of DaemonSets stay;
a pod that nobody would make again, or whose emptyDir holds data, keeps the whole drain from
beginning unless that was allowed. Finished pods always go.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from operators.upgrade import queries
from operators.upgrade.fields import Fields

# What does the upgrade stays until the end: jobs of system-upgrade-controller and itself, our
# jobs, and on another Kubernetes the pod in which this runs. Alone, it could not come back.
STAY = (
    "!upgrade.cattle.io/controller,!upgrade.pinnace.dev/plan,"
    "app.kubernetes.io/name!=pinnace-operators"
)
_MIRROR = "kubernetes.io/config.mirror"
_DAEMONSETS = "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"
_LOCAL_STORAGE = "Pods with local storage (use --delete-emptydir-data to override)"
_UNMANAGED = "cannot delete Pods that declare no controller (use --force to override)"
_YEAR = 366 * 86400
Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``spec.drain``; seconds are None where nothing was said."""

    force: bool
    grace: int | None  # of each pod; None: its own
    delete_empty_dirs: bool
    ignore_daemonsets: bool
    delete: bool  # instead of evicting: no budget is asked
    skip_after: int  # of a pod that is being deleted for longer; 0: wait for each
    timeout: int  # 0: without end
    query: str  # of the labels of pods


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Nothing goes while somebody is refused."""

    go: tuple[Pod, ...]  # to be evicted
    going: tuple[Pod, ...]  # on their way out, to be waited for
    refused: tuple[str, ...]  # kubectl's lines


def validate(options: Mapping[str, Any], path: str = "spec.drain") -> list[str]:
    """What is wrong, a line for each field."""
    fields = Fields(options, path)
    _read(fields)
    return fields.errors


def parse(options: Mapping[str, Any]) -> Options:
    """Raises ValueError, which says what is wrong."""
    fields = Fields(options, "drain")
    found = _read(fields)
    if fields.errors:
        raise ValueError("; ".join(fields.errors))
    return found


def _read(fields: Fields) -> Options:
    fields.only(
        *("enabled", "force", "gracePeriodSeconds", "deleteEmptyDirData", "ignoreDaemonSets"),
        *("disableEviction", "skipWaitForDeleteTimeout", "timeoutSeconds", "podSelector"),
    )
    fields.flag("enabled")
    grace = fields.number("gracePeriodSeconds", None, low=-1, high=_YEAR)
    chosen = STAY
    if (selector := fields.inside("podSelector")) is not None:
        before = len(fields.errors)
        queries.check(selector)
        if len(fields.errors) == before:
            chosen = ",".join(filter(None, (STAY, queries.text(selector.value))))
    return Options(
        force=fields.flag("force"),
        grace=None if grace is None or grace < 0 else grace,
        delete_empty_dirs=fields.flag("deleteEmptyDirData"),
        ignore_daemonsets=fields.flag("ignoreDaemonSets", default=True),
        delete=fields.flag("disableEviction"),
        skip_after=fields.number("skipWaitForDeleteTimeout", 0, low=0, high=_YEAR) or 0,
        timeout=fields.number("timeoutSeconds", 0, low=0, high=_YEAR) or 0,
        query=chosen,
    )


def of_daemonsets(pods: Iterable[Pod]) -> bool:
    """Whether it matters which DaemonSets there are."""
    return any(_controller(pod).get("kind") == "DaemonSet" for pod in pods)


def choose(
    pods: Iterable[Pod], options: Options, daemonsets: Collection[str], now: datetime
) -> Chosen:
    """``daemonsets``: those that there are, ``<namespace>/<name>``."""
    go, going = [], []
    refused: dict[str, list[str]] = {}
    for pod in pods:
        if _skipped(pod, options, now) or _stays(pod, options, daemonsets):
            continue
        # Who has been told to go goes, whatever it is.
        if pod["metadata"].get("deletionTimestamp"):
            going.append(pod)
        elif why := next(_refusals(pod, options, daemonsets), ""):
            refused.setdefault(why, []).append(named(pod))
        else:
            go.append(pod)
    lines = tuple(f"cannot delete {why}: {', '.join(who)}" for why, who in refused.items())
    return Chosen(go=tuple(go), going=tuple(going), refused=lines)


def named(pod: Pod) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _skipped(pod: Pod, options: Options, now: datetime) -> bool:
    """Who is on its way for so long does not come to an end by itself: a node that is gone."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if not deleted or not options.skip_after:
        return False
    since = datetime.fromisoformat(deleted).astimezone(UTC)
    return now - since > timedelta(seconds=options.skip_after)


def _stays(pod: Pod, options: Options, daemonsets: Collection[str]) -> bool:
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        return True
    return _of_daemonset(pod) and options.ignore_daemonsets and _owner(pod) in daemonsets


def _refusals(pod: Pod, options: Options, daemonsets: Collection[str]) -> Iterator[str]:
    if _of_daemonset(pod):
        if _owner(pod) in daemonsets:
            yield _DAEMONSETS
        elif not options.force:
            yield f'daemonsets.apps "{_controller(pod)["name"]}" not found'
    if _finished(pod):
        return
    volumes = pod["spec"].get("volumes") or ()
    if not options.delete_empty_dirs and any("emptyDir" in volume for volume in volumes):
        yield _LOCAL_STORAGE
    if not options.force and not _controller(pod):
        yield _UNMANAGED


def _of_daemonset(pod: Pod) -> bool:
    return _controller(pod).get("kind") == "DaemonSet" and not _finished(pod)


def _owner(pod: Pod) -> str:
    return f"{pod['metadata']['namespace']}/{_controller(pod)['name']}"


def _controller(pod: Pod) -> Mapping[str, Any]:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def _finished(pod: Pod) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
