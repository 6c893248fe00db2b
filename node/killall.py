"""
Stop every pod of this machine and take its network down; the data stays.

For the day when a node is to be taken apart while containerd is not there to
ask. It refuses while the daemon runs, since that would start the pods again.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from node.config import Config, from_settings
from node.host import mounts
from node.kubelet import localpath
from node.supervise.preflight import lock

LINKS = ("cni0", "pinnace-dns", "flannel.1")
CNI_STATE = Path("/var/lib/cni/networks")


def run(settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Raises :class:`node.supervise.preflight.CannotStart` while the daemon runs."""
    config = from_settings(settings)
    with lock(config.run_dir):
        stop(config, say)


def stop(config: Config, say: Callable[[str], None]) -> None:
    """For who has the lock already."""
    say(f"stopped {_kill_pods(config.containerd_socket)} processes of pods")
    say(f"unmounted {_unmount(config)} mounts")
    _remove_network()
    say("removed the pod network")


def stale_addresses() -> list[Path]:
    """Notes of the CNI plugin on addresses whose sandbox no process is about any more."""
    folder = CNI_STATE / "pinnace"
    notes = [p for p in folder.iterdir() if p.name[:1].isdigit()] if folder.is_dir() else []
    commands = [command for _, _, command in _processes()] if notes else []

    def is_stale(path: Path) -> bool:
        sandbox = (path.read_text().split() or [""])[0]
        return not sandbox or not any(sandbox in command for command in commands)

    return [path for path in notes if is_stale(path)]


def _processes() -> Iterable[tuple[int, int, str]]:
    """Number, parent and command line of each process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(folder.name), parent, command


def shims(socket: Path) -> set[int]:
    """The shims that belong to our containerd, with all that runs below them."""
    processes = list(_processes())
    doomed = {
        number
        for number, _, command in processes
        if "containerd-shim" in command and str(socket) in command
    }
    grown = True
    while grown:
        below = {number for number, parent, _ in processes if parent in doomed} - doomed
        doomed |= below
        grown = bool(below)
    return doomed


def _kill_pods(socket: Path) -> int:
    doomed = shims(socket)
    for number in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    return len(doomed)


def _unmount(config: Config) -> int:
    places = (str(config.run_dir), str(config.pods_dir), "/run/netns/cni-")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = [mount for line in lines if (mount := line.split()[4]).startswith(places)]
    for mount in reversed(ours):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        if mount.startswith("/run/netns/cni-"):
            Path(mount).unlink(missing_ok=True)
    images = localpath.mounted(localpath.mark(config.pods_dir))
    for point in images:
        mounts.unmount(point, detach=True)  # its loop device goes with it
    return len(ours) + len(images)


def _remove_network() -> None:
    for link in LINKS:
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
    listed = subprocess.run(
        ["nft", "list", "tables"], check=False, capture_output=True, text=True
    ).stdout
    for line in listed.splitlines():
        _, family, name = line.split()
        if name.startswith("pinnace"):
            subprocess.run(["nft", "delete", "table", family, name], check=False)
    shutil.rmtree(CNI_STATE / "pinnace", ignore_errors=True)
