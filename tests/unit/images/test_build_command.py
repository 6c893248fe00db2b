"""``pinnace image build``."""

from pathlib import Path

import pytest

from node.flash import build
from node.settings import UsageError


def nothing(_: str) -> None:
    pass


def test_without_the_sources_it_says_where_images_are_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in a checkout of Pinnace: there, run `make image`"):
        build.main(["x86-64"], nothing, nothing, sources=tmp_path)


def test_a_board_that_there_is_not_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert build.main(["amiga", "--epoch=0"], nothing, nothing) == 1
    said = capfd.readouterr().err
    assert said == "image: there is no board 'amiga': choose one of x86-64, rpi-arm64\n"
