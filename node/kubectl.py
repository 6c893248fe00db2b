"""
A kubectl that speaks to this API server: version 1.32 or newer.

One found on PATH is used; else Debian 13's package is unpacked into a cache,
from the mirror that the machine's own apt configuration names. Debian 12's own
kubectl is too old: it knows neither server-side field validation nor v5 streams.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from node.settings import UsageError

OLDEST = (1, 32)
SUITE = "trixie"
CACHE = Path("/var/cache/pinnace/kubectl")


class NoKubectl(UsageError):
    """None was found and none could be had; the text is one line that says what to do."""


def version(program: str) -> tuple[int, int] | None:
    """Its minor version; None where it does not say."""
    found = subprocess.run(
        [program, "version", "--client", "--output=json"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    try:
        said = json.loads(found.stdout)["clientVersion"]
        return int(said["major"]), int(said["minor"].rstrip("+"))
    except (ValueError, KeyError):
        return None


def on_path(search: str) -> Iterable[str]:
    for folder in search.split(os.pathsep):
        program = shutil.which("kubectl", path=folder)
        if program:
            yield program


def find(search: str, say: Callable[[str], None]) -> str:
    """The program's path; ``search`` is PATH. Raises :class:`NoKubectl`."""
    cached = CACHE / "usr" / "bin" / "kubectl"
    for program in [*on_path(search), *([str(cached)] if cached.exists() else [])]:
        if (version(program) or (0, 0)) >= OLDEST:
            return program
    if shutil.which("apt-get") is None:  # an appliance's image has neither
        raise NoKubectl(
            "there is no kubectl here: use it on another computer, with what "
            "`pinnace kubeconfig` prints"
        )
    say(f"no kubectl {OLDEST[0]}.{OLDEST[1]} or newer on PATH: unpacking Debian's into {CACHE}")
    try:
        _unpack(CACHE)
    except (OSError, subprocess.SubprocessError) as err:
        why = str(getattr(err, "stderr", "") or err).strip().splitlines()[-1]
        raise NoKubectl(f"cannot get kubectl from Debian {SUITE}: {why}; install 1.32+") from err
    return str(cached)


def _mirror() -> str:
    """The address of the Debian archive in this machine's apt configuration."""
    lines = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)").splitlines()
    archives = (line.split()[0] for line in lines if line.endswith(" main"))
    found = next((uri for uri in archives if uri.rstrip("/").endswith("/debian")), None)
    if found is None:
        raise OSError("apt's sources name no Debian archive")
    return found


def _unpack(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        sources = folder / "sources.list"
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources.write_text(f"deb [signed-by={keyring}] {_mirror()} {SUITE} main\n")
        options = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            # What is installed here must not decide which version is downloaded.
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "APT::Sandbox::User": "root",
        }
        flags = [f"-o{key}={value}" for key, value in options.items()]
        _run("apt-get", "-q", *flags, "update")
        _run("apt-get", "-q", *flags, "download", "kubectl", cwd=folder)
        (package,) = folder.glob("kubectl_*.deb")
        target.mkdir(parents=True, exist_ok=True)
        _run("dpkg-deb", "--extract", str(package), str(target))


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, check=True, text=True, cwd=cwd, timeout=300)
    return done.stdout


def become(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    kubeconfig: Path,
    say: Callable[[str], None],
) -> None:
    """Replace this process by kubectl, with the admin kubeconfig unless another is named."""
    program = find(environment.get("PATH", os.defpath), say)
    chosen = {"KUBECONFIG": str(kubeconfig)} | dict(environment)
    os.execve(program, ["kubectl", *arguments], chosen)  # noqa: S606 - no shell is wanted
