"""
What checks of the Pod Security Standards share: reading a pod, and wording what is wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    reason: str  # as short as can be: hostPort
    detail: str  # with names: container "a" uses hostPort 80

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check = Callable[[Object, Object], Violation | None]  # (metadata holder, spec)


def containers(spec: Object) -> Iterator[Object]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or ()


def security(obj: Object) -> Object:
    return obj.get("securityContext") or {}


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def plural(word: str, items: Sequence[str] | set[str]) -> str:
    return word if len(items) == 1 else f"{word}s"


def named(containers: Sequence[str]) -> str:
    return f"{plural('container', containers)} {quoted(containers)}"


def who_sets(spec: Object, is_bad: Callable[[Object], bool]) -> list[str]:
    """Who sets something bad: ``pod``, ``containers "a", "b"``."""
    setters = ["pod"] if is_bad(security(spec)) else []
    bad = [c.get("name", "") for c in containers(spec) if is_bad(security(c))]
    return [*setters, named(bad)] if bad else setters


def in_user_namespace(spec: Object) -> bool:
    return spec.get("hostUsers") is False


def unless_in_user_namespace(check: Check) -> Check:
    """Root there is nobody outside: KEP-127."""
    return lambda holder, spec: None if in_user_namespace(spec) else check(holder, spec)


def unless_windows(check: Check) -> Check:
    def checked(holder: Object, spec: Object) -> Violation | None:
        windows = (spec.get("os") or {}).get("name") == "windows"
        return None if windows else check(holder, spec)

    return checked
