"""What an image is made of is written down, and only that is taken."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from appliance import boards, lock
from appliance.lock import LockError, Package

PACKAGE = Package(
    name="bash",
    version="5.2.37-2+b10",
    architecture="amd64",
    sha256="ab" * 32,
    size=1500792,
    archive="debian",
    path="pool/main/b/bash/bash_5.2.37-2+b10_amd64.deb",
)


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    other = replace(PACKAGE, name="acl", archive="security")
    path = tmp_path / "x.lock"
    path.write_text(lock.text([PACKAGE, other]))
    assert lock.read(path) == (other, PACKAGE)
    assert PACKAGE.file_name == "bash_5.2.37-2+b10_amd64.deb"


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": "zz" * 32},
        {"sha256": "ab" * 16},
        {"size": "many"},
        {"archive": "elsewhere"},
        {"path": "pool/../../etc/passwd"},
        {"path": "http://example.org/pool/x.deb"},
        {"name": "two words"},
    ],
)
def test_a_line_that_is_none_of_a_lock_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    values = {**asdict(PACKAGE), **changed}
    path = tmp_path / "x.lock"
    path.write_text(" ".join(str(value) for value in values.values()) + "\n")
    with pytest.raises(LockError, match="not a line of a lock"):
        lock.read(path)


def test_a_lock_that_is_not_there_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="make image-lock"):
        lock.read(tmp_path / "x.lock")


def test_mirrors_are_those_of_the_machine_whatever_its_release(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("# deb http://no.example/debian bookworm main\n")
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/a.gpg\n\n"
        "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: trixie\n"
    )
    (tmp_path / "sources.list.d/other.list").write_text(
        "deb [signed-by=/keys/b.gpg arch=amd64] http://other.example/apt stable main\n"
    )
    assert [(m.archive, m.address, m.keys) for m in lock.mirrors(tmp_path)] == [
        ("debian", "http://mirror.example/debian", "/keys/a.gpg"),
        ("security", "http://mirror.example/security", ""),
    ]


def test_mirrors_of_one_line_are_understood(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb-src http://src.example/debian trixie main\n"
        "deb [signed-by=/keys/a.gpg] http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/security trixie-security main contrib\n"
    )
    assert [m.address for m in lock.mirrors(tmp_path)] == [
        "http://mirror.example/debian",
        "http://mirror.example/security",
    ]


def test_a_machine_without_a_mirror_of_debian_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="names no mirror of Debian"):
        lock.mirrors(tmp_path)


@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=list(boards.BOARDS))
def test_the_lock_of_each_board_has_what_the_board_asks_for(board: boards.Board) -> None:
    packages = lock.for_board(board.name)
    names = {package.name for package in packages}
    assert set(board.packages) | {board.kernel} <= names
    assert not names & boards.ABSENT
    assert {package.architecture for package in packages} <= {board.architecture, "all"}


@pytest.mark.parametrize("host", lock.HOSTS)
def test_the_lock_of_the_tools_has_every_tool(host: str) -> None:
    packages = lock.for_tools(host)
    names = {package.name for package in packages}
    assert set(boards.TOOLS) <= names
    assert "grub-efi-amd64-bin" in names


def test_locks_name_no_host() -> None:
    for path in lock.LOCKS.glob("*.lock"):
        assert "//" not in path.read_text(), path
