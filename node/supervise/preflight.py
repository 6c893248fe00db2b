"""
Look before the start whether it can succeed, and say in one line what to do if not.

Nothing is written before every check has passed, but the data folder itself.
"""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from node.host.probe import missing_features
from node.settings import UsageError
from node.supervise.clock import LAST_SEEN
from node.supervise.containerd import CNI_FOLDERS

PROGRAMS = {"containerd": "containerd", "runc": "runc", "nft": "nftables"}
LONGEST_SOCKET = 104  # bytes that containerd allows for the path of a socket; Linux has 107
LEAST_FREE_BYTES = 32 * 2**20
PROBLEM = Path("/run/pinnace-boot/problem")  # written before systemd started: node.appliance.early
WITHOUT_DATA = ("DataMissing:", "DataCorrupt:", "DataReadOnly:")


class CannotStart(UsageError):
    """The start would fail; the text is one line that says what to do."""


def check(settings: Mapping[str, Any]) -> None:
    if os.geteuid() != 0:
        raise CannotStart("pinnace must run as root: use sudo")
    _check_programs()
    for line in missing_features():
        raise CannotStart(line)
    _check_run_dir(Path(settings["run-dir"]))
    _check_data_dir(Path(settings["data-dir"]))
    if settings["role"] == "server":
        _check_lost(Path(settings["data-dir"]), begin_empty=settings["begin-empty"])
        _check_port(settings["bind-address"], settings["https-listen-port"], "https-listen-port")
    _check_port("0.0.0.0", settings["kubelet-port"], "kubelet-port")


def _check_programs() -> None:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise CannotStart(f"{program} is missing: apt-get install {package}")
    if not any(Path(folder, "bridge").exists() for folder in CNI_FOLDERS):
        raise CannotStart(
            "the CNI plugins are missing: apt-get install containernetworking-plugins"
        )


def _check_run_dir(path: Path) -> None:
    """containerd's longest socket must fit, or it dies at each of its starts."""
    rest = len(os.fsencode(path / "containerd" / "containerd.sock.ttrpc")) - len(os.fsencode(path))
    if len(os.fsencode(path)) + rest > LONGEST_SOCKET:
        raise CannotStart(
            f"the path {path} is too long for sockets: choose one of at most "
            f"{LONGEST_SOCKET - rest} bytes with --run-dir"
        )


def _check_data_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as err:
        if err.errno == errno.ENOSPC and has_datastore(path):
            return  # what is reserved there lets people tidy up
        raise CannotStart(
            f"cannot write to the data folder {path}: {err.strerror}; free space there or choose "
            "another with --data-dir"
        ) from err
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE_BYTES and not has_datastore(path):
        raise CannotStart(
            f"the disk of the data folder {path} is full ({free // 2**20} MiB free): "
            "free some space"
        )


def has_datastore(data_dir: Path) -> bool:
    try:
        return (data_dir / "server" / "db" / "state.db").stat().st_size > 0
    except OSError:
        return False


def _check_lost(data_dir: Path, *, begin_empty: bool) -> None:
    """
    An empty cluster must not pass for the one that was there.

    It was there if pods ran here or the node was stopped once; a first start that was cut off
    leaves neither.
    """
    if begin_empty:
        return
    if why := data_problem():
        raise CannotStart(
            f"the data of this machine cannot be used ({why}): it would begin as an empty "
            "cluster; see `pinnace repair`, or say so with --begin-empty"
        )
    pods = data_dir / "agent" / "pods"
    was_used = (data_dir / LAST_SEEN).exists() or (pods.is_dir() and any(pods.iterdir()))
    if was_used and not has_datastore(data_dir):
        raise CannotStart(
            f"the datastore in {data_dir}/server/db is lost: this would begin as an empty "
            "cluster; put a snapshot there as state.db (`pinnace repair` names those that there "
            "are), or say so with --begin-empty"
        )


def data_problem(path: Path = PROBLEM) -> str:
    """Why this machine was started without its data partition; "" where it was not."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(WITHOUT_DATA)), "")


def _check_port(address: str, port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as err:
            raise CannotStart(
                f"cannot listen on {address}:{port}: {err.strerror}; stop what uses it or choose "
                f"another with --{flag}"
            ) from err


def lock(run_dir: Path) -> IO[str]:
    """Be the only daemon on this machine for as long as the file is open."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / "pinnace.lock").open("a+")
    except OSError as err:
        raise CannotStart(f"cannot write to {run_dir}: {err.strerror}") from err
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        other = file.read().strip() or "unknown"
        file.close()
        raise CannotStart(f"pinnace already runs as process {other}: stop it first") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
