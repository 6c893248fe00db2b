"""Macros over lists and maps: ``all``, ``exists``, ``map``, ``filter`` and their like."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controlplane.objects.cel.steps import Step, Variables, spend, truth
from controlplane.objects.cel.values import CelError, compare, no_overload

_MISSING = object()


class _Loop:
    """The rounds of a macro. Its variables hide others of their names for as long."""

    def __init__(self, over: Step, first: str, second: str) -> None:
        self._over = over
        self.first = first
        self._second = second

    def __call__(self, variables: Variables) -> Iterator[tuple[Any, Any]]:
        """Of a list the index and the item, of a map the key and the value."""
        items = self._over(variables)
        if isinstance(items, Mapping):
            pairs = list(items.items())
        elif isinstance(items, list | tuple):
            pairs = list(enumerate(items))
        else:
            raise no_overload()
        mapping = isinstance(items, Mapping)
        hidden = {
            name: variables.get(name, _MISSING) for name in (self.first, self._second) if name
        }
        try:
            for key, value in pairs:
                spend(variables)
                if self._second:
                    variables[self.first], variables[self._second] = key, value
                else:
                    variables[self.first] = key if mapping else value
                yield key, value
        finally:
            for name, value in hidden.items():
                if value is _MISSING:
                    variables.pop(name, None)
                else:
                    variables[name] = value


def _quantified(loop: _Loop, condition: Step, *, decisive: bool) -> Step:
    def step(variables: Variables) -> bool:
        unknown: CelError | None = None
        for _ in loop(variables):
            found = truth(condition, variables)
            if found is decisive:
                return decisive
            if isinstance(found, CelError):
                unknown = found
        if unknown is not None:
            raise unknown
        return not decisive

    return step


def _all(loop: _Loop, arguments: list[Step]) -> Step:
    return _quantified(loop, arguments[0], decisive=False)


def _exists(loop: _Loop, arguments: list[Step]) -> Step:
    return _quantified(loop, arguments[0], decisive=True)


def _condition(step: Step, variables: Variables) -> bool:
    found = step(variables)
    if not isinstance(found, bool):
        raise no_overload()
    return found


def _exists_one(loop: _Loop, arguments: list[Step]) -> Step:
    return lambda v: sum([_condition(arguments[0], v) for _ in loop(v)]) == 1


def _filter(loop: _Loop, arguments: list[Step]) -> Step:
    def step(variables: Variables) -> list[Any]:
        # Of a map its keys; of a list its items.
        items = [
            variables[loop.first] for _ in loop(variables) if _condition(arguments[0], variables)
        ]
        return items

    return step


def _mapped(loop: _Loop, arguments: list[Step]) -> Step:
    *conditions, value = arguments
    if not conditions:
        return lambda v: [value(v) for _ in loop(v)]
    return lambda v: [value(v) for _ in loop(v) if _condition(conditions[0], v)]


def _transform_map(loop: _Loop, arguments: list[Step]) -> Step:
    *conditions, value = arguments
    if not conditions:
        return lambda v: {key: value(v) for key, _ in loop(v)}
    return lambda v: {key: value(v) for key, _ in loop(v) if _condition(conditions[0], v)}


def _sort_by(loop: _Loop, arguments: list[Step]) -> Step:
    def step(variables: Variables) -> list[Any]:
        keyed = [(arguments[0](variables), value) for _, value in loop(variables)]
        order = functools.cmp_to_key(compare)
        return [value for _, value in sorted(keyed, key=lambda pair: order(pair[0]))]

    return step


_MADE: dict[str, Callable[[_Loop, list[Step]], Step]] = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "existsOne": _exists_one,
    "filter": _filter,
    "map": _mapped,
    "transformList": _mapped,
    "transformMap": _transform_map,
    "sortBy": _sort_by,
}


def macro(name: str, over: Step, variables: tuple[str, str], arguments: list[Step]) -> Step:
    """``variables``: the one of each item and "", or those of key and value."""
    return _MADE[name](_Loop(over, *variables), arguments)
