"""
Doing what a controller decided: one Write after the other, through the Client.

What a pass wrote must show in Reads before the same key is looked at again,
otherwise a controller would create its pods twice. Inside the control plane the
API server's cache shows a write a moment after the store accepted it; :class:`Settle` waits
for that moment by the changes the Feed tells, so no controller needs expectations.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from controlplane.client.base import Change, Client, Object, PatchType, Reads
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import NAMESPACES
from controlplane.reconcile.base import (
    Again,
    Create,
    Delete,
    Finalize,
    Patch,
    Post,
    Record,
    SetStatus,
    Update,
    Write,
)
from controlplane.reconcile.events import Recorder

log = logging.getLogger(__name__)

LARGEST_BATCH = 16  # creations side by side; they share a commit of the store
GONE_KEPT = 512
SETTLE_SECONDS = 5.0  # after that the view is taken as it is: better late twice than never

Name = tuple[str, str, str, str]  # group, plural, namespace, name


@dataclass(frozen=True, slots=True)
class Written:
    """What must show before the key is looked at again."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    revision: int  # 0: gone
    leaving: bool  # deleted or being deleted, so that its absence is no surprise


class Settle:
    """
    Waits until Reads shows what was written.

    Its state is who waits for which object, and which objects went lately: what somebody
    else deleted right after it was written will never show.
    """

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._waiters: dict[Name, list[asyncio.Event]] = {}
        self._gone: OrderedDict[Name, None] = OrderedDict()

    def changed(self, change: Change) -> None:
        """The Feed told of a change; called for each."""
        resource = change.resource
        name = (resource.group, resource.plural, change.namespace, change.name)
        if change.load_new is None:
            self._gone[name] = None
            if len(self._gone) > GONE_KEPT:
                self._gone.popitem(last=False)
        elif change.load_old is None:
            self._gone.pop(name, None)
        for event in self._waiters.get(name, ()):
            event.set()

    async def wait(self, written: Iterable[Written], watched: Collection[tuple[str, str]]) -> None:
        for item in written:
            if (item.resource.group, item.resource.plural) not in watched or self._shows(item):
                continue
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._until_shown(item)
            except TimeoutError:
                log.warning(
                    "%s %s/%s is still not shown as written",
                    item.resource.group_resource,
                    item.namespace,
                    item.name,
                )

    def _shows(self, item: Written) -> bool:
        found = self._reads.get(item.resource, item.namespace, item.name)
        if found is None:
            return item.leaving or _name(item) in self._gone
        if item.uid and found["metadata"].get("uid") != item.uid:
            return True  # gone, and a namesake is there
        return item.revision > 0 and revision_of(found) >= item.revision

    async def _until_shown(self, item: Written) -> None:
        key = _name(item)
        event = asyncio.Event()
        self._waiters.setdefault(key, []).append(event)
        try:
            while not self._shows(item):
                event.clear()
                await event.wait()
        finally:
            waiting = self._waiters[key]
            waiting.remove(event)
            if not waiting:
                del self._waiters[key]


def _name(item: Written) -> Name:
    return (item.resource.group, item.resource.plural, item.namespace, item.name)


def revision_of(item: Object) -> int:
    text = item["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


class Performer:
    """Performs the writes of one pass of one controller."""

    def __init__(self, client: Client, recorder: Recorder, source: str) -> None:
        self._client = client
        self._recorder = recorder
        self._source = source
        self._written: dict[Name, Written] = {}  # of two writes to one object the later counts
        self.again: timedelta | None = None  # the earliest asked for
        self.count = 0  # of writes that reached the API

    @property
    def written(self) -> Collection[Written]:
        return self._written.values()

    async def run(self, writes: Iterable[Write]) -> None:
        """In order; raises what the first failing write raised."""
        batch: list[Create | Delete] = []
        for write in writes:
            if isinstance(write, (Create, Delete)):
                if batch and type(batch[0]) is not type(write):
                    await self._side_by_side(batch)
                    batch = []
                batch.append(write)
                continue
            await self._side_by_side(batch)
            batch = []
            await self._one(write)
        await self._side_by_side(batch)

    async def _side_by_side(self, batch: Sequence[Create | Delete]) -> None:
        # Growing batches: a quota that forbids all of them is asked once, not n times.
        size, start = 1, 0
        while start < len(batch):
            part = batch[start : start + size]
            if len(part) == 1:
                await self._one(part[0])
            else:
                outcomes = await asyncio.gather(
                    *(self._one(write) for write in part), return_exceptions=True
                )
                for outcome in outcomes:
                    if isinstance(outcome, BaseException):
                        raise outcome
            start += size
            size = min(size * 2, LARGEST_BATCH)

    async def _one(self, write: Write) -> None:
        match write:
            case Record():
                self._recorder.record(self._source, write)
            case Again(after):
                self.again = after if self.again is None else min(self.again, after)
            case Delete():
                await self._delete(write)
            case Create() | Post():
                await self._create(write)
            case Update() | SetStatus() | Patch() | Finalize():
                await self._change(write)

    async def _create(self, write: Create | Post) -> None:
        self.count += 1
        try:
            if isinstance(write, Create):
                made = await self._client.create(write.resource, write.body)
                self._expect(write.resource, made)
            else:
                made = await self._client.create(
                    write.resource, write.body, subresource=write.subresource, name=write.name
                )
        except StatusError as err:
            if write.on_failure is not None:
                await self.run(write.on_failure(err))
            raise
        if write.on_success is not None:
            await self.run(write.on_success(made))

    async def _change(self, write: Update | SetStatus | Patch | Finalize) -> None:
        self.count += 1
        client = self._client
        match write:
            case Update(resource, body):
                self._expect(resource, await client.update(resource, body))
            case SetStatus(resource, seen, status):
                body = {**seen, "status": dict(status)}
                self._expect(resource, await client.update(resource, body, subresource="status"))
            case Patch(resource, namespace, name, body, subresource):
                made = await client.patch(
                    resource,
                    namespace,
                    name,
                    body=body,
                    type=PatchType.MERGE,
                    subresource=subresource,
                    options={"fieldManager": self._source},
                )
                self._expect(resource, made)
            case Finalize(seen):
                spec = seen.get("spec") or {}
                left = [f for f in spec.get("finalizers") or () if f != "kubernetes"]
                body = {**seen, "spec": {**spec, "finalizers": left}}
                await client.update(NAMESPACES, body, subresource="finalize")

    async def _delete(self, write: Delete) -> None:
        self.count += 1
        meta = write.seen["metadata"]
        options: dict[str, Any] = {"propagationPolicy": write.propagation}
        if meta.get("uid"):
            options["preconditions"] = {"uid": meta["uid"]}
        if write.grace_seconds is not None:
            options["gracePeriodSeconds"] = write.grace_seconds
        namespace = meta.get("namespace", "")
        try:
            left = await self._client.delete(
                write.resource, namespace, meta["name"], options=options
            )
        except StatusError as err:
            # Gone, or a namesake with another uid took its place: what was meant is gone.
            if err.code == 404 or err.reason == "Conflict":
                return
            raise
        # A graceful deletion answers with the object as it now is, any other with a Status
        # or the last state of an object that is gone.
        deleting = bool(left.get("metadata", {}).get("deletionTimestamp"))
        revision = revision_of(left) if deleting else 0
        uid = meta.get("uid", "")
        self._note(Written(write.resource, namespace, meta["name"], uid, revision, True))

    def _expect(self, resource: Resource, made: Object) -> None:
        meta = made.get("metadata", {})
        if meta.get("name"):
            self._note(
                Written(
                    resource,
                    meta.get("namespace", ""),
                    meta["name"],
                    meta.get("uid", ""),
                    revision_of(made),
                    bool(meta.get("deletionTimestamp")),
                )
            )

    def _note(self, item: Written) -> None:
        self._written[_name(item)] = item
