"""
Going back to an older copy of a store: what was written since, and how readers are told.

A store that goes back would hand out again revisions that watchers have seen with other content.
So the copy goes on behind the last revision that the other one can have given, and its history
before that counts as compacted: whoever watches from there is told to list anew.

All of it blocks, and nobody may have the files open.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controlplane.store.file import explained

_BEYOND = 1_000_000  # where it cannot be found out how far the other one came
_NEWEST = "SELECT key, max(revision), value IS NULL FROM log GROUP BY key"


@dataclass(frozen=True, slots=True)
class Written:
    """One key that differs between two copies of a store."""

    verb: str  # created | changed | deleted
    key: str
    value: bytes  # as it was written; of a deletion what was deleted


def schema_version(path: Path) -> int:
    with _opened(path) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def fold(path: Path) -> None:
    """Take the write-ahead log into the file, so that it is whole by itself."""
    with _opened(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def difference(before: Path, after: Path) -> Iterator[Written]:
    """What was written between the two, by key; the history in between is not told."""
    with _opened(before) as old, _opened(after) as new:
        known = {key: row for key, row, gone in old.execute(_NEWEST) if not gone}
        found = {key: row for key, row, gone in new.execute(_NEWEST) if not gone}
        for key in sorted(known.keys() | found.keys()):
            if key not in found:
                yield Written("deleted", key, _value(old, known[key]))
            elif key not in known:
                yield Written("created", key, _value(new, found[key]))
            elif found[key] != known[key]:
                yield Written("changed", key, _value(new, found[key]))


def supersede(path: Path, other: Path | None) -> None:
    """
    Let a copy go on behind everything that ``other`` can have handed out, without its history.

    ``other`` None, or one that cannot be read: a great many revisions are skipped. Idempotent.
    """
    beyond = 0
    if other is not None:
        with contextlib.suppress(sqlite3.Error), _plain(other) as connection:
            beyond = _last(connection)
    with _opened(path) as connection:
        beyond = max(_last(connection), beyond) if beyond else _last(connection) + _BEYOND
        connection.execute("BEGIN IMMEDIATE")
        newest = "SELECT max(revision) FROM log GROUP BY key"
        connection.execute(f"DELETE FROM log WHERE revision NOT IN ({newest})")  # noqa: S608
        connection.execute("DELETE FROM log WHERE value IS NULL")
        connection.execute(
            "UPDATE meta SET value = max(value, ?) WHERE name IN ('reserved', 'compacted')",
            (beyond,),
        )
        connection.execute("COMMIT")


def _last(connection: sqlite3.Connection) -> int:
    """Nobody was ever given a greater revision."""
    row = connection.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()
    marks = connection.execute("SELECT coalesce(max(value), 0) FROM meta").fetchone()
    return max(int(row[0]), int(marks[0]))


def _value(connection: sqlite3.Connection, revision: int) -> bytes:
    row = connection.execute("SELECT value FROM log WHERE revision = ?", (revision,)).fetchone()
    return bytes(row[0])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with explained(path), _plain(path) as connection:
        yield connection


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never makes a file that is not there
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        yield connection
