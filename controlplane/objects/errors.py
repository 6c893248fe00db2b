"""
The errors of the API, each with its ``Status`` body.

One class, told apart by ``reason``: callers act on the reason, clients on the
code. Texts follow the API machinery's, because kubectl and people match on them.
Source: the API conventions, "Response Status Kind".
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field: a cause in ``status.details.causes``."""

    reason: str  # FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, …
    field: str  # spec.containers[0].name; empty: the whole object
    message: str  # without the field's name: ``Required value: must name a port``

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def required(field: str, detail: str = "") -> FieldError:
    message = f"Required value: {detail}" if detail else "Required value"
    return FieldError("FieldValueRequired", field, message)


def invalid_value(field: str, value: object, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", field, f"Invalid value: {_show(value)}: {detail}")


def duplicate(field: str, value: object) -> FieldError:
    return FieldError("FieldValueDuplicate", field, f"Duplicate value: {_show(value)}")


def not_supported(field: str, value: object, known: Iterable[str]) -> FieldError:
    names = ", ".join(f'"{name}"' for name in known)
    message = f"Unsupported value: {_show(value)}: supported values: {names}"
    return FieldError("FieldValueNotSupported", field, message)


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", field, f"Forbidden: {detail}")


def _show(value: object) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case dict() | list():
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        case _:
            return str(value)


class StatusError(Exception):
    """A request that failed, as the API says it: an HTTP code and a ``Status`` body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = dict(self.details)
        status["code"] = self.code
        return status


def _details(group_resource: str, name: str) -> dict[str, Any]:
    resource, _, group = group_resource.partition(".")
    details = {"name": name, "group": group, "kind": resource}
    return {key: value for key, value in details.items() if value}


def not_found(group_resource: str, name: str) -> StatusError:
    """``group_resource``: ``pods`` or ``deployments.apps``."""
    message = f'{group_resource} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(group_resource, name))


def no_such_path() -> StatusError:
    """A path or a resource that the server does not serve at all."""
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group_resource: str, name: str) -> StatusError:
    message = f'{group_resource} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(group_resource, name))


def conflict(group_resource: str, name: str, why: str = "") -> StatusError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    message = f'Operation cannot be fulfilled on {group_resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(group_resource, name))


def invalid(group_kind: str, name: str, errors: Iterable[FieldError]) -> StatusError:
    """``group_kind``: ``Pod`` or ``Deployment.apps``; 422 with one cause for each error."""
    causes = list(errors)
    texts = [str(cause) for cause in causes]
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(group_kind, name) | {
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    }
    message = f'{group_kind} "{name}" is invalid: {listed}'
    return StatusError(422, "Invalid", message, details=details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(group_resource: str, name: str, why: str) -> StatusError:
    shown = f'{group_resource} "{name}"' if name else group_resource
    message = f"{shown} is forbidden: {why}"
    return StatusError(403, "Forbidden", message, details=_details(group_resource, name))


def method_not_supported(group_resource: str, action: str) -> StatusError:
    message = f'{action} is not supported on resources of kind "{group_resource}"'
    details = _details(group_resource, "")
    return StatusError(405, "MethodNotAllowed", message, details=details)


def not_acceptable(message: str) -> StatusError:
    return StatusError(406, "NotAcceptable", message)


def unsupported_media_type(media_type: str, known: Iterable[str]) -> StatusError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(known)
    )
    if media_type:
        message += f" (got {media_type})"
    return StatusError(415, "UnsupportedMediaType", message)


def expired(message: str) -> StatusError:
    """410: a resourceVersion or a continue token that is older than the last compaction."""
    return StatusError(410, "Expired", message)


def too_many_requests(message: str, retry_after: int) -> StatusError:
    """``retry_after``: whole seconds."""
    return StatusError(
        429,
        "TooManyRequests",
        message,
        details={"retryAfterSeconds": retry_after},
        headers={"Retry-After": str(retry_after)},
    )


def internal(message: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {message}")


def insufficient_storage(message: str) -> StatusError:
    return StatusError(507, "InsufficientStorage", message)


def unavailable(message: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", message)


def timed_out(message: str) -> StatusError:
    return StatusError(504, "Timeout", f"Timeout: {message}")


def not_implemented(what: str) -> StatusError:
    """What Kubernetes has and we refuse; ``what`` names it as docs/compatibility.md does."""
    return StatusError(501, "NotImplemented", f"Pinnace does not support {what}")
