"""
The ``helm`` program itself, to compare with: built once, of the version of our library.

:func:`build` compiles it from its published source where Go is, and keeps it in ``.cache``;
else one that is on PATH serves, if it is of the same major version. Where there is neither,
:func:`find` says why.
"""

import fcntl
import functools
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "helm"
VERSION = "v4.2.3"  # what the library says of itself, see test_chart_rendering.py
BUILT = CACHE / f"helm-{VERSION}"
MODULE = f"helm.sh/helm/v4/cmd/helm@{VERSION}"
FLAGS = f"-s -w -X helm.sh/helm/v4/internal/version.version={VERSION}"
BUILD_SECONDS = 900.0


class NoHelm(Exception):
    """There is no ``helm`` to compare with; the text is the reason."""


@functools.cache
def find() -> str:
    """The path of the program. Raises :class:`NoHelm`."""
    return str(BUILT) if BUILT.exists() else _installed()


def build() -> None:
    """Where it is not there and Go is; minutes, once. Raises :class:`NoHelm` where Go fails."""
    go = shutil.which("go")
    if not BUILT.exists() and go is not None:
        _build(go)


def _build(go: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    # Several runs of the tests at once build it once.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if BUILT.exists():
            return
        done = subprocess.run(
            [go, "install", "-trimpath", f"-ldflags={FLAGS}", MODULE],
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
            env={**os.environ, "GOBIN": str(CACHE), "GOFLAGS": "-mod=mod"},
        )
        if done.returncode:
            raise NoHelm(f"helm cannot be built: {done.stderr.strip()[-500:]}")
        (CACHE / "helm").rename(BUILT)


def _installed() -> str:
    program = shutil.which("helm")
    if program is None:
        raise NoHelm("no helm on PATH, and tests/unit/operators found no Go to build it with")
    done = subprocess.run([program, "version", "--short"], capture_output=True, text=True)
    major = VERSION.partition(".")[0]
    if not done.stdout.startswith(major):
        raise NoHelm(f"{program} is {done.stdout.strip()}, not {major}")
    return program
