"""What the look at the kernel makes of programs that fail."""

from pathlib import Path

import pytest

from node.host import probe


def test_a_machine_too_slow_to_answer_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe._rules(seconds=0.05) is None


def test_a_kernel_that_refuses_the_rules_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho 'Error: no such thing' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = probe._rules()
    assert said is not None
    assert "no such thing" in said
