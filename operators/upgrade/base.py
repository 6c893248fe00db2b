"""
The contracts within the upgrade operator, and its words with the nodes.

**With a node of Pinnace** it speaks through two annotations on the Node, each compact JSON. The
operator writes the request; the node's agent, which may write to no other object, the report.

``upgrade.pinnace.dev/request``::

    {"plan": "fleet", "uid": "<of the plan>", "version": "v1.36.4+pinnace1",
     "url": "https://…/x.raucb" or "/absolute/path.raucb", "sha256": "<hex>" or "", "size": 0,
     "attempt": 1,              # a larger one asks again for a version that came to an end
     "stage": "install" | "switch", "soakSeconds": 60, "deadlineSeconds": 900,
     "checks": true,            # the node commits only when the verdict is "passed" as well
     "verdict": "" | "passed" | "failed", "verdictMessage": "",
     "retryFailed": false,      # this version may be tried although it failed before
     "rollback": false,         # leave "version", which was committed, for the other slot
                                # (failurePolicy RollbackAll); it ends as RolledBack or Refused,
                                # or Failed: the other slot was tried too, and left
     "withoutSnapshot": false}  # also where the datastore is not on the node (NoSnapshot else)

``upgrade.pinnace.dev/report``::

    {"plan": "fleet", "uid": "…", "version": "v1.36.4+pinnace1", "attempt": 1, "phase": "Trial",
     "message": "…", "percent": 40, "times": {"Downloading": "2026-11-24T14:00:00Z", …},
     "running": "v1.36.4+pinnace1", "slot": "b", "healthy": true,  # of the trial: its own gate
     "rollback": false, "failed": ["v1.36.5+pinnace1"],
     "reason": "Downgrade",     # of an end; those of node/update/base.py and NoSnapshot,
                                # WrongVersion, NotRunning, NothingToGoBackTo, DatastoreTooNew,
                                # InvalidRequest, Left
     "kept": {"folder": "…", "count": 3}}  # what a trial wrote that was left: objects, where

Phases, in order: Downloading, Installing, Installed (stage "install" ends here), Switching, Trial,
Committed; and the ends RolledBack (it was tried and left), Refused (will not help to try
again), Failed (may be tried again). A report answers the request whose uid, version, attempt
and rollback it repeats; one of another request says nothing of this one. A request that is taken
away before "Switching" is cancelled; later it is not. The labels ``pinnace.dev/version`` and
``pinnace.dev/board`` say on each node what runs; a node without ``pinnace.dev/board`` is not one
of Pinnace's (or one without slots) and is upgraded by a Job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

REQUEST = "upgrade.pinnace.dev/request"
REPORT = "upgrade.pinnace.dev/report"
VERSION_LABEL = "pinnace.dev/version"
BOARD_LABEL = "pinnace.dev/board"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a channel or a source has for one board."""

    version: str
    url: str  # of the bundle; a path where the channel is a folder
    sha256: str  # hex; "" where the source does not say
    size: int  # bytes; 0 where the source does not say
    serial: int = 0  # of the signed channel that said so; 0: of something without a number


class OfferError(Exception):
    """No offer; the text is one line for the plan's status. ``reason`` is a CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        # ChannelUnreachable, BadSignature, BadChannel (it is signed and makes no sense), OldChannel
        # (replayed: its serial went back), ChannelExpired, NoSuchVersion, NoBundleForBoard
        self.reason = reason


class Channels(Protocol):
    async def offers(
        self, spec: Mapping[str, Any], boards: Sequence[str], *, serial: int = 0
    ) -> Mapping[str, Offer]:
        """
        By board; ``spec`` is that of an UpgradePlan (version, channel, source, channelKey).

        The board "" stands for nodes that a Job upgrades: their offer is a version alone. A board
        for which there is nothing is left out, as long as there is something for another.
        ``serial``: the largest that this plan's channel ever had (kept in the plan's status,
        ``status.channelSerial``, together with the channel it is of); a smaller one is refused.
        Raises :class:`OfferError`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    passed: bool
    message: str  # "" when passed; otherwise the first check that did not, by name, and why


class Checks(Protocol):
    async def verdict(self, checks: Sequence[Mapping[str, Any]], *, node: str) -> Verdict:
        """
        Perform every check of ``spec.healthChecks`` once, each within its own timeout.

        Never raises because of what a check finds; ``node`` is the node being upgraded, for
        ``$(NODE_NAME)`` and ``$(NODE_IP)`` in hosts, URLs, and names.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    done: bool
    message: str  # who is still there and why: the pod, its PodDisruptionBudget
    retry_at: datetime | None  # when to look again although nothing changed; None: at an event
    failed: bool = False  # spec.drain.timeoutSeconds is over: the node must not be switched


class Drains(Protocol):
    async def drain(self, node: str, options: Mapping[str, Any], *, since: datetime) -> Drained:
        """
        One level-triggered pass of `kubectl drain`: evict what may go, say what is left.

        ``options`` is ``spec.drain``; ``since`` is when draining of this node began.
        """
        ...


class Jobs(Protocol):
    """On a node without slots of ours (another Kubernetes), as system-upgrade-controller does."""

    async def ensure(self, plan: Mapping[str, Any], node: str, version: str) -> Drained:
        """Create the job of this node if it misses; ``done`` when it succeeded, ``failed`` too."""
        ...

    async def remove(self, plan: str, node: str) -> None: ...
