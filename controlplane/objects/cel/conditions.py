"""Conditions of a webhook (``matchConditions``): compiled once, all must be true. KEP-3716."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from controlplane.objects.cel.evaluate import CompileError, Program, compile_expression
from controlplane.objects.cel.syntax import CelSyntaxError
from controlplane.objects.cel.values import CelError
from controlplane.objects.errors import FieldError, duplicate, invalid_value, required
from controlplane.objects.validation import names

VARIABLES = frozenset({"object", "oldObject", "request", "authorizer"})
_MOST = 64


class ConditionError(Exception):
    """A condition has no value; the text is for whoever made the request."""


@lru_cache(maxsize=256)
def program(text: str) -> Program:
    return compile_expression(text, VARIABLES)


def all_true(conditions: Iterable[Mapping[str, Any]], variables: Mapping[str, Any]) -> bool:
    """One that is false decides, whatever errors there are beside it."""
    failures = []
    for condition in conditions:
        try:
            value = program(condition["expression"]).evaluate(variables)
        except CelError as err:
            failures.append(f"expression '{condition['expression']}' resulted in error: {err}")
            continue
        if value is False:
            return False
        if value is not True:
            failures.append(f"expression '{condition['expression']}' must evaluate to bool")
    if failures:
        raise ConditionError(" ".join(failures))
    return True


def condition_errors(conditions: list[Mapping[str, Any]], path: str) -> Iterator[FieldError]:
    """What is wrong with conditions that somebody wants to store."""
    if len(conditions) > _MOST:
        text = f"must have at most {_MOST} items"
        yield FieldError("FieldValueTooMany", path, f"Too many: {len(conditions)}: {text}")
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where = f"{path}[{index}]"
        name, expression = condition.get("name") or "", condition.get("expression") or ""
        if not name:
            yield required(f"{where}.name")
        for problem in names.qualified_name(name) if name else ():
            yield invalid_value(f"{where}.name", name, problem)
        if name in seen:
            yield duplicate(f"{where}.name", name)
        seen.add(name)
        if not expression.strip():
            yield required(f"{where}.expression")
            continue
        try:
            program(expression)
        except (CelSyntaxError, CompileError) as err:
            text = f"compilation failed: {err}"
            yield invalid_value(f"{where}.expression", expression, text)
