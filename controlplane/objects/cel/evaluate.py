"""
A tree becomes closures: compiled once, evaluated often.

Each closure takes the variables and gives a value or raises :class:`CelError`; ``&&``,
``||``, ``all`` and ``exists`` take an error for unknown where the rest decides anyhow. What a
variable may be called and which functions there are is checked when it is compiled. An
evaluation has a budget of steps, so that no expression holds the server up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.objects.cel import arithmetic
from controlplane.objects.cel.functions import FUNCTIONS, METHODS, NAMESPACED
from controlplane.objects.cel.macros import macro
from controlplane.objects.cel.steps import BUDGET, STEPS, Step, Variables, spend, truth
from controlplane.objects.cel.syntax import (
    Call,
    Index,
    ListOf,
    Literal,
    Macro,
    MapOf,
    Message,
    Name,
    Node,
    Select,
    UintLiteral,
    parse,
    qualified,
)
from controlplane.objects.cel.values import (
    NONE,
    CelError,
    Optional,
    TypeValue,
    Uint,
    compare,
    contains,
    equal,
    is_number,
    no_overload,
)

_TYPES = {
    name: TypeValue(name)
    for name in "bool bytes double int list map null_type string type uint".split()
}


class CompileError(Exception):
    """The expression refers to what is not there; one line for each."""


@dataclass(frozen=True, slots=True)
class Program:
    """An expression, ready to be evaluated."""

    text: str
    step: Step
    names: frozenset[str]  # of the variables that it uses

    def evaluate(self, variables: Mapping[str, Any], budget: list[int] | None = None) -> Any:
        """Raises :class:`CelError`. ``budget``: the steps left, where several share them."""
        try:
            return self.step({**variables, BUDGET: [STEPS] if budget is None else budget})
        except RecursionError as err:
            raise CelError("the values are nested too deeply") from err


def compile_expression(text: str, variables: frozenset[str]) -> Program:
    """
    ``variables``: the names that there are.

    Raises :class:`~controlplane.objects.cel.syntax.CelSyntaxError` or :class:`CompileError`.
    """
    compiler = _Compiler(text, variables)
    step = compiler.compile(parse(text))
    if compiler.errors:
        raise CompileError("\n".join(compiler.errors))
    return Program(text, step, frozenset(compiler.used))


class _Compiler:
    """Its mutable state is the variables of the macros around, and the errors found."""

    def __init__(self, text: str, variables: frozenset[str]) -> None:
        self.errors: list[str] = []
        self._text = text
        self._names = variables
        self.used: set[str] = set()
        self._local: list[str] = []

    def compile(self, node: Node) -> Step:
        match node:
            case Literal(value):
                return _constant(value)
            case UintLiteral(value):
                return _constant(Uint(value))
            case ListOf(items):
                steps = [self.compile(item) for item in items]
                return lambda v: [step(v) for step in steps]
            case MapOf(entries):
                pairs = [(self.compile(key), self.compile(value)) for key, value in entries]
                return lambda v: _map(pairs, v)
            case _:
                return self._compound(node)

    def _compound(self, node: Name | Select | Index | Message | Macro | Call) -> Step:
        match node:
            case Name():
                return self._name(node)
            case Select():
                return self._select(node)
            case Index():
                return self._index(node)
            case Message():
                return self._message(node)
            case Macro():
                return self._macro(node)
            case Call():
                return self._call(node)

    def _complain(self, at: int, why: str) -> Step:
        line = self._text.count("\n", 0, at)
        column = at - (self._text.rfind("\n", 0, at) + 1)
        self.errors.append(f"ERROR: <input>:{line + 1}:{column + 1}: {why}")
        return lambda _: None

    def _name(self, node: Name) -> Step:
        name = node.name.removeprefix(".")
        if name in self._local or name in self._names:
            self.used.add(name)
            return lambda v: v[name]
        if name in _TYPES:
            return lambda _: _TYPES[name]
        return self._complain(node.at, f"undeclared reference to '{name}' (in container '')")

    def _select(self, node: Select) -> Step:
        full = qualified(node)
        if full in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            return lambda _: TypeValue(full)
        operand, field = self.compile(node.operand), node.field
        if node.test:
            return lambda v: _has(operand(v), field)
        if node.optional:
            return lambda v: _optional(operand(v), field)
        return lambda v: _field(operand(v), field)

    def _index(self, node: Index) -> Step:
        operand, index = self.compile(node.operand), self.compile(node.index)
        if node.optional:
            return lambda v: _optional(operand(v), index(v))
        return lambda v: _item(operand(v), index(v))

    def _message(self, node: Message) -> Step:
        """Only the objects of mutations are messages: a map of what they set."""
        if node.type.split(".")[0] not in ("Object", "JSONPatch"):
            return self._complain(node.at, f"undeclared reference to '{node.type}'")
        fields = [(name, self.compile(value)) for name, value in node.fields]
        return lambda v: {name: step(v) for name, step in fields}

    def _macro(self, node: Macro) -> Step:
        over = self.compile(node.range)
        names = [name for name in (node.variable, node.second) if name]
        self._local += names
        arguments = [self.compile(argument) for argument in node.arguments]
        del self._local[len(self._local) - len(names) :]
        return macro(node.name, over, (node.variable, node.second), arguments)

    def _call(self, node: Call) -> Step:
        if node.target is None and node.function in _LAZY:
            return _LAZY[node.function](*(self.compile(argument) for argument in node.arguments))
        arguments = [self.compile(argument) for argument in node.arguments]
        if node.target is not None:
            prefix = qualified(node.target)
            name = f"{prefix}.{node.function}"
            if prefix.split(".")[0] not in {*self._names, *self._local} and name in NAMESPACED:
                return self._apply(node, NAMESPACED[name], arguments)
            arguments.insert(0, self.compile(node.target))
        table = _GLOBAL if node.target is None else METHODS
        operation = table.get(node.function)
        if operation is None:
            text = f"undeclared reference to '{node.function}' (in container '')"
            return self._complain(node.at, text)
        return self._apply(node, operation, arguments)

    def _apply(self, node: Call, operation: Callable[..., Any], arguments: list[Step]) -> Step:
        low, high = _arity(operation)
        if not low <= len(arguments) <= high:
            text = f"found no matching overload for '{node.function}' applied to that many"
            return self._complain(node.at, text)
        return _called(operation, arguments)


def _constant(value: Any) -> Step:
    return lambda _: value


def _called(operation: Callable[..., Any], arguments: list[Step]) -> Step:
    def call(variables: Variables) -> Any:
        spend(variables)
        values = [argument(variables) for argument in arguments]
        try:
            return operation(*values)
        except (TypeError, AttributeError, ValueError) as err:
            # A function was given what it is not for: a method of strings on a number.
            raise no_overload() from err

    return call


def _arity(operation: Callable[..., Any]) -> tuple[int, int]:
    code = operation.__code__
    if code.co_flags & 0x04:  # *arguments
        return code.co_argcount, 100
    defaults = operation.__defaults__ or ()
    return code.co_argcount - len(defaults), code.co_argcount


def _field(value: Any, field: str) -> Any:
    match value:
        case Mapping():
            if field in value:
                return value[field]
            raise CelError(f"no such key: {field}")
        case Optional():
            return _optional(value, field)
        case _ if field in getattr(value, "cel_fields", ()):
            return value.cel_fields[field]
        case _:
            raise CelError(f"no such overload: {field}")


def _has(value: Any, field: str) -> bool:
    match value:
        case Mapping():
            return field in value
        case Optional():
            return value.present and _has(value.value, field)
        case _:
            raise no_overload()


def _item(value: Any, index: Any) -> Any:
    match value:
        case Optional():
            return _optional(value, index)
        case Mapping():
            if isinstance(index, float) and index.is_integer():
                index = int(index)
            if not isinstance(index, bool) and index in value:
                return value[index]
            raise CelError(f"no such key: {index}")
        case list() | tuple() if is_number(index):
            if index != int(index):
                raise CelError(f"invalid argument: index {index}")
            if 0 <= index < len(value):
                return value[int(index)]
            raise CelError(f"index out of bounds: {int(index)}")
        case _:
            raise no_overload()


def _optional(value: Any, index: Any) -> Optional:
    if isinstance(value, Optional):
        if not value.present:
            return NONE
        value = value.value
    try:
        return Optional(_item(value, index), True)
    except CelError:
        if isinstance(value, Mapping | list | tuple):
            return NONE
        raise


def _map(pairs: list[tuple[Step, Step]], variables: Variables) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key_step, value_step in pairs:
        key = key_step(variables)
        if not isinstance(key, str | int):
            raise CelError(f"unsupported key type: {key}")
        if key in made:
            raise CelError(f"Failed with repeated key: {key}")
        made[key] = value_step(variables)
    return made


def _and(left: Step, right: Step) -> Step:
    return _logic(left, right, decisive=False)


def _or(left: Step, right: Step) -> Step:
    return _logic(left, right, decisive=True)


def _logic(left: Step, right: Step, *, decisive: bool) -> Step:
    def step(variables: Variables) -> bool:
        spend(variables)
        first = truth(left, variables)
        if first is decisive:
            return decisive
        second = truth(right, variables)
        if second is decisive:
            return decisive
        for found in (first, second):
            if isinstance(found, CelError):
                raise found
        return not decisive

    return step


def _choice(condition: Step, then: Step, otherwise: Step) -> Step:
    def step(variables: Variables) -> Any:
        spend(variables)
        decided = condition(variables)
        if not isinstance(decided, bool):
            raise no_overload()
        return then(variables) if decided else otherwise(variables)

    return step


def _is_in(value: Any, items: Any) -> bool:
    match items:
        case Mapping():
            return not isinstance(value, bool) and value in items
        case list() | tuple():
            return contains(items, value)
        case _:
            raise no_overload()


def _not(value: Any) -> bool:
    if not isinstance(value, bool):
        raise no_overload()
    return not value


def _not_equal(a: Any, b: Any) -> bool:
    return not equal(a, b)


def _less(a: Any, b: Any) -> bool:
    return compare(a, b) < 0


def _less_or_equal(a: Any, b: Any) -> bool:
    return compare(a, b) <= 0


def _greater(a: Any, b: Any) -> bool:
    return compare(a, b) > 0


def _greater_or_equal(a: Any, b: Any) -> bool:
    return compare(a, b) >= 0


_LAZY: dict[str, Callable[..., Step]] = {"_&&_": _and, "_||_": _or, "_?_:_": _choice}
_GLOBAL: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "_+_": arithmetic.add,
    "_-_": arithmetic.subtract,
    "_*_": arithmetic.multiply,
    "_/_": arithmetic.divide,
    "_%_": arithmetic.remainder,
    "-_": arithmetic.negate,
    "!_": _not,
    "_==_": equal,
    "_!=_": _not_equal,
    "_<_": _less,
    "_<=_": _less_or_equal,
    "_>_": _greater,
    "_>=_": _greater_or_equal,
    "@in": _is_in,
}
