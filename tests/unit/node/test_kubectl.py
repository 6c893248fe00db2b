"""Which kubectl is used: the first on PATH that is new enough."""

import os
from pathlib import Path

import pytest

from node import kubectl


def program(folder: Path, text: str) -> Path:
    folder.mkdir()
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def says(minor: str) -> str:
    return f"""echo '{{"clientVersion": {{"major": "1", "minor": "{minor}"}}}}'"""


def test_an_old_one_and_a_broken_one_are_passed_over(tmp_path: Path) -> None:
    old = program(tmp_path / "old", says("20"))
    broken = program(tmp_path / "broken", "exit 1")
    new = program(tmp_path / "new", says("34+"))
    search = os.pathsep.join(str(p.parent) for p in (old, broken, new))
    assert kubectl.find(search, lambda _: None) == str(new)


@pytest.mark.parametrize(
    ("minor", "found"), [("32", (1, 32)), ("33+", (1, 33)), ("", None)], ids=["plain", "plus", "no"]
)
def test_the_version_is_what_the_program_says(
    minor: str, found: tuple[int, int] | None, tmp_path: Path
) -> None:
    assert kubectl.version(str(program(tmp_path / "p", says(minor)))) == found


def test_without_one_and_without_a_mirror_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "apt", "exit 1").rename(tmp_path / "apt" / "apt-get")
    monkeypatch.setenv("PATH", str(tmp_path / "apt"))
    monkeypatch.setattr(kubectl, "CACHE", tmp_path / "cache")
    said: list[str] = []
    with pytest.raises(kubectl.NoKubectl, match=r"install 1\.32"):
        kubectl.find(str(tmp_path / "nowhere"), said.append)
    assert "unpacking" in said[0]


def test_an_appliance_says_where_kubectl_is_to_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kubectl, "CACHE", tmp_path / "cache")
    with pytest.raises(kubectl.NoKubectl, match="on another computer"):
        kubectl.find(str(tmp_path), pytest.fail)
