"""
The SQLite file: making, opening and copying it, and what its errors mean to the operator.

The table is a log: one row a change, the revision as its rowid, no other index.
Appending touches the rightmost page only, which is the least that can be
written to flash; what an index would answer is kept in memory by the store.

Write-ahead log with ``synchronous=FULL``: a commit returns after its fsync, so
a power cut keeps it. Checkpoints happen after 1000 pages, never on a timer: an
idle store writes nothing.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controlplane.store.base import Damaged, NoSpace, StoreError

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x504E4E43  # "PNNC": tells our files from other people's SQLite files

_CREATE = (
    # The value comes last: SQLite reads the columns before it without its overflow pages.
    """
    CREATE TABLE log (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        created INTEGER NOT NULL,
        previous INTEGER NOT NULL,  -- revision of the row that this one replaces; 0: none
        value BLOB                  -- NULL: the key was deleted
    )
    """,
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE volatile (family TEXT PRIMARY KEY) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('compacted', 0), ('reserved', 0)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

# Small page caches: values are cached above, and the kernel caches the file.
_PRAGMAS = (
    "PRAGMA cache_size = -1024",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 1000",
    "PRAGMA journal_size_limit = 8388608",
)

_VACUUM_FREE_BYTES = 32 << 20  # and more than half of the file


@dataclass(frozen=True, slots=True)
class Files:
    """An open store: one connection for its writer thread, one for its reader thread."""

    path: Path
    lock: int  # file descriptor; the lock lasts as long as it is open
    writer: sqlite3.Connection
    reader: sqlite3.Connection

    def close(self) -> None:
        """The last connection to close moves the write-ahead log into the database."""
        self.reader.close()
        self.writer.close()
        os.close(self.lock)


def open_files(path: Path) -> Files:
    """Open or make a store; :class:`StoreError` says what is wrong and what to do."""
    with contextlib.ExitStack() as undo:
        lock = _lock(path)
        undo.callback(os.close, lock)
        unclean = _stopped_uncleanly(path)
        if unclean:
            _make_durable(path)
        with explained(path):
            writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(writer.close)
            _prepare(path, writer, unclean)
            reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(reader.close)
            for pragma in (*_PRAGMAS, "PRAGMA query_only = ON"):
                reader.execute(pragma)
        undo.pop_all()
    return Files(path, lock, writer, reader)


def backup_file(source: Path, target: Path) -> None:
    """
    Copy a store that may be in use by this or another process, without stopping its writes.

    ``target`` must not exist; it appears whole or not at all, with mode 0600, as
    one file that needs no write-ahead log. Blocks: call it in a thread. Uses
    SQLite's online backup, in one step, so that it holds one consistent state.
    """
    if target.exists():
        raise StoreError(f"{target} exists: a backup never overwrites a file")
    if not source.exists():
        raise StoreError(f"there is no datastore at {source}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with explained(target), contextlib.ExitStack() as stack:
            stack.callback(temporary.unlink, missing_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            _copy(source, temporary)
            _appear(temporary, target)
    except OSError as error:
        raise StoreError(f"cannot write the backup {target}: {error.strerror}") from error


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into :class:`StoreError` texts that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _kind(error)(_explain(path, error)) from error


def damaged(path: Path, what: str) -> StoreError:
    return Damaged(
        f"the datastore {path} is damaged ({what}): stop the node and run `pinnace repair`, "
        "and check the storage device"
    )


def file_bytes(path: Path) -> int:
    """What the store takes on disk, write-ahead log included."""
    total = 0
    for name in (path, _beside(path, "-wal")):
        with contextlib.suppress(FileNotFoundError):
            total += name.stat().st_size
    return total


def _lock(path: Path) -> int:
    """
    One process at a time: a second would work from its own memory of what is in the file.

    The lock has its own file, because closing any descriptor of the database
    would drop SQLite's locks on it. Making the database here gives it its mode.
    """
    try:
        _make_directory(path.parent)
        lock = os.open(_beside(path, ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(_explain_os(path, error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            _sync_directory(path.parent)
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreError(
            f"the datastore {path} is in use by another process: stop it first"
        ) from error
    except OSError as error:
        os.close(lock)
        raise StoreError(_explain_os(path, error)) from error
    return lock


def _make_directory(path: Path) -> None:
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in missing:
        _sync_directory(directory.parent)


def _stopped_uncleanly(path: Path) -> bool:
    """A clean close leaves no write-ahead log; this costs no marker that must be written."""
    log = _beside(path, "-wal")
    return log.exists() and log.stat().st_size > 0


def _make_durable(path: Path) -> None:
    """
    Sync what a killed process may have left in the kernel alone.

    Its last commit is read from here on by others, who must not see it go at a power cut.
    """
    try:
        for name in (path, _beside(path, "-wal")):
            _sync(name, os.O_RDWR)
    except OSError as error:
        raise StoreError(_explain_os(path, error)) from error


def _prepare(path: Path, connection: sqlite3.Connection, unclean: bool) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    version = _check_version(path, connection)
    if unclean:
        found = _one(connection, "PRAGMA quick_check(1)")
        if found != "ok":
            raise damaged(path, str(found))
    connection.execute("PRAGMA journal_mode = WAL")
    if version == 0:
        _create(connection)
    else:
        _return_space(connection)


def _check_version(path: Path, connection: sqlite3.Connection) -> int:
    version = int(_one(connection, "PRAGMA user_version"))
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    if "kine" in tables:
        raise StoreError(
            f"{path} is a K3s datastore (kine), which Pinnace does not read: "
            "move it away, start, and apply your manifests"
        )
    if int(_one(connection, "PRAGMA application_id")) != _APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite file of another program: move it away")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the datastore {path} has schema version {version}, this program knows up to "
            f"{SCHEMA_VERSION}: run the newer Pinnace, or restore a snapshot from before the update"
        )
    return version


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _CREATE:
        connection.execute(statement)
    connection.execute("COMMIT")


def _return_space(connection: sqlite3.Connection) -> None:
    """
    Shrink a file that is mostly free pages, at a start only.

    In use, free pages are simply used again: moving them about would write to
    flash for nothing.
    """
    pages = int(_one(connection, "PRAGMA page_count"))
    free = int(_one(connection, "PRAGMA freelist_count"))
    size = int(_one(connection, "PRAGMA page_size"))
    if free * size > _VACUUM_FREE_BYTES and free * 2 > pages:
        # It needs room for a copy; without that the store is as good as before.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")


def _copy(source: Path, target: Path) -> None:
    with contextlib.ExitStack() as stack:
        with explained(source):
            origin = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
            stack.callback(origin.close)
            if int(_one(origin, "PRAGMA application_id")) != _APPLICATION_ID:
                raise StoreError(f"{source} is not a Pinnace datastore")
        copy = sqlite3.connect(target, isolation_level=None)
        with contextlib.closing(copy):
            # One step: between steps a write by another process would start it over.
            origin.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")


def _appear(temporary: Path, target: Path) -> None:
    _sync(temporary, os.O_RDONLY)
    try:
        os.link(temporary, target)  # unlike a rename it fails where the target exists
    except FileExistsError as error:
        raise StoreError(f"{target} exists: a backup never overwrites a file") from error
    except OSError:
        temporary.rename(target)  # FAT and some network filesystems have no hard links
    _sync_directory(target.parent)


def _sync_directory(path: Path) -> None:
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _one(connection: sqlite3.Connection, statement: str) -> str:
    return str(connection.execute(statement).fetchone()[0])


def _explain_os(path: Path, error: OSError) -> str:
    return (
        f"cannot open the datastore {path}: {error.strerror}: "
        "its directory must exist on a writable filesystem and belong to this user"
    )


def _kind(error: sqlite3.Error) -> type[StoreError]:
    name: str = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")):
        return NoSpace
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Damaged
    return StoreError


def _explain(path: Path, error: sqlite3.Error) -> str:
    name: str = getattr(error, "sqlite_errorname", "")
    for prefix, text in _EXPLANATIONS:
        if name.startswith(prefix):
            return f"{text.format(path=path)} ({name})"
    return f"the datastore {path}: {error} ({name})"


_EXPLANATIONS = (
    ("SQLITE_FULL", "no space left for the datastore {path}: free some on its filesystem"),
    # As it is told of its shared memory, which lies beside it.
    ("SQLITE_IOERR_SHMSIZE", "no space left for the datastore {path}: free some on its filesystem"),
    ("SQLITE_READONLY", "the datastore {path} is read-only: mount its filesystem writable"),
    ("SQLITE_CANTOPEN", "cannot open {path}: it must be a file that this user can write"),
    ("SQLITE_NOTADB", "{path} is not a datastore: move it away, or run `pinnace repair`"),
    (
        "SQLITE_CORRUPT",
        "the datastore {path} is damaged: stop the node and run `pinnace repair`, "
        "and check the storage device",
    ),
    ("SQLITE_IOERR", "the storage of the datastore {path} failed: see the kernel's log"),
    ("SQLITE_BUSY", "the datastore {path} is locked by another process: stop it"),
)
