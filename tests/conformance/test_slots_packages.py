"""Slots of a plain Debian are true to the contract, wherever the power is cut."""

from pathlib import Path

import pytest

from tests.conformance.slots import CASES, Case
from tests.fakes.packages import PackageMachine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_slots_in_packages(case: Case, tmp_path: Path) -> None:
    await case(PackageMachine(tmp_path))
