"""
Whether a trial is healthy: the node, its API server, its operators, and what was healthy before.

What is looked at again was written down before the switch, so that nobody's own broken Deployment
holds up an update. Watches and the ends of processes say when to look; while something misses
they cannot tell all of it (a socket that is not there yet), and it is looked at every two seconds.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.client.base import (
    Change,
    Client,
    Feed,
    Object,
    ObjectList,
    Reads,
    Selection,
    Unreachable,
)
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import DAEMON_SETS, DEPLOYMENTS, NODES
from node.update.plan import Health

NAMESPACE = "kube-system"
_LOOK_EVERY = 2.0  # seconds, while something misses
_ANSWER_WITHIN = 10.0
KINDS: Mapping[str, Resource] = {
    "Addon": Resource("k3s.cattle.io", "v1", "addons", True),
    "DaemonSet": DAEMON_SETS,
    "Deployment": DEPLOYMENTS,
    "HelmChart": Resource("helm.cattle.io", "v1", "helmcharts", True),
}
OURS = Selection(namespace=NAMESPACE)
# Short names of the children as the kernel has them: at most 15 characters.
OPERATORS = "pinnace-operators"[:15]


def what_misses(kind: str, found: Object) -> str:
    """ "": it is healthy."""
    spec, status = found.get("spec") or {}, found.get("status") or {}
    generation = found["metadata"].get("generation", 0)
    if kind in ("Deployment", "DaemonSet") and status.get("observedGeneration", 0) < generation:
        return "has not been looked at"
    match kind:
        case "Deployment":
            have, want = status.get("availableReplicas", 0), spec.get("replicas", 1)
            return "" if have >= want else f"has {have} of {want} replicas"
        case "DaemonSet":
            have, want = status.get("numberAvailable", 0), status.get("desiredNumberScheduled", 0)
            return "" if have >= want else f"has {have} of {want} pods"
        case "HelmChart":
            return _chart_misses(status)
        case _:
            # An AddOn says what was applied; that it is there and has a checksum is all there is.
            return "" if spec.get("checksum") else "has not been applied"


def _chart_misses(status: Mapping[str, object]) -> str:
    conditions = status.get("conditions") or ()
    assert isinstance(conditions, Sequence)
    told = {c.get("type"): c for c in conditions}
    if "Ready" not in told:
        return "is not ready"
    ready = told["Ready"]
    return "" if ready.get("status") == "True" else f"is not ready: {ready.get('message', '')}"


async def healthy_now(client: Client) -> list[str]:
    """``Kind/name`` of what is healthy in kube-system. Kinds that are not served count nothing."""
    found: list[str] = []
    for kind, resource in KINDS.items():
        try:
            listed: ObjectList = await client.list(resource, OURS)
        except StatusError as err:
            if err.code != 404:
                raise
            continue
        found += [
            f"{kind}/{item['metadata']['name']}"
            for item in listed.items
            if not what_misses(kind, item)
        ]
    return found


def wanted(healthy: Iterable[str]) -> list[Resource]:
    """The kinds that such a list is about."""
    kinds = {name.partition("/")[0] for name in healthy}
    return [resource for kind, resource in KINDS.items() if kind in kinds]


class Siblings:
    """The other children of the daemon: which run, and a word when one of them ends."""

    def __init__(self, ended: Callable[[], None], parent: int) -> None:
        self._ended = ended
        self._children = Path(f"/proc/{parent}/task/{parent}/children")
        self._watched: dict[int, int] = {}  # pid → pidfd

    def names(self) -> frozenset[str]:
        """As the kernel has them. Watches those that are new."""
        found = set()
        for pid in map(int, self._children.read_text().split()):
            with contextlib.suppress(OSError):
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
                if rest.startswith("Z"):
                    continue  # it has ended, and the daemon has not looked yet
                found.add(name.partition(" (")[2])
                if pid not in self._watched:
                    self._watched[pid] = os.pidfd_open(pid)
                    asyncio.get_running_loop().add_reader(self._watched[pid], self._gone, pid)
        return frozenset(found)

    def _gone(self, pid: int) -> None:
        self._forget(pid)
        self._ended()

    def _forget(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        for pid in list(self._watched):
            self._forget(pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What must be well."""

    node_name: str
    healthy: Sequence[str]  # as :func:`healthy_now` gave it before the switch
    parent: int  # the daemon, whose children are looked at
    policy_socket: Path | None  # None: the operators serve none


class Gate:
    """
    Its mutable state: the last judgement, and whether something stirred since.

    ``own``: the agent's cache, for the Node. ``batteries``: all of kube-system that
    :func:`wanted` names; None: nothing there is looked at (a node without a control plane).
    ``readyz`` asks the API server, and raises.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        own: tuple[Reads, Feed],
        batteries: tuple[Reads, Feed] | None,
        readyz: Callable[[], Awaitable[object]],
        uptime: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._readyz = readyz
        self._own, self._own_feed = own
        self._batteries = batteries
        self._node_name = scope.node_name
        self._healthy = sorted(scope.healthy)
        self._policy_socket = scope.policy_socket
        self._uptime = uptime
        self._changed = changed
        self._stirred = asyncio.Event()
        self._interrupted = False
        self._siblings = Siblings(self._interrupt, scope.parent)
        self.health = Health(is_ok=False, message="not looked at yet")

    async def run(self) -> None:
        """Judge until cancelled; ``changed`` is called when the judgement is another."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._siblings.close)
            undo.callback(self._own_feed.subscribe([NODES], self._heard))
            if self._batteries is not None:
                undo.callback(self._batteries[1].subscribe(wanted(self._healthy), self._heard))
            while True:
                self._stirred.clear()
                await self.judge()
                pause = None if self.health.is_ok else _LOOK_EVERY
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stirred.wait(), pause)

    def _heard(self, _: Change) -> None:
        self._stirred.set()

    async def judge(self) -> Health:
        """Look at everything now."""
        message = await self._what_misses()
        interrupted, self._interrupted = self._interrupted, False
        before = self.health
        if message:
            self.health = Health(is_ok=False, message=message)
        elif not before.is_ok or interrupted:
            self.health = Health(is_ok=True, since=self._uptime())
        if self.health != before:
            self._changed()
        return self.health

    def _interrupt(self) -> None:
        """A process ended: it may be back at the next look, and was away all the same."""
        self._interrupted = True
        self._stirred.set()

    async def _what_misses(self) -> str:
        for message in self._cheap():
            return message
        return await self._api() or await self._operators()

    def _cheap(self) -> Iterator[str]:
        node = self._own.get(NODES, "", self._node_name)
        if node is None or not _is_ready(node):
            yield f"node {self._node_name} is not Ready"
        if OPERATORS not in self._siblings.names():
            yield "the operators do not run"
        if self._batteries is not None and node is not None:
            is_cordoned = bool((node.get("spec") or {}).get("unschedulable"))
            yield from self._not_healthy(self._batteries[0], is_cordoned=is_cordoned)

    def _not_healthy(self, reads: Reads, *, is_cordoned: bool) -> Iterator[str]:
        for name in self._healthy:
            kind, _, short = name.partition("/")
            if kind not in KINDS:
                continue  # a newer version's
            # On a cordoned node no pod that was drained can come back: that proves nothing.
            if is_cordoned and kind in ("Deployment", "HelmChart"):
                continue
            found = reads.get(KINDS[kind], NAMESPACE, short)
            misses = what_misses(kind, found) if found is not None else "is gone"
            if misses:
                yield f"{kind} {NAMESPACE}/{short} {misses}"

    async def _api(self) -> str:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await self._readyz()
        except StatusError as err:
            return f"the API server is not ready: {err.message}"
        except (Unreachable, TimeoutError, OSError) as err:
            return f"the API server does not answer: {err}"
        return ""

    async def _operators(self) -> str:
        if self._policy_socket is None:
            return ""
        question = {"explain": {"pod": f"{NAMESPACE}/no-such-pod", "port": 0, "protocol": "TCP"}}
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                reader, writer = await asyncio.open_unix_connection(str(self._policy_socket))
                try:
                    writer.write(json.dumps(question).encode() + b"\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as err:
            return f"the operators do not answer: {err}"
        return "" if answer else "the operators do not answer"


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
