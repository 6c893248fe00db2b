"""
The one loop that runs all controllers.

Changes come from the Feed and become keys; a key waits once, is worked on by one
worker at a time, and at most ``WORKERS`` keys of all controllers are worked on at
once. A pass reads, calls ``reconcile``, performs the writes and waits until Reads
shows them. At idle there is no task and at most one timer: whatever happens,
happens because something changed or because a controller asked for ``Again``.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from controlplane.client.base import Change, Client, Feed, Object, Reads
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kinds, Resource
from controlplane.objects.resources import CUSTOM_RESOURCE_DEFINITIONS
from controlplane.reconcile.base import Controller, Key
from controlplane.reconcile.clock import Clock
from controlplane.reconcile.events import Recorder
from controlplane.reconcile.perform import Performer, Settle
from controlplane.reconcile.queue import Backoff, Queue, Timers

log = logging.getLogger(__name__)

WORKERS = 16
AT_ONCE = 3  # conflicts in a row that bring a key back without a delay

Item = tuple[int, Key]  # which controller, which of its keys
Watcher = Callable[[Change], None]


class TwoOwners(Exception):
    """Two controllers write one kind, and at least one of them does not say it shares it."""


@dataclass(slots=True)
class Counters:
    """Of one controller, since the start; for /metrics."""

    passes: int = 0
    writes: int = 0
    conflicts: int = 0
    errors: int = 0
    seconds: float = 0.0  # spent in passes, waiting for the store included


class Loop:
    """
    Runs controllers until cancelled.

    Its mutable state: the queue, the timers, the failure counts and the counters; all
    of it is changed on the event loop only.
    """

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        client: Client,
        reads: Reads,
        feed: Feed,
        clock: Clock,
        kinds: Kinds,
    ) -> None:
        refuse_two_owners(controllers)
        self._controllers = tuple(controllers)
        self._client, self._reads, self._feed, self._clock = client, reads, feed, clock
        self._kinds = kinds
        self._queue: Queue[Item] = Queue()
        self._timers: Timers[Item] = Timers(clock, self._add)
        self._backoff: Backoff[Item] = Backoff()
        self._settle = Settle(reads)
        self._running = 0
        self._group: asyncio.TaskGroup | None = None
        self._watchers: dict[tuple[str, str], list[Watcher]] = {}
        self._unsubscribe: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self.counters = {c.name: Counters() for c in controllers}

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queue)

    async def run(self) -> None:
        """Reconcile everything that exists, then whatever changes; never returns by itself."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._recorder = Recorder(self._client, self._clock, group.create_task)
            try:
                self._subscribe()
                self._pump()
                await asyncio.get_running_loop().create_future()
            finally:
                self._timers.close()
                for unsubscribe in self._unsubscribe:
                    unsubscribe()

    def hurry(self) -> None:
        """The clock was set: whoever waits for a time looks again at what is left."""
        self._timers.hurry()

    async def wait_idle(self) -> None:
        """Until no key waits or is worked on; timers may still be set."""
        while True:
            await asyncio.sleep(0)
            if not len(self._queue) and not self._running:
                return
            self._idle.clear()
            await self._idle.wait()

    # -- from changes to keys

    def _subscribe(self) -> None:
        resources: dict[tuple[str, str], Resource] = {}

        def watch(resource: Resource, watcher: Watcher | None) -> None:
            name = (resource.group, resource.plural)
            resources.setdefault(name, resource)
            watchers = self._watchers.setdefault(name, [])
            if watcher is not None:
                watchers.append(watcher)

        for index, controller in enumerate(self._controllers):
            if controller.every_kind:
                continue
            watch(controller.primary, self._own_key(index))
            for resource in sorted(controller.reads):
                watch(resource, self._other_keys(index))
            for resource in sorted(controller.writes):
                watch(resource, None)  # so that Settle sees what was written
        self._every_kind = [
            self._other_keys(i) for i, c in enumerate(self._controllers) if c.every_kind
        ]
        if self._every_kind:
            for resource in every_resource(self._kinds):
                watch(resource, None)
            watch(CUSTOM_RESOURCE_DEFINITIONS, self._on_definition)
        self._unsubscribe.append(self._feed.subscribe(list(resources.values()), self._deliver))

    def _own_key(self, index: int) -> Watcher:
        return lambda change: self._add((index, Key(change.namespace, change.name)))

    def _other_keys(self, index: int) -> Watcher:
        controller = self._controllers[index]

        def deliver(change: Change) -> None:
            for key in controller.keys_for(change, self._reads):
                self._add((index, key))

        return deliver

    def _deliver(self, change: Change) -> None:
        change = _decoded_once(change)
        resource = change.resource
        self._settle.changed(change)
        for watcher in self._watchers.get((resource.group, resource.plural), ()):
            self._safely(watcher, change)
        for watcher in self._every_kind:
            self._safely(watcher, change)

    def _safely(self, watcher: Watcher, change: Change) -> None:
        # The Feed's other subscribers must not suffer from one controller's mistake.
        try:
            watcher(change)
        except Exception:
            log.exception("a change to %s was not understood", change.resource.group_resource)

    def _on_definition(self, change: Change) -> None:
        """A CRD may bring a kind that controllers of every kind have not seen yet."""
        definition = change.new
        resource = stored_resource(definition) if definition is not None else None
        if resource is None or (resource.group, resource.plural) in self._watchers:
            return
        self._watchers[resource.group, resource.plural] = []
        self._unsubscribe.append(self._feed.subscribe([resource], self._deliver))

    # -- from keys to passes

    def _add(self, item: Item) -> None:
        self._queue.add(item)
        self._pump()

    def _pump(self) -> None:
        if self._group is None:
            return
        while self._running < WORKERS and len(self._queue) > self._running - self._queue.active:
            self._running += 1
            self._group.create_task(self._work())

    async def _work(self) -> None:
        try:
            while (item := self._queue.take()) is not None:
                try:
                    await self._pass(item)
                finally:
                    self._queue.done(item)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _pass(self, item: Item) -> None:
        index, key = item
        controller = self._controllers[index]
        counters = self.counters[controller.name]
        performer = Performer(self._client, self._recorder, controller.name)
        self._timers.discard(item)
        started = self._clock.monotonic()
        counters.passes += 1
        try:
            await performer.run(controller.reconcile(key, self._reads, self._clock.now()))
        except StatusError as err:
            self._failed(item, counters, err)
        except Exception as err:
            log.exception("%s failed on %s/%s", controller.name, key.namespace, key.name)
            self._failed(item, counters, err)
        else:
            self._backoff.forget(item)
            if performer.again is not None:
                self._timers.add(item, performer.again.total_seconds())
        counters.writes += performer.count
        if performer.written:
            await self._settle.wait(performer.written, self._watchers.keys())
        counters.seconds += self._clock.monotonic() - started

    def _failed(self, item: Item, counters: Counters, err: Exception) -> None:
        controller, key = self._controllers[item[0]], item[1]
        delay = self._backoff.failed(item)
        if isinstance(err, StatusError) and err.reason == "Conflict":
            counters.conflicts += 1
            if self._backoff.failures(item) <= AT_ONCE:
                self._queue.add(item)  # active now, so it is taken up again after this pass
                return
        else:
            counters.errors += 1
            log.info("%s: %s/%s: %s", controller.name, key.namespace, key.name, err)
        self._timers.add(item, delay)


def _decoded_once(change: Change) -> Change:
    """The same change for all watchers, so that what many of them ask for is decoded once."""

    def once(load: Callable[[], Object] | None) -> Callable[[], Object] | None:
        return cache(load) if load is not None else None

    return replace(change, load_old=once(change.load_old), load_new=once(change.load_new))


def refuse_two_owners(controllers: Iterable[Controller]) -> None:
    """Raise :class:`TwoOwners` unless each kind has one writer or all of them share it."""
    writers: dict[Resource, list[Controller]] = {}
    for controller in controllers:
        for resource in controller.writes:
            writers.setdefault(resource, []).append(controller)
    for resource, found in writers.items():
        if len(found) > 1 and any(resource not in c.shares for c in found):
            names = " and ".join(c.name for c in found)
            raise TwoOwners(f"{names} write {resource.group_resource}; mark it as shared in each")


def every_resource(kinds: Kinds) -> list[Resource]:
    """One resource for each kind that is stored, whatever the number of its versions."""
    stored: dict[str, Resource] = {}
    for kind in kinds:
        if kind.storage_key and "list" in kind.verbs:
            stored.setdefault(kind.storage_key, kind.resource)
    return list(stored.values())


def stored_resource(definition: Object) -> Resource | None:
    """What a CustomResourceDefinition defines, in the version it is stored in."""
    spec = definition.get("spec", {})
    for version in spec.get("versions", ()):
        if version.get("storage"):
            return Resource(
                spec["group"],
                version["name"],
                spec["names"]["plural"],
                spec.get("scope") == "Namespaced",
            )
    return None


def describe(controllers: Iterable[Controller]) -> str:
    """Who reads and writes what, as a Markdown table."""

    def names(resources: Iterable[Resource]) -> str:
        return ", ".join(sorted(r.group_resource for r in resources)) or "–"

    lines = ["| controller | reconciles | reads | writes |", "|---|---|---|---|"]
    for controller in sorted(controllers, key=lambda c: c.name):
        primary = "every kind" if controller.every_kind else controller.primary.group_resource
        writes = "every kind" if controller.every_kind else names(controller.writes)
        reads = names(controller.reads - {controller.primary})
        lines.append(f"| {controller.name} | {primary} | {reads} | {writes} |")
    return "\n".join(lines) + "\n"
