"""
Rules of custom resources (``x-kubernetes-validations``): checked when they are defined,
evaluated when a resource is written.

A rule that names ``oldSelf`` is about a change, and is asked only where there was a
value before. What was wrong before and has not changed may stay (KEP-4008).
Source: KEP-2876.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from controlplane.objects.cel.evaluate import CompileError, Program, compile_expression
from controlplane.objects.cel.steps import BudgetError
from controlplane.objects.cel.syntax import CelSyntaxError
from controlplane.objects.cel.typed import seen
from controlplane.objects.cel.values import NONE, CelError, Optional
from controlplane.objects.errors import FieldError, invalid_value, not_supported, required
from controlplane.objects.schema import Schema, Type

JSON = Mapping[str, Any]
VARIABLES = frozenset({"self", "oldSelf"})
STEPS = 2_000_000  # for all rules of one resource
_REASONS = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
}
_KEYWORDS = ("properties", "items", "additionalProperties")
_NOTHING: Any = object()  # there was no value that this one follows


@lru_cache(maxsize=1024)
def _program(text: str) -> Program:
    return compile_expression(text, VARIABLES)


# When they are defined


def rule_errors(schema: JSON, path: str) -> Iterator[FieldError]:
    """What is wrong with the rules anywhere in a schema (openAPIV3Schema)."""
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        yield from _rule_errors(rule, f"{path}.x-kubernetes-validations[{index}]")
    for name, inner in (schema.get("properties") or {}).items():
        yield from rule_errors(inner, f"{path}.properties[{name}]")
    for keyword in _KEYWORDS[1:]:
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            yield from rule_errors(inner, f"{path}.{keyword}")


def _rule_errors(rule: JSON, path: str) -> Iterator[FieldError]:
    expression = (rule.get("rule") or "").strip()
    if not expression:
        yield required(f"{path}.rule", "rule is not specified")
        return
    yield from _compile_errors(expression, f"{path}.rule")
    if told := rule.get("messageExpression"):
        yield from _compile_errors(told, f"{path}.messageExpression")
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        yield not_supported(f"{path}.reason", reason, sorted(_REASONS))
    message = rule.get("message") or ""
    if "\n" in message:
        text = "message must not contain line breaks"
        yield invalid_value(f"{path}.message", message, text)
    if "\n" in expression and not message:
        text = "message must be specified if rule contains line breaks"
        yield required(f"{path}.message", text)


def _compile_errors(expression: str, path: str) -> Iterator[FieldError]:
    try:
        _program(expression)
    except (CelSyntaxError, CompileError) as err:
        yield invalid_value(path, expression, f"compilation failed: {err}")


# When a resource is written


def validation_errors(new: JSON, old: JSON | None, schema: Schema) -> list[FieldError]:
    walk = _Walk([STEPS])
    before = _NOTHING if old is None else old
    try:
        return list(walk.value(new, before, schema, "", root=True))
    except BudgetError:
        text = "validation failed due to running out of cost budget, no further validation rules"
        return [invalid_value("", "object", f"{text} will be run")]


@dataclass(frozen=True, slots=True)
class _Walk:
    """Through a resource and what it was before."""

    budget: list[int]

    def value(
        self, new: Any, old: Any, schema: Schema, path: str, *, root: bool = False
    ) -> Iterator[FieldError]:
        if new is None:
            return
        if schema.rules is not None and schema.rules.validations:
            yield from self._rules(new, old, schema, path, root=root)
        match schema.type:
            case Type.OBJECT if isinstance(new, Mapping):
                before = old if isinstance(old, Mapping) else {}
                for name, field in schema.fields.items():
                    if name in new:
                        was = before.get(name, _NOTHING)
                        yield from self.value(new[name], was, field.schema, _join(path, name))
            case Type.MAP if isinstance(new, Mapping):
                before = old if isinstance(old, Mapping) else {}
                for name, inner in new.items():
                    was = before.get(name, _NOTHING)
                    yield from self.value(inner, was, schema.items, f"{path}[{name}]")
            case Type.LIST if isinstance(new, list):
                yield from self._list(new, old, schema, path)
            case _:
                return

    def _list(self, new: list[Any], old: Any, schema: Schema, path: str) -> Iterator[FieldError]:
        before = {}
        if schema.list_type == "map" and isinstance(old, list):
            before = {_key(item, schema): item for item in old}
        for index, item in enumerate(new):
            was = before.get(_key(item, schema), _NOTHING) if before else _NOTHING
            yield from self.value(item, was, schema.items, f"{path}[{index}]")

    def _rules(
        self, new: Any, old: Any, schema: Schema, path: str, *, root: bool
    ) -> Iterator[FieldError]:
        had = old is not _NOTHING and old is not None
        value = seen(new, schema, root=root)
        was = seen(old, schema, root=root) if had else None
        unchanged = had and new == old
        for rule in schema.rules.validations if schema.rules else ():
            try:
                program = _program((rule.get("rule") or "").strip())
            except (CelSyntaxError, CompileError) as err:
                yield invalid_value(path, schema.type.value, f"rule compile error: {err}")
                continue
            transition = "oldSelf" in program.names
            optional = bool(rule.get("optionalOldSelf"))
            if transition and not (had or optional):
                continue
            variables = {"self": value, "oldSelf": was}
            if optional:
                variables["oldSelf"] = Optional(was, True) if had else NONE
            error = self._asked(rule, program, variables, (path, schema, new))
            if error is not None and (transition or not unchanged):
                yield error

    def _asked(
        self,
        rule: JSON,
        program: Program,
        variables: dict[str, Any],
        at: tuple[str, Schema, Any],
    ) -> FieldError | None:
        path, schema, value = at
        try:
            if program.evaluate(variables, self.budget) is True:
                return None
        except BudgetError:
            raise
        except CelError as err:
            text = f"{err} evaluating rule: {_shown(rule)}"
            if str(err).startswith("no such overload"):
                text = (
                    f"'{err}': call arguments did not match a supported operator, function or "
                    f"macro signature for rule: {_shown(rule)}"
                )
            return invalid_value(path, schema.type.value, text)
        where = path + str(rule.get("fieldPath") or "")
        return _failure(rule, where.removeprefix("."), self._message(rule, variables), value)

    def _message(self, rule: JSON, variables: dict[str, Any]) -> str:
        if text := rule.get("messageExpression"):
            try:
                said = _program(text).evaluate(variables, self.budget)
            except BudgetError:
                raise
            except (CelError, CelSyntaxError, CompileError):
                said = None
            if isinstance(said, str) and said.strip() and "\n" not in said:
                return said.strip()
        message = (rule.get("message") or "").strip()
        return message or f"failed rule: {(rule.get('rule') or '').strip()}"


def _failure(rule: JSON, path: str, detail: str, value: Any) -> FieldError:
    reason = rule.get("reason") or "FieldValueInvalid"
    if reason == "FieldValueInvalid" and not isinstance(value, Mapping | list):
        return invalid_value(path, value, detail)
    return FieldError(reason, path, f"{_REASONS[reason]}: {detail}")


def _shown(rule: JSON) -> str:
    return str(rule.get("message") or (rule.get("rule") or "").strip())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _key(item: Any, schema: Schema) -> Iterable[Any]:
    if not isinstance(item, Mapping):
        return ()
    return tuple(str(item.get(name)) for name in schema.map_keys)
