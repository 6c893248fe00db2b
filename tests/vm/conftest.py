"""What the tests of booted images share: the releases, built once."""

import sys
import time

import pytest

from tests.vm import qemu
from tests.vm.releases import Releases, make


@pytest.fixture(scope="session")
def releases() -> Releases:
    """Needs the machine's mirror, QEMU and a few minutes; ``make test-vm`` sets up the rest."""
    if lacking := qemu.missing():
        pytest.skip(f"not installed: {lacking}")
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {text}\n")

    return make(say)
