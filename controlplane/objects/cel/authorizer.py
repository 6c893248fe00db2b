"""``authorizer``: expressions ask what the user of a request may do. Source: KEP-3488."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from controlplane.objects.cel.values import CelError, no_overload

# From what is asked (the fields below) to whether it is allowed, and why.
Decide = Callable[["Check", str], tuple[bool, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What an expression has said so far of its question."""

    cel_type: ClassVar[str] = "kubernetes.authorization.ResourceCheck"
    decide: Decide
    account: tuple[str, str] = ("", "")  # namespace and name of another than the user
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    fields: str = ""
    labels: str = ""
    request: "Check | None" = None  # of the resource that the request is for

    @property
    def cel_fields(self) -> dict[str, Any]:
        return {} if self.request is None else {"requestResource": self.request}


@dataclass(frozen=True, slots=True)
class Decision:
    cel_type: ClassVar[str] = "kubernetes.authorization.Decision"
    allowed: bool
    reason: str


def _setter(field: str, *, needed: bool = False) -> Callable[..., Check]:
    def setter(check: Any, value: Any) -> Check:
        if not (isinstance(check, Check) and isinstance(value, str)):
            raise no_overload()
        if needed and not value.strip():
            raise CelError(f"{field} must not be empty")
        changed: dict[str, Any] = {field: value}
        return replace(check, **changed)

    return setter


def _service_account(check: Any, namespace: str, name: str) -> Check:
    if not isinstance(check, Check):
        raise no_overload()
    return replace(check, account=(namespace, name))


def _check(check: Any, verb: str) -> Decision:
    if not isinstance(check, Check):
        raise no_overload()
    return Decision(*check.decide(check, verb))


def _allowed(decision: Any) -> bool:
    return bool(_decided(decision).allowed)


def _reason(decision: Any) -> str:
    return _decided(decision).reason


def _errored(decision: Any) -> bool:
    """Our authorizers decide from what is in memory: there is no error to tell of."""
    _decided(decision)
    return False


def _error(decision: Any) -> str:
    _decided(decision)
    return ""


def _decided(decision: Any) -> Decision:
    if not isinstance(decision, Decision):
        raise no_overload()
    return decision


METHODS: dict[str, Callable[..., Any]] = {
    "path": _setter("path", needed=True),
    "group": _setter("group"),
    "serviceAccount": _service_account,
    "resource": _setter("resource", needed=True),
    "subresource": _setter("subresource"),
    "namespace": _setter("namespace"),
    "name": _setter("name"),
    "fieldSelector": _setter("fields"),
    "labelSelector": _setter("labels"),
    "check": _check,
    "allowed": _allowed,
    "reason": _reason,
    "errored": _errored,
    "error": _error,
}
