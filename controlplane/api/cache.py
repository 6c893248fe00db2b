"""
All current objects, as encoded bytes, in the order of their keys.

The API server answers from here, and the controllers and the scheduler read it
directly: there is no second cache in the process. One watch of the store feeds
it, so that what it shows is always a state that the store had; a writer waits
for its own revision and then reads its own write.

Its mutable state is changed by :meth:`ObjectCache.load` and the feed alone, on
the event loop.
"""

import asyncio
import logging
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing

from controlplane.api.encoding import decode, respliced, splice
from controlplane.api.entry import PODS, Entry
from controlplane.api.history import History, Line, Occurrence, Watcher
from controlplane.client.base import Change, Object
from controlplane.objects.kinds import CORE, Kinds, Resource
from controlplane.store.base import Compacted, Event, KeyValue, Store

log = logging.getLogger(__name__)

HISTORY_BYTES = 2 << 20
DECODED_BYTES = 1 << 20

Deliver = Callable[[Change], None]
# Brings an object of one version into the version of a resource.
Present = Callable[[Object, Resource], Object]


class Bucket:
    """The objects of one kind, whatever its versions."""

    __slots__ = ("changed", "entries", "feeds", "keys", "line")

    def __init__(self, floor: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.keys: list[str] = []  # sorted
        self.changed = floor  # revision of the last change that is known of
        self.line = Line(floor)
        self.feeds: dict[tuple[Resource, Deliver], None] = {}

    def span(self, prefix: str, start: str = "") -> Iterator[Entry]:
        """The entries whose keys begin with the prefix, in order, from ``start`` on."""
        keys, entries = self.keys, self.entries
        first = bisect_left(keys, max(prefix, start))
        last = bisect_left(keys, prefix[:-1] + chr(ord(prefix[-1]) + 1), first)
        return map(entries.__getitem__, keys[first:last])


class ObjectCache:
    """Implements Reads and Feed of :mod:`controlplane.client.base`."""

    def __init__(
        self,
        kinds: Kinds,
        *,
        present: Present | None = None,
        history_bytes: int = HISTORY_BYTES,
        decoded_bytes: int = DECODED_BYTES,
    ) -> None:
        self._kinds = kinds
        self._present = present
        self._buckets: dict[str, Bucket] = {}
        self._history = History(history_bytes)
        self._floor = 0
        self.revision = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._owned: dict[str, dict[str, None]] = {}
        self._on_node: dict[str, dict[str, None]] = {}
        self._decoded: OrderedDict[str, tuple[int, Object, int]] = OrderedDict()
        self._decoded_budget = decoded_bytes
        self._decoded_bytes = 0

    # Filling

    async def load(self, store: Store) -> None:
        """Take everything that the store has; call :meth:`follow` after it."""
        snapshot = await store.range("/")
        self._floor = snapshot.revision
        for bucket in self._buckets.values():
            bucket.changed = bucket.line.floor = snapshot.revision
        for item in snapshot.items:
            entry = _entry(item)
            self.bucket(entry.key).keys.append(entry.key)
            self._set(entry)
        for bucket in self._buckets.values():
            bucket.keys.sort()
        self._advance(snapshot.revision)

    async def follow(self, store: Store) -> None:
        """Apply every change of the store, without end."""
        while True:
            try:
                async with aclosing(_changes(store, self.revision)) as batches:
                    async for batch in batches:
                        for event in batch:
                            self._apply(event)
                        self._advance(batch[-1].revision)
            except Compacted:
                await self._catch_up(store)

    async def _catch_up(self, store: Store) -> None:
        """Left behind by the store: the difference to now becomes the changes."""
        snapshot = await store.range("/")
        found = {item.key: item for item in snapshot.items}
        for bucket in list(self._buckets.values()):
            for key in [key for key in bucket.keys if key not in found]:
                self._change(bucket.entries[key], None, snapshot.revision)
        for key, item in found.items():
            old = self.entry(key)
            if old is None or old.revision != item.revision:
                self._change(old, _entry(item), item.revision)
        for bucket in self._buckets.values():
            bucket.line.floor = snapshot.revision
        self._floor = snapshot.revision
        self._advance(snapshot.revision)

    def _apply(self, event: Event) -> None:
        old = self.entry(event.key)
        new = _entry(event.current) if event.current is not None else None
        if old is not None or new is not None:
            self._change(old, new, event.revision)

    def _change(self, old: Entry | None, new: Entry | None, revision: int) -> None:
        bucket = self.bucket((new or old).key)  # type: ignore[union-attr]
        if new is not None:
            if old is None:
                insort(bucket.keys, new.key)
            self._set(new)
        elif old is not None:
            self._drop(bucket, old)
        bucket.changed = revision
        self._history.add(bucket.line, Occurrence(revision, old, new))
        for resource, deliver in list(bucket.feeds):
            try:
                deliver(self._told(resource, old, new))
            except Exception:
                # One bad reader must not keep the others, and the server, from going on.
                log.exception("a reader of %s failed", resource.group_resource)

    def _set(self, entry: Entry) -> None:
        bucket = self.bucket(entry.key)
        old = bucket.entries.get(entry.key)
        if old is not None:
            self._unindex(old)
        bucket.entries[entry.key] = entry
        for uid in entry.owners:
            self._owned.setdefault(uid, {})[entry.key] = None
        if entry.node:
            self._on_node.setdefault(entry.node, {})[entry.key] = None

    def _drop(self, bucket: Bucket, entry: Entry) -> None:
        self._unindex(entry)
        del bucket.entries[entry.key]
        del bucket.keys[bisect_left(bucket.keys, entry.key)]
        _, _, size = self._decoded.pop(entry.key, (0, None, 0))
        self._decoded_bytes -= size

    def _unindex(self, entry: Entry) -> None:
        for uid in entry.owners:
            _discard(self._owned, uid, entry.key)
        if entry.node:
            _discard(self._on_node, entry.node, entry.key)

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for wanted, future in waiting:
                if wanted > self.revision:
                    self._waiting.append((wanted, future))
                elif not future.done():
                    future.set_result(None)

    async def wait_for(self, revision: int) -> None:
        """Return once every change up to the revision is shown."""
        if revision > self.revision:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, future))
            await future

    # Bytes, for the API server

    def bucket(self, key: str) -> Bucket:
        """The bucket of a storage key or of an object's key."""
        end = key.find("/", key.index("/", 1) + 1)
        storage_key = key if end < 0 else key[:end]
        bucket = self._buckets.get(storage_key)
        if bucket is None:
            bucket = self._buckets[storage_key] = Bucket(self._floor)
        return bucket

    def entry(self, key: str) -> Entry | None:
        return self.bucket(key).entries.get(key)

    def span(self, prefix: str, start: str = "") -> Iterator[Entry]:
        return self.bucket(prefix).span(prefix, start)

    def load_object(self, entry: Entry) -> Object:
        """Decode an entry; what was decoded lately is kept. Shared: do not change it."""
        found = self._decoded.get(entry.key)
        if found is not None and found[0] == entry.revision:
            self._decoded.move_to_end(entry.key)
            return found[1]
        obj = decode(entry.data)
        if self.bucket(entry.key).entries.get(entry.key) is entry:
            self._remember(entry, obj, found[2] if found else 0)
        return obj

    def _remember(self, entry: Entry, obj: Object, replaced: int) -> None:
        size = len(entry.data)
        self._decoded[entry.key] = (entry.revision, obj, size)
        self._decoded.move_to_end(entry.key)
        self._decoded_bytes += size - replaced
        while self._decoded_bytes > self._decoded_budget and len(self._decoded) > 1:
            _, (_, _, gone) = self._decoded.popitem(last=False)
            self._decoded_bytes -= gone

    def watch(self, storage_key: str) -> Watcher:
        """A watcher of the changes from now on; give it back with :meth:`unwatch`."""
        watcher = Watcher()
        self.bucket(storage_key).line.watchers[watcher] = None
        return watcher

    def unwatch(self, storage_key: str, watcher: Watcher) -> None:
        self.bucket(storage_key).line.watchers.pop(watcher, None)

    def end_watches(self, storage_key: str = "") -> None:
        """End the watches of a kind that is no longer served; "": all of them."""
        for key, bucket in self._buckets.items():
            if not storage_key or key == storage_key:
                for watcher in list(bucket.line.watchers):
                    watcher.end()

    def statistics(self) -> dict[str, int]:
        """Counts for /metrics."""
        return {
            "objects": sum(len(b.entries) for b in self._buckets.values()),
            "bytes": sum(len(e.data) for b in self._buckets.values() for e in b.entries.values()),
            "watches": sum(len(b.line.watchers) for b in self._buckets.values()),
            "history": len(self._history),
        }

    def counts(self) -> dict[str, int]:
        """Objects by storage key."""
        return {key: len(bucket.entries) for key, bucket in self._buckets.items()}

    # Reads

    def _prefix(self, resource: Resource, namespace: str = "") -> str:
        kind = self._kinds.by_resource(resource.group, resource.version, resource.plural)
        key = kind.storage_key if kind else f"/{resource.group or CORE}/{resource.plural}"
        return f"{key}/{namespace}/" if namespace and resource.namespaced else f"{key}/"

    def _shown(self, entry: Entry, resource: Resource) -> Object:
        obj = self.load_object(entry)
        if obj["apiVersion"] != resource.api_version and self._present is not None:
            return self._present(obj, resource)
        return obj

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        entry = self.entry(self._prefix(resource, namespace) + name)
        return self._shown(entry, resource) if entry is not None else None

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        entries = self.span(self._prefix(resource, namespace))
        return [self._shown(entry, resource) for entry in entries]

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        prefix = self._prefix(resource)
        keys = sorted(key for key in self._owned.get(uid, ()) if key.startswith(prefix))
        return [self._shown(entry, resource) for entry in map(self.entry, keys) if entry]

    def on_node(self, node: str) -> Sequence[Object]:
        entries = self.bucket(PODS).entries
        return [self.load_object(entries[key]) for key in self._on_node.get(node, ())]

    # Feed

    def subscribe(self, resources: Iterable[Resource], deliver: Deliver) -> Callable[[], None]:
        taken: list[tuple[Bucket, tuple[Resource, Deliver]]] = []
        for resource in resources:
            prefix = self._prefix(resource)
            bucket = self.bucket(prefix)
            taken.append((bucket, (resource, deliver)))
            for entry in list(bucket.span(prefix)):
                deliver(self._told(resource, None, entry))
        for bucket, feed in taken:
            bucket.feeds[feed] = None

        def unsubscribe() -> None:
            for bucket, feed in taken:
                bucket.feeds.pop(feed, None)

        return unsubscribe

    def _told(self, resource: Resource, old: Entry | None, new: Entry | None) -> Change:
        entry = new if new is not None else old
        assert entry is not None
        return Change(
            resource,
            entry.namespace,
            entry.name,
            (lambda: self._shown(old, resource)) if old is not None else None,
            (lambda: self._shown(new, resource)) if new is not None else None,
        )


def deleted_data(entry: Entry, revision: int) -> bytes:
    """The last state of a deleted object, with the revision of its deletion."""
    return respliced(entry.data, revision)


def _entry(item: KeyValue) -> Entry:
    data = splice(item.value, item.revision)
    return Entry(item.key, data, revision=item.revision, created=item.created)


def _discard(index: dict[str, dict[str, None]], at: str, key: str) -> None:
    keys = index.get(at)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del index[at]


async def _changes(store: Store, after: int) -> AsyncGenerator[Sequence[Event], None]:
    async for batch in store.watch("/", after=after):
        yield batch
