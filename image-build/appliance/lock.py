"""
Which Debian packages an image is made of: name, version and hash of each, in a file.

``apt`` itself resolves them, in a private root whose architecture and suite are the image's and
whose mirrors are those of this machine's own configuration. A lock names no host: where a
package lies is told as an archive (``debian``, ``security``) and a path in its pool.
Usage: ``python -m appliance.lock`` in ``image-build``, or ``make image-lock``.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from appliance.boards import ABSENT, BOARDS, TOOL_DATA, TOOLS

SUITE = "trixie"
LOCKS = Path(__file__).parent.parent / "locks"
APT = Path("/etc/apt")
HOSTS = ("amd64", "arm64")  # architectures of machines that images can be made on
_RELEASES = ("bookworm", "trixie")  # of which this machine may be
_FIELDS = ("name", "version", "architecture", "sha256", "size", "archive", "path")
_HEADER = "# Debian packages, locked: " + " ".join(_FIELDS) + ". `make image-lock` renews.\n"


class LockError(Exception):
    """Something that the user can mend; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One ``.deb`` of a lock."""

    name: str
    version: str
    architecture: str  # "all" as well
    sha256: str
    size: int  # bytes
    archive: str  # debian | security
    path: str  # in the archive: pool/main/b/bash/bash_5.2.37-2_amd64.deb

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where this machine gets an archive of Debian from."""

    archive: str
    address: str
    keys: str  # Signed-By, "" where the machine trusts its keyring as a whole


# The file


def read(path: Path) -> tuple[Package, ...]:
    """Raises :class:`LockError` where a line is not one of a lock."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise LockError(f"{path} is missing: make it with `make image-lock`") from None
    return tuple(_package(line, path) for line in lines if line and not line.startswith("#"))


def _package(line: str, path: Path) -> Package:
    values = line.split(" ")
    if len(values) != len(_FIELDS):
        raise LockError(f"{path}: not a line of a lock: {line!r}")
    name, version, architecture, sha256, size, archive, place = values
    sound = re.fullmatch(r"[0-9a-f]{64}", sha256) and size.isdigit() and archive in _ARCHIVES
    if not sound or ".." in place or not place.startswith("pool/"):
        raise LockError(f"{path}: not a line of a lock: {line!r}")
    return Package(
        name=name,
        version=version,
        architecture=architecture,
        sha256=sha256,
        size=int(size),
        archive=archive,
        path=place,
    )


def text(packages: Iterable[Package]) -> str:
    lines = (" ".join(map(str, astuple(package))) for package in sorted(packages))
    return _HEADER + "".join(f"{line}\n" for line in lines)


def for_board(name: str) -> tuple[Package, ...]:
    return read(LOCKS / f"{name}.lock")


def for_tools(architecture: str) -> tuple[Package, ...]:
    """Those of the toolbox of a machine of this architecture (amd64, arm64)."""
    return read(LOCKS / f"tools-{architecture}.lock")


# The machine's mirrors

_ARCHIVES = {"debian": ("", "-updates"), "security": ("-security",)}
_SECURITY_POOL = "pool/updates/"


def mirrors(folder: Path = APT) -> list[Mirror]:
    """
    Those of this machine for Debian itself, whatever release it is of.

    Raises :class:`LockError` where there is none.
    """
    found: dict[str, Mirror] = {}
    lists = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    for path in filter(Path.exists, lists):
        for mirror in _one_line(path.read_text()):
            found.setdefault(mirror.archive, mirror)
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        for mirror in _deb822(path.read_text()):
            found.setdefault(mirror.archive, mirror)
    if "debian" not in found:
        raise LockError(f"{folder} names no mirror of Debian: add one to sources.list.d")
    return [found[name] for name in _ARCHIVES if name in found]


def _one_line(content: str) -> Iterator[Mirror]:
    pattern = r"^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s"
    for options, address, suite in re.findall(pattern, content, re.MULTILINE):
        if archive := _archive(suite):
            keys = re.search(r"signed-by=(\S+)", options)
            yield Mirror(archive=archive, address=address, keys=keys[1] if keys else "")


def _deb822(content: str) -> Iterator[Mirror]:
    for stanza in re.split(r"\n\s*\n", content):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        if fields.get("Enabled", "yes") == "no" or "deb" not in fields.get("Types", "").split():
            continue
        for suite in fields.get("Suites", "").split():
            if archive := _archive(suite):
                address = fields["URIs"].split()[0]
                yield Mirror(archive=archive, address=address, keys=fields.get("Signed-By", ""))


def _archive(suite: str) -> str:
    release, dash, pocket = suite.partition("-")
    if release not in _RELEASES:
        return ""
    return next((name for name, pockets in _ARCHIVES.items() if dash + pocket in pockets), "")


# Resolving


class AptRoot:
    """A private root of apt: its lists, nothing installed but what is called absent."""

    def __init__(self, folder: Path, architecture: str, components: Sequence[str]) -> None:
        self._folder = folder
        self._architecture = architecture
        self._components = " ".join(components)
        self._mirrors = mirrors()
        for name in ("etc/preferences.d", "etc/sources.list.d", "state/lists/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "cache/archives/partial").mkdir(parents=True)
        (folder / "status").write_text("".join(map(self._installed, sorted(ABSENT))))

    def _installed(self, name: str) -> str:
        lines = (
            f"Package: {name}",
            "Status: install ok installed",
            "Maintainer: nobody",
            f"Architecture: {self._architecture}",
            "Multi-Arch: foreign",
            "Version: 99:1",
            f"Provides: {', '.join(_PROVIDED.get(name, ()))}",
            "Description: not there",
        )
        return "\n".join(line for line in lines if not line.endswith(": ")) + "\n\n"

    def update(self) -> None:
        """Fetch the lists. Raises :class:`LockError` where the main archive is not reachable."""
        (main, *rest) = [
            (mirror, f"{SUITE}{pocket}")
            for mirror in self._mirrors
            for pocket in _ARCHIVES[mirror.archive]
        ]
        chosen = [main]
        self._write(chosen)
        self._run("apt-get", "update")
        for source in rest:  # what this machine cannot reach is left out
            self._write([*chosen, source])
            try:
                self._run("apt-get", "update")
            except LockError:
                continue
            chosen.append(source)
        self._write(chosen)
        self._run("apt-get", "update")

    def _write(self, sources: Iterable[tuple[Mirror, str]]) -> None:
        lines = []
        for mirror, suite in sources:
            keys = f"signed-by={mirror.keys} " if mirror.keys else ""
            options = f"[{keys}arch={','.join({self._architecture, 'amd64'})}]"
            lines.append(f"deb {options} {mirror.address} {suite} {self._components}\n")
        (self._folder / "etc/sources.list").write_text("".join(lines))

    def resolve(self, names: Sequence[str]) -> list[str]:
        """``name:architecture=version`` of these and of all that they depend on."""
        output = self._run("apt-get", "install", "--simulate", *names)
        pattern = r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)"
        found = re.findall(pattern, output, re.MULTILINE)
        return [f"{name.partition(':')[0]}:{arch}={version}" for name, version, arch in found]

    def show(self, chosen: Iterable[str]) -> list[Package]:
        output = self._run("apt-cache", "show", "--no-all-versions", *chosen)
        return [_shown(stanza) for stanza in output.strip().split("\n\n")]

    def newest(self, name: str) -> str:
        output = self._run("apt-cache", "policy", name)
        version = re.search(r"Candidate: (\S+)", output)
        if version is None:
            raise LockError(f"Debian has no package {name}")
        return f"{name}={version[1]}"

    def _run(self, program: str, *arguments: str) -> str:
        architectures = {self._architecture, "amd64"}
        options = {
            "APT::Architecture": self._architecture,
            "APT::Install-Recommends": "false",
            "APT::Get::Assume-Yes": "true",
            "APT::Update::Error-Mode": "any",
            "Dir::Cache": str(self._folder / "cache"),
            "Dir::State": str(self._folder / "state"),
            "Dir::State::status": str(self._folder / "status"),
            "Dir::Etc::sourcelist": str(self._folder / "etc/sources.list"),
            "Dir::Etc::sourceparts": str(self._folder / "etc/sources.list.d"),
            "Dir::Etc::preferences": str(self._folder / "etc/preferences"),
            "Dir::Etc::preferencesparts": str(self._folder / "etc/preferences.d"),
            "Acquire::Languages": "none",
        }
        flags = [f"-o{key}={value}" for key, value in options.items()]
        flags += [f"-oAPT::Architectures::={name}" for name in sorted(architectures)]
        done = subprocess.run(
            [program, "-q", *flags, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            raise LockError(f"{program} {arguments[0]}: {' '.join(said) or done.stderr.strip()}")
        return done.stdout


_PROVIDED = {
    "initramfs-tools": ("linux-initramfs-tool",),
    "polkitd": ("policykit-1",),
}


def _shown(stanza: str) -> Package:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        architecture=fields["Architecture"],
        sha256=fields["SHA256"],
        size=int(fields["Size"]),
        # What both have comes from the pool of Debian itself.
        archive="security" if fields["Filename"].startswith(_SECURITY_POOL) else "debian",
        path=fields["Filename"],
    )


def resolve(
    architecture: str, components: Sequence[str], names: Sequence[str], data: Sequence[str] = ()
) -> list[Package]:
    """All that these packages need, and ``data`` without what that needs."""
    with tempfile.TemporaryDirectory() as folder:
        root = AptRoot(Path(folder), architecture, components)
        root.update()
        chosen = [*root.resolve(names), *map(root.newest, data)]
        return sorted(root.show(chosen))


def renew(folder: Path = LOCKS) -> Iterator[Path]:
    """Write all locks anew; yields each."""
    for board in BOARDS.values():
        found = resolve(board.architecture, board.components, [*board.packages, board.kernel])
        yield _write(folder / f"{board.name}.lock", found)
    for host in HOSTS:
        yield _write(folder / f"tools-{host}.lock", resolve(host, ("main",), TOOLS, TOOL_DATA))


def _write(path: Path, packages: Sequence[Package]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(packages))
    return path


if __name__ == "__main__":
    try:
        for written in renew():
            sys.stdout.write(f"{written}\n")
    except LockError as err:
        sys.exit(f"lock.py: {err}")
