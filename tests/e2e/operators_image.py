"""The image of the operators and their chart, made once for all tests that want them."""

import shutil
import sys

import pytest

from tests.e2e.node import ROOT, Node, run

MADE = ROOT / ".cache" / "operators"


def with_operators(node: Node) -> None:
    """The image is given to the node; the packed chart is ``chart.tgz`` of its folder."""
    program = str(ROOT / "image-build" / "operators_image.py")
    done = run(sys.executable, program, str(MADE), check=False)
    if "operators_image.py: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    images = node.data / "agent" / "images"
    images.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MADE / "pinnace-operators.tar", images / "pinnace-operators.tar")
    [packed] = MADE.glob("*.tgz")
    shutil.copyfile(packed, node.folder / "chart.tgz")
