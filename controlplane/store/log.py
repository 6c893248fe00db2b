"""
The statements on the log table; all of it blocks and runs in the store's own threads.

:class:`Writer` belongs to the writer thread, :class:`Reader` to the reader
thread. Neither decides anything: revisions and expectations are settled before.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.store.base import Compacted, Event, KeyValue
from controlplane.store.file import damaged, explained, file_bytes

_COMPACTION_ROWS = 500  # looked at in one transaction: writers wait for milliseconds only
_HISTORY_ROWS = 200
_HISTORY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """A row to append."""

    revision: int
    key: str
    previous: int  # revision of the row that it replaces; 0: none
    value: bytes | None  # None: a deletion


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What is committed together."""

    changes: Sequence[Change]
    reserve: int = 0  # volatile writes may use revisions up to this one; 0: as before
    families: Sequence[str] = ()  # that have volatile keys from now on


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a store knows after opening."""

    index: dict[str, int]  # key → revision of its newest row
    revision: int  # nobody was ever given a greater one
    compacted: int
    families: frozenset[str]


class Writer:
    """Appends and compacts."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self.file_bytes = file_bytes(path)

    def load(self) -> Content:
        """Reads the whole log but its values; damage to it shows here."""
        index: dict[str, int] = {}
        last = 0
        with explained(self._path):
            rows = self._connection.execute("SELECT revision, key, value IS NULL FROM log")
            for last, key, deleted in rows:
                if deleted:
                    index.pop(key, None)
                else:
                    index[key] = last
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            families = frozenset(
                family for (family,) in self._connection.execute("SELECT family FROM volatile")
            )
        return Content(
            index=index,
            revision=max(last, meta["reserved"], meta["compacted"]),
            compacted=meta["compacted"],
            families=families,
        )

    def append(self, transaction: Transaction) -> list[Event]:
        """Commit all of it or nothing; returns after the fsync."""
        with self._transaction():
            events = [self._append(change) for change in transaction.changes]
            if transaction.reserve:
                self._set("reserved", transaction.reserve)
            for family in transaction.families:
                self._connection.execute("INSERT OR IGNORE INTO volatile VALUES (?)", (family,))
        self.file_bytes = file_bytes(self._path)
        return events

    def compact(self, after: int, upto: int) -> int:
        """
        One small step of forgetting the history after a revision; returns how far it came.

        A row names the row that it replaces, so what is superseded up to a
        revision is found from the rows up to it. Writes only if there is something
        to delete; each step leaves a state that is right on its own.
        """
        with explained(self._path):
            rows = self._connection.execute(
                "SELECT revision, previous, value IS NULL FROM log"
                " WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?",
                (after, upto, _COMPACTION_ROWS),
            ).fetchall()
        reached = int(rows[-1][0]) if len(rows) == _COMPACTION_ROWS else upto
        doomed = [(previous,) for _, previous, _ in rows if previous]
        doomed += [(revision,) for revision, _, deleted in rows if deleted]
        if doomed:
            with self._transaction():
                self._connection.executemany("DELETE FROM log WHERE revision = ?", doomed)
                self._set("compacted", reached)
            self.file_bytes = file_bytes(self._path)
        return reached

    def _append(self, change: Change) -> Event:
        revision, key, value = change.revision, change.key, change.value
        previous = None
        if change.previous:
            previous = _read(self._path, self._connection, key, change.previous)
            if previous is None:
                raise damaged(self._path, f"revision {change.previous} is missing")
        created = previous.created if previous is not None else revision
        self._connection.execute(
            "INSERT INTO log (revision, key, created, previous, value) VALUES (?, ?, ?, ?, ?)",
            (revision, key, created, change.previous, value),
        )
        current = KeyValue(key, value, revision, created) if value is not None else None
        return Event(revision, key, current, previous)

    def _set(self, name: str, value: int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back after some errors, a full disk among them.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


class Reader:
    """Reads values and history; each call sees one committed state."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def value(self, key: str, revision: int) -> KeyValue | None:
        """None: compaction has dropped the row meanwhile."""
        with explained(self._path):
            return _read(self._path, self._connection, key, revision)

    def values(self, wanted: Sequence[tuple[str, int]], *, at: int) -> list[KeyValue]:
        """The rows of keys that were current at revision ``at``; else :class:`Compacted`."""
        with self._snapshot(at):
            found = [_read(self._path, self._connection, key, row) for key, row in wanted]
        values = [value for value in found if value is not None]
        if len(values) != len(wanted):
            raise damaged(self._path, "a row of the log is missing")
        return values

    def replaced(self, prefix: str, *, after: int, upto: int) -> dict[str, int]:
        """What the keys changed after a revision were at it: a row, or 0: absent."""
        found: dict[str, int] = {}
        with self._snapshot(after):
            rows = self._connection.execute(
                "SELECT key, previous FROM log WHERE revision > ? AND revision <= ?"
                " AND substr(key, 1, ?) = ? ORDER BY revision",
                (after, upto, len(prefix), prefix),
            )
            for key, previous in rows:
                found.setdefault(key, previous)
        return found

    def history(self, prefix: str, *, after: int, upto: int) -> tuple[list[Event], int]:
        """Some of the changes in the range of revisions, and the revision that they reach."""
        events: list[Event] = []
        size = 0
        with self._snapshot(after):
            rows = self._connection.execute(
                "SELECT l.revision, l.key, l.created, l.value, p.revision, p.created, p.value"
                " FROM log AS l LEFT JOIN log AS p ON p.revision = l.previous"
                " WHERE l.revision > ? AND l.revision <= ? AND substr(l.key, 1, ?) = ?"
                " ORDER BY l.revision",
                (after, upto, len(prefix), prefix),
            )
            for revision, key, created, value, replaced, first, old in rows:
                current = None if value is None else KeyValue(key, value, revision, created)
                previous = None if replaced is None else KeyValue(key, old, replaced, first)
                events.append(Event(revision, key, current, previous))
                size += len(value or b"") + len(old or b"")
                if len(events) >= _HISTORY_ROWS or size >= _HISTORY_BYTES:
                    rows.close()
                    return events, revision
        return events, upto

    @contextlib.contextmanager
    def _snapshot(self, at: int) -> Iterator[None]:
        """One state for several statements, in which the history since ``at`` is whole."""
        with explained(self._path):
            self._connection.execute("BEGIN")
            try:
                row = self._connection.execute("SELECT value FROM meta WHERE name = 'compacted'")
                compacted = int(row.fetchone()[0])
                if compacted > at:
                    raise Compacted(compacted)
                yield
            finally:
                self._connection.execute("ROLLBACK")


def _read(path: Path, connection: sqlite3.Connection, key: str, revision: int) -> KeyValue | None:
    row = connection.execute(
        "SELECT key, value, created FROM log WHERE revision = ?", (revision,)
    ).fetchone()
    if row is None:
        return None
    found, value, created = row
    if found != key or value is None:
        raise damaged(path, f"revision {revision} belongs to another key")
    return KeyValue(key, value, revision, created)
