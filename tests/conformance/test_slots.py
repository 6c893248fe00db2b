"""The fake that stands in for slots in the tests of updates is true to their contract."""

from pathlib import Path

import pytest

from tests.conformance.slots import CASES, Case
from tests.fakes.slots import FakeMachine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_slots_in_folders(case: Case, tmp_path: Path) -> None:
    await case(FakeMachine(tmp_path))
