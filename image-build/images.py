"""
The images that a node without a registry starts with, made from Debian packages.

``pause`` holds a pod's namespaces and reaps its orphans; ``busybox`` and
``hello`` are for the example and the tests. Usage: ``images.py FOLDER``.
"""

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from oci import ARCHITECTURES, Entry, File, Folder, Image, Link, archive

CATATONIT = Path("/usr/bin/catatonit")
BUSYBOX = Path("/bin/busybox")
PAGE = b"Hello from Pinnace.\n"
ACCOUNTS: dict[str, Entry] = {
    "etc/passwd": File(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
    "etc/group": File(b"root:x:0:\nnogroup:x:65534:\n"),
    "etc/nsswitch.conf": File(b"hosts: files dns\n"),
    "tmp": Folder(0o1777),
    "root": Folder(0o700),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What the images are made of, static programs; of this machine, or of another one."""

    busybox: Path
    catatonit: Path
    architecture: str  # amd64, arm64, arm
    applets: tuple[str, ...]  # that the busybox has


def architecture() -> str:
    return ARCHITECTURES[platform.machine()]


def installed() -> Programs:
    """Those of this machine."""
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True, text=True)
    return Programs(
        busybox=BUSYBOX,
        catatonit=CATATONIT,
        architecture=architecture(),
        applets=tuple(tool for tool in listed.stdout.split() if tool != "busybox"),
    )


def pause(programs: Programs | None = None) -> Image:
    """catatonit's pause mode waits for signals and reaps; the package has a static binary."""
    programs = programs or installed()
    return Image(
        names=("pinnace.dev/pause:1",),
        entries={"pause": File(programs.catatonit.read_bytes(), 0o755)},
        architecture=programs.architecture,
        entrypoint=("/pause", "-P"),
        user="65535:65535",
    )


def _busybox_entries(programs: Programs) -> dict[str, Entry]:
    tools: dict[str, Entry] = {f"bin/{tool}": Link("busybox") for tool in programs.applets}
    return tools | {"bin/busybox": File(programs.busybox.read_bytes(), 0o755)} | ACCOUNTS


def busybox(programs: Programs | None = None) -> Image:
    programs = programs or installed()
    return Image(
        names=("docker.io/library/busybox:1.35", "docker.io/library/busybox:latest"),
        entries=_busybox_entries(programs),
        architecture=programs.architecture,
        command=("sh",),
        environment={"PATH": "/bin"},
    )


def hello(programs: Programs | None = None) -> Image:
    """A web server with one page, on port 8080."""
    programs = programs or installed()
    return Image(
        names=("pinnace.dev/hello:1",),
        entries=_busybox_entries(programs) | {"www/index.html": File(PAGE)},
        architecture=programs.architecture,
        entrypoint=("/bin/httpd", "-f", "-p", "8080", "-h", "/www"),
        environment={"PATH": "/bin"},
        user="65534:65534",
    )


def write(folder: Path, programs: Programs | None = None) -> Path:
    """All of them in one archive, replaced only where it changed."""
    programs = programs or installed()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "pinnace-images.tar"
    data = archive([pause(programs), busybox(programs), hello(programs)])
    if not target.exists() or target.read_bytes() != data:
        partial = target.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(target)
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
