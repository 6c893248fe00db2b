"""
What can still be read of a damaged datastore, and a sound one made of it.

First SQLite itself is asked, in ranges of revisions: a page that cannot be read costs the rows on
it, no others. Where it will not open the file at all, the pages are read without it: every
leaf of a table says of itself what it is (sqlite.org/fileformat2.html, "B-tree Pages"). The
newest row of each key counts; history is left behind, as after a compaction.

Everything here only reads the file that it is given, and blocks.
"""

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.store.base import StoreError
from controlplane.store.file import open_files

_REVISIONS_ABOVE = 100_000  # given to nobody again: the newest rows may be among those lost
_MOST_FAILURES = 20_000  # questions that were not answered, before the pages are read themselves
_LEAF = 0x0D
_WAL_HEAD, _FRAME_HEAD = 32, 24
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Row:
    revision: int
    key: str
    created: int
    value: bytes | None  # None: the key was deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What became of the rows."""

    objects: int  # in the new datastore
    lost_ranges: tuple[tuple[int, int], ...]  # of revisions, both inclusive, not readable
    unreadable: tuple[str, ...]  # keys whose newest value is broken; left out
    raw: bool  # read without SQLite: objects that were deleted long ago may be back


def is_sound(path: Path) -> str:
    """ "" or what is wrong, in SQLite's words; blocks for as long as reading the file takes."""
    try:
        with closing(_open(path)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            if found != ["ok"]:
                return "; ".join(found)
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            return "" if "log" in tables or not tables else "it has no log"
    except (sqlite3.Error, OSError) as err:
        return str(err)


def live(path: Path) -> Iterator[tuple[str, bytes]]:
    """Newest value of each key that exists, damaged file or not. Raises :class:`StoreError`."""
    rows, _, _ = _rows(path)
    for key, row in sorted(_newest(rows).items()):
        if row.value is not None:
            yield key, row.value


def salvage(path: Path, target: Path) -> Salvaged:
    """
    Make a datastore at ``target``, which must not exist, of what can be read at ``path``.

    Raises :class:`StoreError` where that is nothing.
    """
    rows, lost, raw = _rows(path)
    newest = _newest(rows)
    if not newest:
        raise StoreError(f"nothing in {path} can be read")
    last = max(rows)
    kept = {k: r for k, r in newest.items() if r.value is not None and _is_object(r.value)}
    broken = tuple(sorted(k for k, r in newest.items() if r.value is not None and k not in kept))
    if target.exists():
        raise StoreError(f"{target} exists")
    files = open_files(target)
    try:
        with closing(sqlite3.connect(target)) as made, made:
            made.executemany(
                "INSERT INTO log (revision, key, created, previous, value) VALUES (?, ?, ?, 0, ?)",
                [(r.revision, r.key, r.created, r.value) for r in kept.values()],
            )
            made.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (last,))
            made.execute(
                "UPDATE meta SET value = ? WHERE name = 'reserved'", (last + _REVISIONS_ABOVE,)
            )
            made.executemany(
                "INSERT OR IGNORE INTO volatile VALUES (?)", [(f,) for f in _families(path)]
            )
    finally:
        files.close()
    return Salvaged(objects=len(kept), lost_ranges=tuple(lost), unreadable=broken, raw=raw)


def _open(path: Path) -> sqlite3.Connection:
    # Where there is no log SQLite would make one, and its memory beside it, only to read.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _newest(rows: dict[int, Row]) -> dict[str, Row]:
    newest: dict[str, Row] = {}
    for revision in sorted(rows):
        newest[rows[revision].key] = rows[revision]
    return newest


def _is_object(value: bytes) -> bool:
    with suppress(ValueError):
        json.loads(value)
        return True
    return False


def _families(path: Path) -> list[str]:
    """Which keys are kept in memory only; without it they are told anew when first written."""
    with suppress(sqlite3.Error, OSError), closing(_open(path)) as connection:
        return [str(row[0]) for row in connection.execute("SELECT family FROM volatile")]
    return []


def _rows(path: Path) -> tuple[dict[int, Row], list[tuple[int, int]], bool]:
    """By revision; the ranges that are lost; whether they were read without SQLite."""
    try:
        with closing(_open(path)) as connection:
            found, lost = _by_ranges(connection)
    except (sqlite3.Error, OSError):
        found, lost = {}, []
    if found:
        return found, lost, False
    try:
        return {row.revision: row for row in _scan(path)}, [], True
    except OSError as err:
        raise StoreError(f"cannot read {path}: {err.strerror}") from err


def _by_ranges(
    connection: sqlite3.Connection,
) -> tuple[dict[int, Row], list[tuple[int, int]]]:
    found: dict[int, Row] = {}
    lost: list[tuple[int, int]] = []
    pending, failures = [(1, _last(connection))], 0
    while pending:
        low, high = pending.pop()
        reached = low - 1
        try:
            for revision, key, created, value in connection.execute(
                "SELECT revision, key, created, value FROM log"
                " WHERE revision BETWEEN ? AND ? ORDER BY revision",
                (low, high),
            ):
                reached = revision
                found[revision] = Row(revision, str(key), int(created), value)
        except (sqlite3.Error, ValueError, TypeError):
            failures += 1
            if failures > _MOST_FAILURES:
                raise sqlite3.DatabaseError("too much of it cannot be read") from None
            if reached + 1 >= high:
                lost.append((high, high))
                continue
            middle = (reached + 1 + high) // 2
            pending += [(middle + 1, high), (reached + 1, middle)]
    return found, sorted(lost)


def _last(connection: sqlite3.Connection) -> int:
    for question in (
        "SELECT max(revision) FROM log",
        "SELECT value FROM meta WHERE name = 'reserved'",
    ):
        with suppress(sqlite3.Error, TypeError):
            found = connection.execute(question).fetchone()[0]
            if found:
                return int(found)
    raise sqlite3.DatabaseError("it has no log")


# Without SQLite


def _scan(path: Path) -> Iterator[Row]:
    data = bytearray(path.read_bytes())
    size = _page_size(data)
    for number, page in _wal(path.with_name(path.name + "-wal"), size):
        end = number * size
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[end - size : end] = page
    free = _free_pages(data, size)
    for number in range(1, len(data) // size + 1):
        if number not in free:
            yield from _leaf(data, size, number)


def _page_size(data: bytes | bytearray) -> int:
    size = int.from_bytes(data[16:18], "big")
    size = 65536 if size == 1 else size
    return size if data[:16] == _MAGIC and size >= 512 and not size & (size - 1) else 4096


def _wal(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Pages of committed transactions: a frame with the size of the database ends one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    salt, waiting = data[16:24], []
    for place in range(_WAL_HEAD, len(data) - _FRAME_HEAD - size + 1, _FRAME_HEAD + size):
        number, commit = struct.unpack_from(">II", data, place)
        if data[place + 8 : place + 16] != salt:
            return
        start = place + _FRAME_HEAD
        waiting.append((number, data[start : start + size]))
        if commit:
            yield from waiting
            waiting = []


def _free_pages(data: bytearray, size: int) -> set[int]:
    """What they hold was deleted. Only where the head of the file is sound."""
    free: set[int] = set()
    if data[:16] != _MAGIC:
        return free
    trunk = int.from_bytes(data[32:36], "big")
    while trunk and trunk not in free and trunk * size <= len(data):
        free.add(trunk)
        start = (trunk - 1) * size
        following, count = struct.unpack_from(">II", data, start)
        if count > size // 4 - 2:
            break
        free.update(struct.unpack_from(f">{count}I", data, start + 8))
        trunk = following
    return free


def _leaf(data: bytearray, size: int, number: int) -> Iterator[Row]:
    start = (number - 1) * size
    head = start + (100 if number == 1 else 0)
    if data[head] != _LEAF:
        return
    count = int.from_bytes(data[head + 3 : head + 5], "big")
    for index in range(min(count, size // 4)):
        with suppress(IndexError, ValueError, struct.error):
            place = int.from_bytes(data[head + 8 + 2 * index : head + 10 + 2 * index], "big")
            if not 8 <= place < size:
                continue
            length, at = _varint(data, start + place)
            revision, at = _varint(data, at)
            payload = _payload(data, size, at, length)
            row = _record(payload, revision)
            if row is not None:
                yield row


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + count + 1
    raise ValueError


def _payload(data: bytearray, size: int, at: int, length: int) -> bytes:
    """With what does not fit on the page, which is on a chain of others."""
    most = size - 35
    if length <= most:
        return bytes(data[at : at + length])
    least = (size - 12) * 32 // 255 - 23
    local = least + (length - least) % (size - 4)
    local = local if local <= most else least
    parts, left = [bytes(data[at : at + local])], length - local
    following = int.from_bytes(data[at + local : at + local + 4], "big")
    while left > 0:
        if not 0 < following * size <= len(data):
            raise ValueError
        start = (following - 1) * size
        parts.append(bytes(data[start + 4 : start + 4 + min(left, size - 4)]))
        left -= size - 4
        following = int.from_bytes(data[start : start + 4], "big")
    return b"".join(parts)


def _record(payload: bytes, revision: int) -> Row | None:
    """(revision as NULL, key, created, previous, value); None: a row of another table."""
    head, at = _varint(payload, 0)
    types, body = [], head
    while at < head:
        kind, at = _varint(payload, at)
        types.append(kind)
    if len(types) != 5 or types[0] != 0 or types[1] < 13 or not types[1] % 2:
        return None
    fields: list[bytes | int | None] = []
    for kind in types:
        width = _width(kind)
        raw = payload[body : body + width]
        if len(raw) != width:
            raise ValueError
        body += width
        fields.append(_field(kind, raw))
    key, created, value = fields[1], fields[2], fields[4]
    if not isinstance(key, bytes) or not isinstance(created, int) or isinstance(value, int):
        return None
    text = key.decode()
    return Row(revision, text, created, value) if text.startswith("/") else None


def _width(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]


def _field(kind: int, raw: bytes) -> bytes | int | None:
    if kind >= 12:
        return raw
    if kind in {8, 9}:
        return kind - 8
    return int.from_bytes(raw, "big", signed=True) if kind else None
