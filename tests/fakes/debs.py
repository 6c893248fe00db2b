"""Debian packages made up for tests, with dpkg-deb's own packer."""

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from appliance.lock import Package


def make_deb(
    folder: Path, name: str, files: Mapping[str, str], *, version: str = "1.0-1"
) -> tuple[Package, Path]:
    """A package that holds these files, by path without a slash in front; "-> x" makes a link."""
    tree = folder / f"{name}.tree"
    for place, text in files.items():
        path = tree / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: made up\n of two lines\n"
    )
    path = folder / f"{name}_{version}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    data = path.read_bytes()
    package = Package(
        name=name,
        version=version,
        architecture="all",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        archive="debian",
        path=f"pool/main/{name[0]}/{name}/{path.name}",
    )
    return package, path
