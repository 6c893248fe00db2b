"""
JSON patch (RFC 6902) and JSON merge patch (RFC 7386).

Both return a new object and leave the old one alone. A patch that cannot be
read is a 400, one that does not fit the object a 422, as the API server has it.
Strategic merge patch is in :mod:`controlplane.objects.strategic`, apply in
:mod:`controlplane.objects.apply`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.meta import clone

_MOST_OPERATIONS = 10000
_INDEX = re.compile("-?(0|[1-9][0-9]*)")


class _DoesNotFit(Exception):
    """An operation that cannot be applied to this document."""


def json_patch(obj: Mapping[str, Any], patch: object) -> Any:
    """Apply a list of operations; all or nothing."""
    if not isinstance(patch, list) or not all(isinstance(op, dict) for op in patch):
        raise bad_request("json: cannot unmarshal the patch into a list of operations")
    if len(patch) > _MOST_OPERATIONS:
        text = (
            f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, "
            f"got {len(patch)}"
        )
        raise StatusError(413, "RequestEntityTooLarge", text)
    document = clone(obj)
    try:
        for operation in patch:
            document = _perform(document, operation)
    except _DoesNotFit as error:
        raise _unprocessable(str(error)) from None
    return document


def merge_patch(obj: object, patch: object) -> Any:
    """Null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        raise bad_request("Invalid JSON Patch")
    return _merge(obj, patch)


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch from ``old`` to ``new``; a null inside ``new`` cannot be said."""
    changes: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            changes[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if inner := merge_diff(old[key], value):
                changes[key] = inner
        elif not same(old[key], value):
            changes[key] = value
    return changes


def same(a: object, b: object) -> bool:
    """JSON equality: unlike Python, ``1``, ``1.0`` and ``true`` are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def _merge(obj: object, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return clone(patch)
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _unprocessable(text: str) -> StatusError:
    # Upstream drops the text; a cause is where kubectl shows it.
    cause = {"reason": "UnexpectedServerResponse", "message": text, "field": "patch"}
    return StatusError(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
        details={"causes": [cause]},
    )


def _perform(document: Any, operation: Mapping[str, Any]) -> Any:
    name, path = operation.get("op"), _pointer(operation, "path")
    match name:
        case "add":
            return _add(document, path, clone(_value(operation)))
        case "remove":
            return _remove(document, path, name)
        case "replace":
            return _replace(document, path, clone(_value(operation)))
        case "test":
            _test(document, path, operation.get("value"))
            return document
        case "copy" | "move":
            return _from(document, operation, path)
        case _:
            raise _DoesNotFit(f"Unexpected kind: {name}")


def _value(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise _DoesNotFit(f"{operation['op']} operation is missing its value: missing value")
    return operation["value"]


def _from(document: Any, operation: Mapping[str, Any], path: Sequence[str]) -> Any:
    name, source = str(operation["op"]), _pointer(operation, "from")
    value = _find(document, source, f"{name} operation does not apply: doc is missing from path")
    if name == "move":
        if path[: len(source)] == source and path != source:
            raise _DoesNotFit("move operation does not apply: a value cannot go into itself")
        document = _remove(document, source, name)
    return _add(document, path, clone(value))


def _pointer(operation: Mapping[str, Any], field: str) -> list[str]:
    """A JSON pointer (RFC 6901), split and unescaped; the empty one is the whole document."""
    text = operation.get(field)
    if not isinstance(text, str):
        raise _DoesNotFit(f"{operation.get('op')} operation is missing {field}: missing value")
    if text and not text.startswith("/"):
        raise _DoesNotFit(f"{operation.get('op')} operation: {field} {text!r} is no JSON pointer")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _shown(path: Sequence[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)


def _index(step: str, length: int, path: Sequence[str]) -> int:
    """Counted from the end where negative, as the API server does."""
    if not _INDEX.fullmatch(step):
        raise _DoesNotFit(f'{_shown(path)}: "{step}" is no index: invalid index referenced')
    index = int(step)
    if index < 0:
        index += length
    if not 0 <= index < length:
        text = f"Unable to access invalid index: {step}: invalid index referenced"
        raise _DoesNotFit(text)
    return index


def _find(document: Any, path: Sequence[str], complaint: str) -> Any:
    for step in path:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(step, len(document), path)]
        else:
            raise _DoesNotFit(f'{complaint}: "{_shown(path)}": missing value')
    return document


def _parent(document: Any, path: Sequence[str], name: str) -> Any:
    complaint = f"{name} operation does not apply: doc is missing path"
    parent = _find(document, path[:-1], complaint)
    if not isinstance(parent, dict | list):
        raise _DoesNotFit(f'{complaint}: "{_shown(path)}": missing value')
    return parent


def _add(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(document, path, "add")
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif path[-1] == "-":
        parent.append(value)
    else:
        # One past the end is a place to add at.
        parent.insert(_index(path[-1], len(parent) + 1, path), value)
    return document


def _remove(document: Any, path: Sequence[str], name: str) -> Any:
    if not path:
        return None
    parent = _parent(document, path, name)
    if isinstance(parent, list):
        del parent[_index(path[-1], len(parent), path)]
    elif path[-1] in parent:
        del parent[path[-1]]
    else:
        where = _shown(path)
        text = f"Unable to remove nonexistent key: {path[-1]}: missing value"
        raise _DoesNotFit(f"error in {name} for path: '{where}': {text}")
    return document


def _replace(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(document, path, "replace")
    if isinstance(parent, list):
        parent[_index(path[-1], len(parent), path)] = value
    elif path[-1] in parent:
        parent[path[-1]] = value
    else:
        where = _shown(path)
        raise _DoesNotFit(
            f"replace operation does not apply: doc is missing key: {where}: missing value"
        )
    return document


def _test(document: Any, path: Sequence[str], value: Any) -> None:
    where = _shown(path)
    try:
        found = _find(document, path, "test operation does not apply: doc is missing path")
    except _DoesNotFit:
        if value is None:  # what is absent counts as null
            return
        raise
    if not same(found, value):
        raise _DoesNotFit(f"testing value {where} failed: test failed")
