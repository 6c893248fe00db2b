"""What compiled expressions are made of, and the budget that each evaluation has."""

from collections.abc import Callable
from typing import Any

from controlplane.objects.cel.values import CelError, no_overload

Variables = dict[str, Any]
Step = Callable[[Variables], Any]
STEPS = 1_000_000  # of one evaluation: about a second
BUDGET = "@budget"  # no name of a variable
_EXCEEDED = "operation cancelled: actual cost limit exceeded"


class BudgetError(CelError):
    """Nothing may take this error for an unknown value and go on."""


def spend(variables: Variables, steps: int = 1) -> None:
    budget = variables[BUDGET]
    budget[0] -= steps
    if budget[0] < 0:
        raise BudgetError(_EXCEEDED)


def truth(step: Step, variables: Variables) -> bool | CelError:
    """The value of a condition, or the error in its place."""
    try:
        value = step(variables)
    except BudgetError:
        raise
    except CelError as err:
        return err
    return value if isinstance(value, bool) else no_overload()
