"""
Builds upstream's etcd, API server, controllers and scheduler from their Go modules.

``python -m tests.upstream.build``. The published module of Kubernetes names its staging modules by
folders of its own repository, which a module does not hold; the same modules are published
under versions of their own, so that a ``replace`` for each is all that is missing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KUBERNETES = "v1.36.3"
STAGING = KUBERNETES.replace("v1.", "v0.", 1)
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "upstream" / KUBERNETES


def programs() -> dict[str, Path]:
    """Those that were built, by name."""
    return {name: FOLDER / name for name in PROGRAMS if (FOLDER / name).is_file()}


def build(folder: Path, names: Sequence[str] = tuple(PROGRAMS)) -> None:
    """Into ``folder``. Raises subprocess.CalledProcessError where Go cannot."""
    module = folder / "module"
    module.mkdir(parents=True, exist_ok=True)
    upstream = _download(module)
    (module / "go.mod").write_text(manifest(upstream.read_text()))
    for name in names:
        if not (folder / name).is_file():
            sys.stderr.write(f"== building {name}\n")
            _go(
                module,
                "build",
                "-ldflags",
                _ldflags(),
                "-o",
                f"{folder}/{name}.new",
                PROGRAMS[name],
            )
            (folder / f"{name}.new").rename(folder / name)


def manifest(upstream: str) -> str:
    """A go.mod for programs of Kubernetes, from Kubernetes' own."""
    body = re.sub(r"^module .*$", "module upstream.invalid/build", upstream, flags=re.MULTILINE)
    body = re.sub(r"=> \./staging/src/(\S+)", rf"=> \1 {STAGING}", body)
    body = re.sub(r"(\sk8s\.io/\S+) v0\.0\.0$", rf"\1 {STAGING}", body, flags=re.MULTILINE)
    return f"{body}\nrequire k8s.io/kubernetes {KUBERNETES}\n"


def _download(module: Path) -> Path:
    answer = _go(
        module, "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}", capture=True
    )
    return Path(json.loads(answer)["GoMod"])


def _ldflags() -> str:
    major, minor = KUBERNETES.lstrip("v").split(".")[:2]
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    named = [f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items()]
    return " ".join(["-s -w", *named])


def _go(module: Path, *argv: str, capture: bool = False) -> str:
    """Nice, one package at a time: it shares the machine with whoever works on it."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod -buildvcs=false -p=1",
    }
    done = subprocess.run(
        ["nice", "-n", "10", "go", *argv],
        cwd=module,
        env=environment,
        check=True,
        stdout=subprocess.PIPE if capture else None,
        text=True,
    )
    return done.stdout or ""


if __name__ == "__main__":
    if not shutil.which("go"):
        sys.exit("upstream's programs are built with Go, which is not there")
    build(FOLDER, sys.argv[1:] or tuple(PROGRAMS))
