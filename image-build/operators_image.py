"""
The image of the operators for another Kubernetes, made here and without a registry.

Debian's Python and tools, the locked packages of this checkout's virtual environment, and the
program; with the libraries that these need and nothing else, not even a package manager. The
same inputs give the same bytes. Usage: ``operators_image.py FOLDER``, for the image and its chart.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from images import ACCOUNTS, BUSYBOX, CATATONIT
from oci import ARCHITECTURES, Entry, File, Folder, Image, Link, archive

# The one reader of markers that every virtual environment has.
from pip._vendor.packaging.requirements import Requirement

from charts import pack

ROOT = Path(__file__).parent.parent
HOME = PurePosixPath("opt/pinnace")  # the program and its packages: one entry of PYTHONPATH
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = f"usr/lib/{PYTHON}"
AUTHORITIES = Path("/usr/share/ca-certificates/mozilla")

# What the operators import; what these need comes with them.
PACKAGES = ("kopf", "kubernetes", "pyyaml", "helm-python-sdk", "orjson")
# There is no wheel of it for armv7, where a chart's status then says that Helm is missing.
OPTIONAL = frozenset({"helm-python-sdk"})
# Beside Python: of netpol, of volumes that are file system images, and a shell to look around.
TOOLS = (
    "/usr/sbin/nft",
    "/usr/sbin/conntrack",
    "/usr/sbin/mke2fs",
    "/usr/sbin/e2fsck",
    "/usr/sbin/resize2fs",
    "/usr/sbin/dumpe2fs",
    "/usr/sbin/tune2fs",
    "/usr/sbin/losetup",
    "/usr/bin/mount",
    "/usr/bin/umount",
    "/usr/bin/chattr",
    "/usr/bin/lsattr",
)
ALIASES = {"usr/sbin/mkfs.ext4": "mke2fs", "usr/sbin/fsck.ext4": "e2fsck"}
SETTINGS = ("/etc/mke2fs.conf", "/etc/protocols", "/etc/services")
SHELL = "sh ls cat cp mv rm mkdir rmdir ln chmod chown stat du df ps kill sleep env wget nslookup"
USR_LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}

# Of the standard library: nothing of it is imported, and it is half of the size.
_UNUSED_STDLIB = (
    "test idlelib tkinter turtledemo lib2to3 ensurepip pydoc_data distutils venv "
    "curses dbm wsgiref turtle.py"
).split()
# Of the packages: other forms of the client, and one class for each kind of object, of
# which an operator that reads and writes JSON loads none.
_UNUSED = re.compile(
    r"kubernetes/(aio|e2e_test|test|docs)/|kubernetes/client/(api|models)/(?!__init__)"
    r"|(^|/)tests?/|\.pyi$|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)

Entries = dict[str, Entry]
IMAGE = "pinnace-operators.tar"
CHART = ROOT / "charts" / "pinnace-operators"
DEFINITIONS = ROOT / "controlplane" / "deploy" / "crds"
# Not those of others, whose own programs bring them elsewhere.
CHART_DEFINITIONS = ("helmchartconfigs.yaml", "helmcharts.yaml", "upgradeplans.yaml")


class CannotBuild(Exception):
    """Something that the user can mend; the text is one line that says what to do."""


def version() -> str:
    project: Mapping[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


def name() -> str:
    return f"pinnace.dev/operators:{version()}"


def image() -> Image:
    """Raises :class:`CannotBuild` where this machine's Python is not Debian's, or a tool misses."""
    entries = {**_python(), **_packages(), **_program(), **_tools(), **_accounts()}
    entries |= _compiled(entries)
    entries |= _libraries(entries)
    entries |= {place: Link(target) for place, target in USR_LINKS.items()}
    return Image(
        names=(name(),),
        entries=entries,
        architecture=ARCHITECTURES[platform.machine()],
        # As the first process, so that the orphans of Helm and of the tools are seen to.
        entrypoint=("/usr/bin/catatonit", "--", f"/usr/bin/{PYTHON}", "-m", "operators"),
        environment={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": f"/{HOME}",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        user="65532:65532",
        working_dir="/",
    )


def chart() -> bytes:
    """The packed chart, with the definitions that a node of Pinnace has as well."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / CHART.name
        shutil.copytree(CHART, copy)
        (copy / "crds").mkdir()
        for name in CHART_DEFINITIONS:
            shutil.copyfile(DEFINITIONS / name, copy / "crds" / name)
        return pack(copy)


def write(folder: Path) -> list[Path]:
    """The image, for ``ctr images import``, and the chart; not made again from the same inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / f"{CHART.name}-{version()}.tgz"
    _replace(packed, chart())
    target, stamp, key = folder / IMAGE, folder / f"{IMAGE}.key", inputs()
    if not (target.exists() and stamp.exists() and stamp.read_text() == key):
        _replace(target, archive([image()]))
        stamp.write_text(key)
    return [target, packed]


def _replace(target: Path, data: bytes) -> None:
    if not target.exists() or target.read_bytes() != data:
        partial = target.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(target)


def inputs() -> str:
    """A digest of all that the image is made from: programs, packages, and Debian's versions."""
    digest = hashlib.sha256()
    for path in [*_sources(), *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for distribution in closure(PACKAGES):
        digest.update((distribution.read_text("RECORD") or "").encode())
    installed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"], capture_output=True, check=True
    )
    digest.update(installed.stdout)
    return digest.hexdigest()


def _file(path: Path) -> File:
    return File(path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)


def _usr(path: str) -> str:
    """Where a file of Debian's is: /bin, /sbin and /lib are links into /usr."""
    place = path.lstrip("/")
    return f"usr/{place}" if place.partition("/")[0] in USR_LINKS else place


# Python


def _python() -> Entries:
    program = Path(f"/usr/bin/{PYTHON}")
    if not program.exists():
        raise CannotBuild(
            f"the packages here are for {PYTHON}, which Debian's {program} is not: "
            "make the virtual environment with the system's own Python (PYTHON=/usr/bin/python3)"
        )
    found: Entries = {str(program).lstrip("/"): _file(program), "usr/bin/python3": Link(PYTHON)}
    for package in (f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib", f"{PYTHON}-minimal"):
        for path in _listed(package):
            place = _usr(str(path))
            if place.startswith(f"{STDLIB}/") and not _unused(place):
                found[place] = Link(str(path.readlink())) if path.is_symlink() else _file(path)
    return found


def _unused(place: str) -> bool:
    parts = PurePosixPath(place).relative_to(STDLIB).parts
    return parts[0] in _UNUSED_STDLIB or parts[0].startswith("config-") or "__pycache__" in parts


def _listed(package: str) -> Iterator[Path]:
    """The files of an installed Debian package."""
    done = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"Debian's package {package} is not installed")
    paths = (Path(line) for line in done.stdout.splitlines())
    return (path for path in paths if path.is_file() or path.is_symlink())


# Packages and program


def _packages() -> Entries:
    root = Path(sysconfig.get_path("purelib"))
    found: Entries = {}
    for distribution in closure(PACKAGES):
        for file in distribution.files or ():
            place, path = str(file), Path(str(file.locate()))
            if place.startswith("..") or "__pycache__" in place or _UNUSED.search(place):
                continue
            if path.is_file() and path.is_relative_to(root):
                found[str(HOME / place)] = _file(path)
    return found | _deduplicated(found)


def closure(names: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """These packages and all that they need, sorted by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name_ = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name_ not in found and not (name_ in OPTIONAL and not _installed(name_)):
            found[name_] = importlib.metadata.distribution(name_)
            needed = (Requirement(text) for text in found[name_].requires or ())
            waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return [found[name_] for name_ in sorted(found)]


def _installed(name_: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name_))


def _deduplicated(entries: Entries) -> Entries:
    """A wheel cannot hold links: what it holds twice in a folder becomes one."""
    first: dict[tuple[str, bytes], str] = {}
    links: Entries = {}
    for place, entry in sorted(entries.items()):
        if isinstance(entry, File) and len(entry.data) > 2**20:
            folder, _, last = place.rpartition("/")
            original = first.setdefault((folder, entry.data), last)
            if original != last:
                links[place] = Link(original)
    return links


def _program() -> Entries:
    return {str(HOME / path.relative_to(ROOT)): File(path.read_bytes()) for path in _sources()}


def _sources() -> list[Path]:
    """The operators, and of the control plane the expressions that checks of upgrades are."""
    objects = ROOT / "controlplane" / "objects"
    found = [objects.parent / "__init__.py", *objects.rglob("*.py")]
    found += [path for path in (ROOT / "operators").rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _compiled(entries: Entries) -> Entries:
    """Bytecode, since the image is read-only: trusted as it is, so no file's time is looked at."""
    sources = {place: e for place, e in entries.items() if place.endswith(".py")}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place, entry in sorted(sources.items()):
            if isinstance(entry, File):
                path = root / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(entry.data)
        flags = ("-q", "-j1", "--invalidation-mode=unchecked-hash", "-s", folder, "-p", "/")
        subprocess.run(
            [f"/usr/bin/{PYTHON}", "-m", "compileall", *flags, folder],
            env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
            check=False,  # a few files of the standard library are broken on purpose
            stdout=subprocess.DEVNULL,
        )
        return {
            path.relative_to(root).as_posix(): File(path.read_bytes())
            for path in sorted(root.rglob("*.pyc"))
        }


# Tools and libraries


def _tools() -> Entries:
    found: Entries = {}
    for tool in TOOLS:
        path = next((p for p in (Path(tool), Path(tool.removeprefix("/usr"))) if p.exists()), None)
        if path is None:
            raise CannotBuild(f"{tool} is not there: install the Debian package that has it")
        found[_usr(tool)] = _file(path)
    found |= {place: Link(target) for place, target in ALIASES.items()}
    found["usr/bin/busybox"] = _file(BUSYBOX)
    found["usr/bin/catatonit"] = _file(CATATONIT)
    found |= {f"usr/bin/{applet}": Link("busybox") for applet in SHELL.split()}
    found |= {path.lstrip("/"): _file(Path(path)) for path in SETTINGS if Path(path).exists()}
    bundle = b"".join(path.read_bytes() for path in sorted(AUTHORITIES.glob("*.crt")))
    return found | {"etc/ssl/certs/ca-certificates.crt": File(bundle)}


def _accounts() -> Entries:
    users = (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"operators:x:65532:65532::/tmp:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/:/bin/sh\n"
    )
    groups = b"root:x:0:\noperators:x:65532:\nnogroup:x:65534:\n"
    own: Entries = {"etc/passwd": File(users), "etc/group": File(groups), "run": Folder()}
    return {**ACCOUNTS, **own}


def _libraries(entries: Entries) -> Entries:
    """The shared libraries, and the loader, that the programs and modules among these need."""
    names = {PurePosixPath(place).name for place in entries}
    found: Entries = {}
    for place, entry in sorted(entries.items()):
        if isinstance(entry, File) and entry.data.startswith(b"\x7fELF"):
            for path in _needed(_on_this_machine(place)):
                if path.name not in names:
                    found[_usr(str(path))] = _file(path)
    return found


def _on_this_machine(place: str) -> Path:
    if place.startswith(f"{HOME}/"):
        return Path(sysconfig.get_path("purelib")) / PurePosixPath(place).relative_to(HOME)
    path = Path("/") / place
    return path if path.exists() else Path("/") / place.removeprefix("usr/")


def _needed(path: Path) -> Iterator[Path]:
    """As the loader of this machine finds them; nothing for a static program."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if "not found" in line:
            raise CannotBuild(f"{path}: {line.strip()}")
        match = re.search(r"(/\S+) \(0x", line)
        if match:
            yield Path(match[1])


if __name__ == "__main__":
    try:
        for made in write(Path(sys.argv[1])):
            sys.stdout.write(f"{made}  {made.stat().st_size / 2**20:.1f} MiB\n")
    except CannotBuild as err:
        sys.exit(f"operators_image.py: {err}")
