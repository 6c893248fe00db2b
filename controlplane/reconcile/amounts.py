"""
Amounts of pods as people give them: a number, or a percentage of what there should be.

Source: the API convention of IntOrString ("int-or-string" fields such as maxUnavailable).
"""

import math
from typing import Any


def scaled(value: Any, total: int, *, up: bool) -> int:
    """An IntOrString against a total; percentages round as told."""
    if isinstance(value, int):
        return value
    percent = int(str(value).rstrip("%")) * total / 100
    return math.ceil(percent) if up else math.floor(percent)
