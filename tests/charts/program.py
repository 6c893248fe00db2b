"""
The ``helm`` program itself, to compare with: built once, of the version of our library.

It is compiled from its published source where Go is, and kept in ``.cache``; else one
that is on PATH serves, if it is of the same major version. Where there is neither,
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
MODULE = f"helm.sh/helm/v4/cmd/helm@{VERSION}"
FLAGS = f"-s -w -X helm.sh/helm/v4/internal/version.version={VERSION}"
BUILD_SECONDS = 900.0


class NoHelm(Exception):
    """There is no ``helm`` to compare with; the text is the reason."""


@functools.cache
def find() -> str:
    """The path of the program. Raises :class:`NoHelm`."""
    built = CACHE / f"helm-{VERSION}"
    if not built.exists():
        go = shutil.which("go")
        if go is None:
            return _installed()
        _build(go, built)
    return str(built)


def run(
    *arguments: str, kubeconfig: Path | None = None, driver: str = "secret"
) -> "subprocess.CompletedProcess[str]":
    """What a person would type; ``enter`` of a network namespace is the caller's."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment["HELM_DRIVER"] = driver
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    return subprocess.run(
        [find(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )


def _build(go: str, built: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    # Several runs of the tests at once build it once.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built.exists():
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
        (CACHE / "helm").rename(built)


def _installed() -> str:
    program = shutil.which("helm")
    if program is None:
        raise NoHelm("neither Go, to build helm, nor a helm on PATH")
    done = subprocess.run([program, "version", "--short"], capture_output=True, text=True)
    major = VERSION.partition(".")[0]
    if not done.stdout.startswith(major):
        raise NoHelm(f"{program} is {done.stdout.strip()}, not {major}")
    return program
