"""
``pinnace image build``: an image from the sources, where they are.

What builds is not a part of the installed program: it is started as one of its own.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from node.settings import UsageError

SOURCES = Path(__file__).parent.parent.parent / "image-build"


def main(
    arguments: Sequence[str],
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    sources: Path = SOURCES,
) -> int:
    """The exit code of the build. Raises :class:`node.settings.UsageError` without sources."""
    if not (sources / "appliance/run.py").exists():
        raise UsageError("images are built in a checkout of Pinnace: there, run `make image`")
    command = [sys.executable, "-m", "appliance.run", *arguments]
    return subprocess.run(command, cwd=sources, check=False).returncode
