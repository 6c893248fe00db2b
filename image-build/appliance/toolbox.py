"""
The programs that images are made with: locked .debs, unpacked into a folder and entered by chroot.

So a Debian 12 and a Debian 13 make the same bytes, and nothing has to be installed. Root
enters by ``unshare --mount``; anybody else by a user namespace, where Debian allows that.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from appliance import debs, lock

CACHE = Path(__file__).parent.parent.parent / ".cache" / "toolbox"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
_FOLDERS = ("dev", "proc", "sys", "tmp", "run", "var/tmp", "root", "etc")
_EXCLUDED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/")
# Everything is bound before the root changes; then nothing of this machine is in sight.
_ENTER = """
root=$1; shift
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
for name in null zero full random urandom; do
  : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
mount --rbind /proc "$root/proc"
while [ "$1" != -- ]; do
  mkdir -p "$root/$1"; mount --bind "$2" "$root/$1"; shift 2
done
shift
exec chroot "$root" "$@"
"""


class ToolError(Exception):
    """A tool failed; the text is its name and what it said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """A root folder with programs of this machine's architecture."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)  # for every program

    def run(
        self,
        argv: Sequence[str],
        *,
        binds: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> bytes:
        """
        Run a program within; what it wrote to standard output.

        ``binds``: folders of this machine by their path within, writable; take paths below
        ``/mnt``. Within there are only ``/dev/null`` and the like, ``/proc`` and an empty
        ``/tmp``. The environment is what is given here, nothing of this machine's.
        Raises :class:`ToolError` where the program fails.
        """
        mounts = [part for at, path in (binds or {}).items() for part in (at, str(path.resolve()))]
        enter = ["unshare", "--mount", "--propagation=private"]
        if os.geteuid() != 0:
            enter.insert(1, "--map-root-user")
        done = subprocess.run(
            [*enter, "sh", "-ec", _ENTER, "sh", str(self.root), *mounts, "--", *argv],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            check=False,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", **self.environment, **(env or {})},
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
            raise ToolError(f"{argv[0]}: {said[-2000:] or f'exit code {done.returncode}'}")
        return done.stdout


def architecture() -> str:
    """Debian's name for this machine's."""
    done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, check=True)
    return done.stdout.decode().strip()


def make(say: Callable[[str], None], cache: Path = CACHE) -> Toolbox:
    """The toolbox of this machine, made at the first call and after a change of the lock."""
    packages = lock.for_tools(architecture())
    made_of = hashlib.sha256(lock.text(packages).encode() + Path(__file__).read_bytes())
    root = cache / made_of.hexdigest()[:16]
    if not root.exists():
        fetched = debs.fetch(packages, say)
        say(f"toolbox: {len(packages)} packages")
        cache.mkdir(parents=True, exist_ok=True)
        # Another one may make it at the same time: whoever is first has made it.
        with tempfile.TemporaryDirectory(dir=cache, suffix=".partial") as folder:
            _lay_out(Path(folder, "root"), [fetched[package] for package in packages])
            with contextlib.suppress(OSError):
                Path(folder, "root").rename(root)
        _forget_others(cache, root)
    return Toolbox(root=root)


def _lay_out(root: Path, packages: Sequence[Path]) -> None:
    for place in _FOLDERS:
        (root / place).mkdir(parents=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    for deb in packages:
        debs.unpack(deb, root, lambda place: not place.startswith(_EXCLUDED))
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    python = next((root / "usr/bin").glob("python3.*"))
    (root / "usr/bin/python3").symlink_to(PurePosixPath(python.name))


def _forget_others(cache: Path, root: Path) -> None:
    """But for the newest ones: somebody may work with one of those."""
    roots = (path for path in cache.iterdir() if path != root and path.suffix != ".partial")
    for path in sorted(roots, key=lambda path: path.stat().st_mtime, reverse=True)[2:]:
        shutil.rmtree(path)
