"""Slots of an image are true to the contract with either boot loader, wherever the power is cut."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.slots import CASES, Case
from tests.host.update.image_machine import ImageMachine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("mksquashfs"), reason="needs mksquashfs"),
]


@pytest.fixture(params=["x86-64", "rpi-arm64"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageMachine]:
    made = ImageMachine(tmp_path, request.param)
    with made.partitions():
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_slots_of_an_image(case: Case, machine: ImageMachine) -> None:
    await case(machine)
