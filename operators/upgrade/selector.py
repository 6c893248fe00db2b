"""
Label selectors of a plan: which nodes are meant. Pure.

The meaning is Kubernetes' own, with one addition: the requirement ``matchLabels`` of a selector
that is not given at all is met by every node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist
    values: frozenset[str]

    def met(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        found = labels.get(self.key) in self.values
        return found if self.operator == "In" else not found


@dataclass(frozen=True, slots=True)
class Selector:
    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.met(labels) for requirement in self.requirements)


EVERYTHING = Selector(())


def parse(given: Mapping[str, Any] | None) -> Selector:
    """Raises ValueError, which says what is wrong."""
    if not given:
        return EVERYTHING
    found = [
        Requirement(str(key), "In", frozenset({str(value)}))
        for key, value in (given.get("matchLabels") or {}).items()
    ]
    found += [_requirement(entry) for entry in given.get("matchExpressions") or ()]
    return Selector(tuple(found))


def _requirement(given: Mapping[str, Any]) -> Requirement:
    key, operator = str(given.get("key") or ""), str(given.get("operator") or "")
    values: Sequence[Any] = given.get("values") or ()
    if operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
        raise ValueError(f"{operator!r} is no operator of a label selector")
    if bool(values) != (operator in {"In", "NotIn"}):
        needs = "needs" if operator in {"In", "NotIn"} else "takes no"
        raise ValueError(f"{key}: {operator} {needs} values")
    return Requirement(key, operator, frozenset(map(str, values)))
