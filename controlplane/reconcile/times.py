"""
Reading times that somebody else wrote: whoever depends on one must survive a bad one.

What writes and strictly parses them is in :mod:`controlplane.objects.meta`.
"""

from datetime import datetime
from typing import Any

from controlplane.objects.meta import parse_time


def parse(text: Any) -> datetime | None:
    """None for an absent or a malformed time."""
    if not text:
        return None
    try:
        return parse_time(text)
    except (TypeError, ValueError):
        return None
