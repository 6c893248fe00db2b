"""A package installs itself on this Debian, and what it installed starts."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from node.update import packages
from tests.fakes.bundles import V1, V2
from tests.fakes.packages import PackageMachine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python of Debian's"),
]


@pytest.fixture
def architecture() -> str:
    told = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


def _install(package: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    """As the documentation says: the script out of the package, run by Debian's Python."""
    script = home.with_name("install.py")
    with tarfile.open(package, "r:") as archive:
        content = archive.extractfile("install.py")
        assert content is not None
        script.write_bytes(content.read())
    command = ["/usr/bin/python3", str(script), str(package), "--home", str(home), "--no-service"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_package_installs_itself_and_starts(tmp_path: Path, architecture: str) -> None:
    machine = PackageMachine(tmp_path)
    home, run = tmp_path / "new", tmp_path / "run"
    told = _install(machine.bundle(V1, board=f"package-{architecture}"), home)
    assert told.returncode == 0, told.stderr
    assert f"Pinnace {V1} is installed" in told.stdout
    started = subprocess.run(
        [home / "start", "server"],
        env={"PATH": "/usr/bin:/bin", "RUNTIME_DIRECTORY": str(run)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout == f"['server'] {V1}\n"
    found = packages.of_machine(home, run)
    assert found is not None
    assert (found.board, found.slot, found.trial) == (f"package-{architecture}", "a", False)
    assert (run / "slot").read_text() == "a\n"


def test_the_command_works_through_a_link_from_elsewhere(tmp_path: Path) -> None:
    machine = PackageMachine(tmp_path)
    command = tmp_path / "pinnace"
    command.symlink_to(machine.home / "current" / "bin" / "pinnace")
    told = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"['version'] {V1}\n"


def test_a_package_of_another_architecture_is_not_installed(
    tmp_path: Path, architecture: str
) -> None:
    other = "arm64" if architecture != "arm64" else "amd64"
    machine = PackageMachine(tmp_path)
    told = _install(machine.bundle(V1, board=f"package-{other}"), tmp_path / "new")
    assert told.returncode == 1
    assert f"this package is for {other}" in told.stderr
    assert not (tmp_path / "new" / "current").exists()


def test_an_installation_is_not_overwritten(tmp_path: Path, architecture: str) -> None:
    machine = PackageMachine(tmp_path)
    package = machine.bundle(V2, board=f"package-{architecture}")
    told = _install(package, machine.home)
    assert told.returncode == 1
    assert "`pinnace update`" in told.stderr


def test_the_starter_never_tries_a_slot_that_is_bad_or_empty(tmp_path: Path) -> None:
    machine = PackageMachine(tmp_path)
    (machine.home / "try").write_text("b\n")
    assert V1 in machine.started()
    assert not (machine.home / "try").exists()
    shutil.copytree(machine.home / "a", machine.home / "b", symlinks=True)
    (machine.home / "b" / "bad").touch()
    (machine.home / "try").write_text("b\n")
    assert V1 in machine.started()
    assert (machine.run / "slot").read_text() == "a\n"
    assert not (machine.run / "trial").exists()


def test_a_slot_brings_its_packages_for_the_python_that_is_there(tmp_path: Path) -> None:
    machine = PackageMachine(tmp_path)
    for python in ("3.11", "3.13"):
        site = machine.home / "a" / "lib" / f"python{python}" / "site-packages"
        assert f"PYTHON = '{python}'" in (site / "two.py").read_text()
        assert (site / "one.py").stat().st_nlink == 2
    code = "import one, sys; print(one.VERSION, sys.prefix)"
    python3 = machine.home / "a" / "bin" / "python3"
    told = subprocess.run([python3, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [V1, str(machine.home / "a")]
    assert sys.prefix != str(machine.home / "a")
