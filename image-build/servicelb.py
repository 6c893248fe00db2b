"""
The image whose containers forward a port of a LoadBalancer Service, made from Debian packages.

For clusters whose nodes do not forward themselves (see operators/servicelb). nftables with
its libraries, a shell from busybox, and catatonit to wait and to reap. Usage: ``servicelb.py
FOLDER`` writes an archive that containerd imports.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from images import ACCOUNTS, BUSYBOX, CATATONIT, architecture
from oci import Entry, File, Image, Link, archive

NAME = "pinnace.dev/servicelb:1"
TOOLS = ("sh", "cat", "tr")
PROGRAM = Path(__file__).parent / "forward.sh"


def libraries(program: Path) -> dict[str, Entry]:
    """What the loader loads for a program, by the path at which it looks."""
    listed = subprocess.run(["ldd", program], capture_output=True, check=True, text=True)
    paths = [word for word in listed.stdout.split() if word.startswith("/")]
    return {path.lstrip("/"): File(Path(path).read_bytes(), 0o755) for path in paths}


def image() -> Image:
    nft = Path(shutil.which("nft", path="/usr/sbin:/sbin") or "/usr/sbin/nft")
    entries: dict[str, Entry] = {f"bin/{tool}": Link("busybox") for tool in TOOLS}
    entries |= ACCOUNTS | libraries(nft)
    entries |= {
        "bin/busybox": File(BUSYBOX.read_bytes(), 0o755),
        "bin/nft": File(nft.read_bytes(), 0o755),
        "pause": File(CATATONIT.read_bytes(), 0o755),
        "forward": File(PROGRAM.read_bytes(), 0o755),
    }
    return Image(
        names=(NAME,),
        entries=entries,
        architecture=architecture(),
        entrypoint=("/forward",),
        environment={"PATH": "/bin"},
    )


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "pinnace-servicelb.tar"
    partial = target.with_suffix(".partial")
    partial.write_bytes(archive([image()]))
    partial.rename(target)
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
