"""kubectl unpacked from Debian's package, through the machine's own apt configuration."""

import os
from pathlib import Path

import pytest

from node import kubectl

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def test_a_machine_without_kubectl_gets_debians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubectl, "CACHE", tmp_path / "cache")
    said: list[str] = []
    program = kubectl.find(os.devnull, said.append)
    assert Path(program).is_relative_to(tmp_path)
    assert (kubectl.version(program) or (0, 0)) >= kubectl.OLDEST
    assert kubectl.find(os.devnull, said.append) == program  # from the cache now
    assert len(said) == 1
