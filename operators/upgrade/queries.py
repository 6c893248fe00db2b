"""
Label selectors as the API's objects have them, written as its URLs have them. Pure.

``{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [a, b]}]}`` becomes
``app=web,tier in (a,b)``: the API server selects, so that nothing is read in vain.
"""

import re
from collections.abc import Mapping
from typing import Any

from operators.upgrade.fields import Fields

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WRITTEN = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})"}
_PRESENCE = {"Exists": "{key}", "DoesNotExist": "!{key}"}


def text(selector: Mapping[str, Any] | None) -> str:
    """Of a selector without :func:`errors`; "" selects everything."""
    selector = selector or {}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for found in selector.get("matchExpressions") or ():
        form = {**_WRITTEN, **_PRESENCE}[found["operator"]]
        parts.append(form.format(key=found["key"], values=",".join(found.get("values") or ())))
    return ",".join(parts)


def check(selector: Fields) -> None:
    """Says what is wrong with a LabelSelector, in the words of the API where it has them."""
    selector.only("matchLabels", "matchExpressions")
    if labels := selector.inside("matchLabels"):
        for key, value in labels.value.items():
            _check_key(labels, key, key)
            _check_value(labels, key, value)
    for index, item in enumerate(selector.items("matchExpressions")):
        path = f"{selector.path}.matchExpressions[{index}]"
        if not isinstance(item, Mapping):
            selector.errors.append(f"{path}: must be an object")
        else:
            _check_expression(Fields(item, path, selector.errors))


def _check_expression(found: Fields) -> None:
    found.only("key", "operator", "values")
    _check_key(found, "key", found.text("key", required=True))
    operator, values = found.text("operator", required=True), found.texts("values")
    if operator in _WRITTEN and not values:
        found.wrong("values", f"must be given with operator {operator}")
    elif operator in _PRESENCE and values:
        found.wrong("values", f"must not be given with operator {operator}")
    elif operator and operator not in _WRITTEN and operator not in _PRESENCE:
        found.wrong("operator", f"{operator!r} is not one of In, NotIn, Exists, DoesNotExist")
    for value in values:
        _check_value(found, "values", value)


def _check_key(found: Fields, name: str, key: str) -> None:
    prefix, slash, last = key.rpartition("/")
    if key and (not _NAME.fullmatch(last) or (slash and not _PREFIX.fullmatch(prefix))):
        found.wrong(name, f"{key!r} is no name of a label")


def _check_value(found: Fields, name: str, value: object) -> None:
    if not isinstance(value, str) or (value and not _NAME.fullmatch(value)):
        found.wrong(name, f"{value!r} is no value of a label")
