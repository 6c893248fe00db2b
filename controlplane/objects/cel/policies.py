"""
The expressions of policies: their variables, and what is wrong with them when stored.

Loaded where somebody has a policy alone.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from controlplane.objects.cel.conditions import ConditionError, all_true
from controlplane.objects.cel.evaluate import CompileError, Program, compile_expression
from controlplane.objects.cel.steps import STEPS
from controlplane.objects.cel.syntax import CelSyntaxError
from controlplane.objects.cel.values import CelError
from controlplane.objects.errors import FieldError, invalid_value

NAMES = frozenset("object oldObject request params namespaceObject authorizer variables".split())
__all__ = ["CelError", "ConditionError", "Scope", "expression_errors", "plain"]


@lru_cache(maxsize=512)
def program(text: str) -> Program:
    return compile_expression(text, NAMES)


class _Lazy(Mapping[str, Any]):
    """``variables``: each is evaluated when it is first asked for."""

    def __init__(self, definitions: Mapping[str, str], scope: "Scope") -> None:
        self._definitions = definitions
        self._scope = scope
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._scope.value(self._definitions[name])
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._definitions

    def __iter__(self) -> Iterator[str]:
        return iter(self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)


class Scope:
    """What the expressions of one policy see in one request; they share one budget."""

    def __init__(self, spec: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        named = {v["name"]: v["expression"] for v in spec.get("variables") or ()}
        self._values = {**values, "variables": _Lazy(named, self)}
        self._conditions = spec.get("matchConditions") or ()
        self._budget = [STEPS]

    def value(self, text: str) -> Any:
        """Raises :class:`CelError`."""
        try:
            return program(text).evaluate(self._values, self._budget)
        except (CelSyntaxError, CompileError) as err:
            raise CelError(f"compilation error: {err}") from err

    def meets(self) -> bool:
        """Its ``matchConditions``. Raises :class:`ConditionError`."""
        return all_true(self._conditions, self._values)


def plain(value: Any) -> Any:
    """What an expression gave, as JSON has it."""
    match value:
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case bool() | None | float() | str():
            return value
        case int():
            return int(value)
        case bytes():
            return b64encode(value).decode()
        case _:
            return str(value)


def expression_errors(spec: Mapping[str, Any], path: str = "spec") -> Iterator[FieldError]:
    """Of either kind of policy."""
    for field, names in (
        ("variables", ("expression",)),
        ("validations", ("expression", "messageExpression")),
        ("auditAnnotations", ("valueExpression",)),
        ("matchConditions", ("expression",)),
    ):
        for index, entry in enumerate(spec.get(field) or ()):
            for name in names:
                yield from _errors(entry.get(name) or "", f"{path}.{field}[{index}].{name}")
    for index, mutation in enumerate(spec.get("mutations") or ()):
        for field in ("applyConfiguration", "jsonPatch"):
            text = (mutation.get(field) or {}).get("expression") or ""
            yield from _errors(text, f"{path}.mutations[{index}].{field}.expression")


def _errors(text: str, path: str) -> Iterator[FieldError]:
    if not text.strip():
        return
    try:
        program(text)
    except (CelSyntaxError, CompileError) as err:
        yield invalid_value(path, text, f"compilation failed: {err}")
