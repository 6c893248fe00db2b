"""
The first installation of Pinnace on a plain Debian 12 or 13, from the package itself.

Usage: ``tar -xOf PACKAGE install.py >install.py``, then ``python3 install.py PACKAGE``. Later
versions come by ``pinnace update`` or an UpgradePlan. Nothing here is verified: who has this file
has it from where the package came from, so compare the package's SHA-256 first, or verify
its signature with openssl as the documentation says.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HOME = pathlib.Path("/opt/pinnace")
UNIT = pathlib.Path("/etc/systemd/system/pinnace.service")
COMMAND = pathlib.Path("/usr/local/bin/pinnace")
# Beside Python: the runtime, its network, and what mounts and makes volumes.
DEBIAN = (
    "containerd runc containernetworking-plugins nftables conntrack iproute2 busybox-static "
    "catatonit ca-certificates e2fsprogs mount"
).split()
ARCHITECTURES = {"amd64", "arm64", "armhf"}


def missing_packages():
    """Of Debian, those that Pinnace needs and that are not installed."""
    form = "${db:Status-Status} ${Package}\n"
    command = ["dpkg-query", "-W", "-f", form, *DEBIAN]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    there = {line.split()[1] for line in told.stdout.splitlines() if line.startswith("installed ")}
    return [name for name in DEBIAN if name not in there]


def architecture():
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def problem(home):
    """What keeps the installation from being made, in one line; "": nothing."""
    if os.geteuid():
        return "must be run as root"
    if (home / "current").exists():
        return f"{home} is installed already: `pinnace update` brings another version"
    if missing := missing_packages():
        return f"first run: apt-get install {' '.join(missing)}"
    return ""


def unpack(package, home):
    """Into slot a, by the code that later updates run too: it comes in the program's own wheel."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(package, "r:") as archive:
        for member in archive:
            if member.name.startswith("wheels/pinnace-") and member.isfile():
                wheel = pathlib.Path(scratch, pathlib.PurePosixPath(member.name).name)
                wheel.write_bytes(archive.extractfile(member).read())
                sys.path.insert(0, str(wheel))
        from node.update import unpack as unpacking

        staged = home / ".a.new"
        shutil.rmtree(staged, ignore_errors=True)
        with package.open("rb") as file:
            about = unpacking.unpack(file, staged, lambda percent: None)
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if about.board != f"package-{architecture()}" or here not in about.pythons:
            shutil.rmtree(staged)
            wanted = f"{about.board.removeprefix('package-')}, Python {', '.join(about.pythons)}"
            raise SystemExit(
                f"install: this package is for {wanted}; here: {architecture()}, {here}"
            )
        unpacking.compile_all(staged)
    return about, staged


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("--home", type=pathlib.Path, default=HOME)
    parser.add_argument("--no-service", action="store_true", help="files only, no systemd unit")
    told = parser.parse_args()
    if why := problem(told.home):
        raise SystemExit(f"install: {why}")
    told.home.mkdir(parents=True, exist_ok=True)
    about, staged = unpack(told.package, told.home)
    shutil.copy(staged / "start", told.home / "start")
    os.sync()
    staged.rename(told.home / "a")
    (told.home / "current").symlink_to("a")
    if not told.no_service:
        shutil.copy(told.home / "a" / "pinnace.service", UNIT)
        COMMAND.unlink(missing_ok=True)
        COMMAND.symlink_to(told.home / "current" / "bin" / "pinnace")
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        subprocess.run(["systemctl", "enable", "--now", "pinnace.service"], check=True)
    os.sync()
    print(f"Pinnace {about.version} is installed in {told.home}")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
