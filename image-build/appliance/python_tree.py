"""
The program and its packages as Debian's Python finds them, as bytecode alone.

Everything lies in the folder that Debian's Python looks into by itself, so whatever is started
as ``python3 -m …`` finds it, whatever its environment. There are no sources: bytecode without a
source beside it is taken whatever the level of optimisation is, needs no check of times, and is
half of the size. It is made by the image's own Python, which runs in the toolbox.
"""

import re
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from appliance import wheels
from appliance.toolbox import Toolbox
from appliance.wheels import PYTHON, ROOT, Wheel

HOME = "usr/lib/python3/dist-packages"
STDLIB = f"usr/lib/python{PYTHON}"
LICENSES = "usr/share/pinnace/licenses"
PROGRAMS = ("controlplane", "node", "operators")

# Of the standard library: nothing of it is imported here.
_UNUSED_STDLIB = frozenset(
    """
    test idlelib tkinter turtledemo lib2to3 ensurepip pydoc_data distutils venv curses dbm wsgiref
    turtle.py LICENSE.txt antigravity.py this.py __phello__
    """.split()
)
# Of the wheels: other forms of the client, one class for each kind of object, what only
# compilers read, and time zones, which Debian has.
_UNUSED = re.compile(
    r"kubernetes/(aio|e2e_test|test|docs)/|kubernetes/client/api/(?!__init__)"
    r"|^tzdata|(^|/)tests?/|/_testcapi\.|\.(pyi|pyx|pxd|pxi|c|h|hash|typed)$|/py\.typed$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|WHEEL|top_level\.txt|direct_url\.json)$"
    r"|^controlplane/generate/|(^|/)__pycache__/"
)
# Descriptions of built-in types, which `kubectl explain` shows, are read out of these as text.
_PROSE = re.compile(r"kubernetes/client/models/(?!__init__)[^/]+\.py$")
_PROSE_END = "\n    openapi_types"
_PROSE_START = 'raise ImportError("descriptions of the type, no class")\n'
_LICENSE = re.compile(
    r"\.dist-info/(licenses?/)?(.*(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*)$", re.IGNORECASE
)


class PythonError(Exception):
    """The tree cannot be made; one line."""


def build(tree: Path, chosen: Iterable[Wheel], toolbox: Toolbox, release: str) -> None:
    """
    Put the wheels and the program into a tree that has Debian's Python, and compile all.

    ``release`` is the version that the program then says it is.

    Raises :class:`PythonError`.
    """
    for wheel in chosen:
        _unpack(tree, wheel)
    _program(tree / HOME)
    stamp(tree / HOME / "controlplane" / "objects" / "version.py", release)
    for path in _unused_stdlib(tree / STDLIB):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for place in (HOME, STDLIB):
        compile_all(tree, place, toolbox)
    deduplicate(tree / HOME)


def version() -> str:
    """Of the package, as ``importlib.metadata`` is told."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _unpack(tree: Path, wheel: Wheel) -> None:
    for place, info, opened in wheels.files(wheel):
        if found := _LICENSE.search(place):
            target = tree / LICENSES / wheel.name / PurePosixPath(found[2]).name
        elif _UNUSED.search(place):
            continue
        else:
            target = tree / HOME / place
        data = opened.read(info)
        if _PROSE.search(place):
            data = _prose(data.decode()).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _prose(source: str) -> str:
    """Of a module of one class: its description and those of its fields, as text to be read."""
    start, end = source.find("\nclass "), source.find(_PROSE_END)
    if start < 0 or end < start:
        return _PROSE_START
    return _PROSE_START + source[start:end] + _PROSE_END + "\n"


def _program(home: Path) -> None:
    for path in _sources():
        target = home / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    about = home / f"pinnace-{version()}.dist-info"
    about.mkdir()
    text = f"Metadata-Version: 2.1\nName: pinnace\nVersion: {version()}\nLicense: Apache-2.0\n"
    (about / "METADATA").write_text(text)


def stamp(module: Path, release: str) -> None:
    """Raises :class:`PythonError` where the module is not as it is known here."""
    text, count = re.subn(
        r'(?m)^VERSION = "[^"]*"$', f'VERSION = "{release}"', module.read_text(), count=1
    )
    if not count:
        raise PythonError(f"{module.name} says no version")
    module.write_text(text)


def _sources() -> Iterator[Path]:
    for program in PROGRAMS:
        for path in sorted((ROOT / program).rglob("*")):
            place = path.relative_to(ROOT).as_posix()
            if path.is_file() and not _UNUSED.search(place):
                yield path


def _unused_stdlib(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _UNUSED_STDLIB or path.name.startswith("config-"):
            yield path


def compile_all(tree: Path, place: str, toolbox: Toolbox) -> None:
    """
    Every source below a folder becomes a ``.pyc`` beside it, and goes.

    One process in a fixed order and with a fixed hash: the same sources, the same bytes.
    A file that Python refuses (there are some, for tests of other tools) stays as it is.
    """
    folder = tree / place
    for cached in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cached)
    flags = ["-q", "-b", "-j1", "-o2", "--invalidation-mode=unchecked-hash"]
    skip = ["-x", r"kubernetes/client/models/(?!__init__)"]
    script = f'exec python3 -m compileall {" ".join(flags)} -s /mnt/tree -p / -x "$1" /mnt/tree'
    toolbox.run(
        ["sh", "-c", f"{script} >/dev/null || true", "sh", skip[1]],
        binds={f"/mnt/tree/{place}": folder},
        env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    compiled = [path for path in folder.rglob("*.py") if path.with_suffix(".pyc").exists()]
    if not compiled:
        raise PythonError(f"nothing below {place} could be compiled")
    for path in compiled:
        path.unlink()


def deduplicate(folder: Path) -> None:
    """A wheel cannot hold links: what it holds twice in a folder becomes one."""
    first: dict[tuple[Path, bytes], str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 1 << 20:
            original = first.setdefault((path.parent, path.read_bytes()), path.name)
            if original != path.name:
                path.unlink()
                path.symlink_to(original)


def command(tree: Path, say: Callable[[str], None]) -> None:
    """``/usr/bin/pinnace``, and ``python3``."""
    program = tree / "usr/bin/pinnace"
    program.write_text(f'#!/bin/sh\nexec /usr/bin/python{PYTHON} -sP -m node "$@"\n')
    program.chmod(0o755)
    link = tree / "usr/bin/python3"
    if not link.is_symlink():
        link.symlink_to(f"python{PYTHON}")
    say(f"program: {sum(1 for _ in _sources())} files of Pinnace {version()}")
