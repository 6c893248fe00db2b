"""
What this machine was booted from: the release file of the image, and the slot.

A machine that was set up otherwise (a plain Debian) has no release file: ``read`` gives None there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

RELEASE = Path("/usr/share/pinnace/release.json")
SLOT = Path("/run/pinnace-boot/slot")  # written before the root is switched: "a" or "b"
TRIAL = Path("/run/pinnace-boot/trial")  # there while this boot is the one try of its slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    version: str  # v1.36.3+pinnace1
    board: str  # x86-64 | rpi-arm64
    epoch: int  # when its inputs were fixed, seconds since 1970: no clock may be before it


def read(path: Path = RELEASE) -> Release | None:
    """Raises ValueError where the file is there and no release."""
    try:
        found = json.loads(path.read_text())
        return Release(
            version=str(found["version"]), board=str(found["board"]), epoch=int(found["epoch"])
        )
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as err:
        raise ValueError(f"{path} is no release file: {err}") from err


def slot(path: Path = SLOT) -> str:
    """The slot that runs, "a" or "b"; "" where the machine has none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
