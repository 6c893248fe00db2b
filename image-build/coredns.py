"""
CoreDNS's image, built from its Go module for the tests of the chart ``charts/coredns``.

No node needs it: the chart's own image is the public one. Only the plugins that the chart's
Corefile and its additions use are built in; what is fetched is checked against the module's
pinned sum and its own list of sums. It takes minutes of one core, at the lowest priority,
and is kept in ``.cache/coredns``. Usage: ``coredns.py FOLDER``.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images import ACCOUNTS, architecture
from oci import File, Image, archive

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "coredns"
MODULE = "github.com/coredns/coredns"
VERSION = "1.15.0"
SUM = "h1:OBT+OEyHVdUiVxPhrNlC5XZVq3RkSxzQXfZQ76gm5ck="
NAME = f"pinnace.dev/coredns:{VERSION}"
PLUGINS = """
    cache errors forward health hosts kubernetes loadbalance loop metrics ready reload
    rewrite template
""".split()
LIST_OF_PLUGINS = Path("core", "plugin", "zplugin.go")
FOLDERS = ("/usr/local/go/bin", "/usr/lib/go/bin")  # beside PATH


class Unavailable(Exception):
    """It cannot be built here; the text says why in one line."""


def go() -> str:
    found = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))  # noqa: TID251
    if found is None:
        raise Unavailable("there is no Go here to build CoreDNS with")
    return found


def _run(command: list[str], **more: str) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}  # noqa: TID251
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=more.get("cwd")
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unavailable(f"CoreDNS cannot be built: {last[-1] if last else 'no reason given'}")
    return done.stdout


def source() -> Path:
    """The folder of the module in Go's own cache. Raises :class:`Unavailable`."""
    told = json.loads(_run([go(), "mod", "download", "-json", f"{MODULE}@v{VERSION}"], cwd="/"))
    if told["Sum"] != SUM:
        raise Unavailable(f"{MODULE} v{VERSION} is not the one that is pinned: {told['Sum']}")
    return Path(told["Dir"])


def program() -> Path:
    """The binary, built when it is not in the cache. Raises :class:`Unavailable`."""
    target = CACHE / f"coredns-{VERSION}"
    if target.exists():
        return target
    folder = source()
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # Go replaces no file of its own cache, so a copy loses the other plugins.
        tree, built = Path(scratch, "tree"), Path(scratch, "coredns")
        shutil.copytree(folder, tree, copy_function=shutil.copyfile)
        lines = "".join(f'\t_ "{MODULE}/plugin/{name}"\n' for name in PLUGINS)
        (tree / LIST_OF_PLUGINS).write_text(f"package plugin\n\nimport (\n{lines})\n")
        # One compiler at a time, after everybody else: the machine may be busy with tests.
        options = ["-p=1", "-trimpath", "-ldflags=-s -w", f"-o={built}"]
        _run(["nice", "-n", "19", go(), "build", *options, "."], cwd=str(tree))
        shutil.move(built, target)
    return target


def image(binary: bytes) -> Image:
    return Image(
        names=(NAME,),
        entries=ACCOUNTS | {"coredns": File(binary, 0o755)},
        architecture=architecture(),
        entrypoint=("/coredns",),
        user="65532:65532",
    )


def write(folder: Path) -> Path:
    """Put the image into a folder of images; raises :class:`Unavailable`."""
    target = folder / "coredns.tar"
    if not target.exists():
        data = archive([image(program().read_bytes())])
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(target)
    return target


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
    except Unavailable as err:
        sys.exit(str(err))
