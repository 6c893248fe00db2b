"""
Put a plan into effect: every file whole or not at all, what is right already untouched.

Blocking, in the boot, before the network is set up: nothing here waits for anything.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from node.firstboot.places import AUTHORIZED_KEYS
from node.firstboot.plan import (
    NETWORK,
    NETWORKS,
    OWNED,
    TIME_ZONE,
    WATCHDOG,
    ZONES,
    File,
    Plan,
    authorized,
)
from node.host.files import sync_directory, write_atomic, write_if_changed


def apply(plan: Plan, root: Path) -> frozenset[str]:
    """Paths below ``root`` that were changed; the second time none."""
    changed = {file.path for file in plan.files if _write(root, file)}
    changed |= _remove_others(root, plan.files)
    if _link(root / TIME_ZONE, f"{ZONES}/{plan.time_zone}"):
        changed.add(TIME_ZONE)
    if _authorize(root / AUTHORIZED_KEYS, plan.keys):
        changed.add(AUTHORIZED_KEYS)
    return frozenset(changed)


def _write(root: Path, file: File) -> bool:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_drafts(path)
    changed = write_if_changed(path, file.content, mode=file.mode)
    if path.stat().st_mode & 0o777 != file.mode:
        path.chmod(file.mode)
        return True
    return changed


def _remove_drafts(path: Path) -> None:
    """What a power cut left of an earlier write."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)


def _remove_others(root: Path, files: Iterable[File]) -> set[str]:
    wanted = {file.path for file in files}
    networks = (root / NETWORK).glob(NETWORKS)
    possible = {*OWNED, *(path.relative_to(root).as_posix() for path in networks)}
    gone = set()
    for name in sorted(possible - wanted):
        path = root / name
        if path.exists() or path.is_symlink():
            path.unlink()
            sync_directory(path.parent)
            gone.add(name)
    return gone


def _link(path: Path, target: str) -> bool:
    with contextlib.suppress(OSError):
        if path.readlink() == Path(target):
            return False
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
    sync_directory(path.parent)
    return True


def _authorize(path: Path, keys: Iterable[str]) -> bool:
    try:
        before = path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        before = ""
    after = authorized(before, keys)
    if after == before:
        return False
    # sshd takes no keys from a folder that others may write to.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_mode & 0o077:
        path.parent.chmod(0o700)
    write_atomic(path, after.encode(errors="surrogateescape"), mode=0o600)
    return True


def take_effect(plan: Plan, changed: frozenset[str], say: Callable[[str], None]) -> None:
    """
    What has been read by now although it was changed: the name, and systemd's own settings.

    All that reads the rest starts later in this boot.
    """
    if socket.gethostname() != plan.hostname:
        socket.sethostname(plan.hostname)
    if WATCHDOG in changed:
        _run(["systemctl", "daemon-reload"], say)


# Keys by which people know this machine


def ensure_host_keys(folder: Path, say: Callable[[str], None]) -> bool:
    """
    A key of this machine for SSH, made once; one that a power cut left unreadable is made anew.

    True: one was made. Made beside its place and moved there whole, the public half first.
    """
    path = folder / "ssh_host_ed25519_key"
    if path.exists() and _run(["ssh-keygen", "-y", "-P", "", "-f", str(path)], None):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".making"
    for old in (draft, draft.with_name(".making.pub")):
        old.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(draft)]
    if not _run(argv, say):
        return False
    for suffix in (".pub", ""):
        made = folder / f".making{suffix}"
        _sync(made)
        made.replace(folder / f"ssh_host_ed25519_key{suffix}")
    sync_directory(folder)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(argv: list[str], say: Callable[[str], None] | None) -> bool:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        if say is not None:
            say(f"{argv[0]}: {err}")
        return False
    if done.returncode and say is not None:
        say(f"{argv[0]}: {done.stderr.strip() or done.returncode}")
    return done.returncode == 0
