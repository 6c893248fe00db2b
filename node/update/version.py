"""
Versions, and which of two is the newer: ``v1.36.3+pinnace1``, ``v1.36.4-rc.1+pinnace2``.

Semantic versions (semver.org 2.0.0), but what follows the plus counts here, as it does for
K3s's users: ``+pinnace2`` is newer than ``+pinnace1`` of the same Kubernetes.
"""

import re
from dataclasses import dataclass
from functools import total_ordering

_FORM = re.compile(
    r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,64}))?(?:\+pinnace(\d{1,9}))?"
)


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    numbers: tuple[int, int, int]
    candidate: tuple[str, ...]  # ("rc", "1"); () for a release
    build: int  # of +pinnace7: 7

    def __str__(self) -> str:
        text = "v" + ".".join(map(str, self.numbers))
        text += f"-{'.'.join(self.candidate)}" if self.candidate else ""
        return text + f"+pinnace{self.build}"

    def __lt__(self, other: "Version") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        # A release is newer than its candidates; numbers are older than words (semver 11.4).
        parts = tuple((1, 0, p) if not p.isdigit() else (0, int(p), "") for p in self.candidate)
        return (self.numbers, not self.candidate, parts, self.build)


def parse(text: str) -> Version:
    """Raises ValueError, which says what a version looks like."""
    if not (found := _FORM.fullmatch(text)):
        raise ValueError(f"{text!r} is no version such as v1.36.3+pinnace1")
    major, minor, patch, candidate, build = found.groups()
    return Version(
        (int(major), int(minor), int(patch)),
        tuple(candidate.split(".")) if candidate else (),
        int(build or 0),
    )
