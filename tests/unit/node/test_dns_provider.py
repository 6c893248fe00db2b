"""Who answers cluster DNS is said by two flags."""

from pathlib import Path

import pytest

from node import settings
from node.config import from_settings
from node.settings import UsageError


def answers(tmp_path: Path, *flags: str) -> bool:
    given = [f"--data-dir={tmp_path}", "--node-ip=192.0.2.7", "--node-name=n1", *flags]
    return from_settings(settings.read("server", given, {})).answers_dns


def test_the_agent_answers_unless_it_was_told_not_to(tmp_path: Path) -> None:
    assert answers(tmp_path)
    assert answers(tmp_path, "--disable=traefik")
    assert not answers(tmp_path, "--cluster-dns-provider=coredns")
    # As on K3s: the address is for a server of the user's own.
    assert not answers(tmp_path, "--disable=coredns")


def test_another_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes pinnace or coredns, not 'bind'"):
        answers(tmp_path, "--cluster-dns-provider=bind")
