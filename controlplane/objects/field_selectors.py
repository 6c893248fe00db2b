"""
Field selectors: ``spec.nodeName=n1,status.phase!=Failed``.

Only the fields listed here (and the ``selectableFields`` of custom resources)
can be selected by; anything else is refused in the API's words. The cache keeps
:func:`fields_of` beside each object, so that matching decodes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from controlplane.objects.errors import bad_request
from controlplane.objects.kinds import Kind

Object = Mapping[str, Any]
Getter = Callable[[Object], str]


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Each term is (field, whether it must be equal, value); no terms match everything."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """``fields``: what :func:`fields_of` gave for the object."""
        return all((fields.get(name, "") == value) is equal for name, equal, value in self.terms)

    def exact(self, field: str) -> str | None:
        """The one value that the field must have; None where the selector does not say."""
        return next((value for name, equal, value in self.terms if equal and name == field), None)

    @property
    def empty(self) -> bool:
        return not self.terms


def parse(text: str, kind: Kind) -> FieldSelector:
    """400 for a field that this kind cannot be selected by, and for what cannot be read."""
    known = _known(kind)
    terms = []
    for name, equal, value in _terms(text):
        real = known.get(name)
        if real is None:
            raise bad_request(_refusal(kind, name))
        terms.append((real, equal, value))
    return FieldSelector(tuple(terms))


def fields_of(kind: Kind, obj: Object) -> dict[str, str]:
    """All the fields that an object of this kind can be selected by, as text."""
    metadata = obj.get("metadata") or {}
    fields = {"metadata.name": metadata.get("name", "")}
    if kind.namespaced:
        fields["metadata.namespace"] = metadata.get("namespace", "")
    for name, getter in _getters(kind).items():
        fields[name] = getter(obj)
    return fields


@lru_cache(maxsize=1024)
def _terms(text: str) -> tuple[tuple[str, bool, str], ...]:
    found = []
    for part in sorted(_split(text)):
        if not part:
            continue
        name, operator, value = _split_term(part)
        if not operator:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        found.append((name, operator != "!=", _unescape(value)))
    return tuple(found)


def _split(text: str) -> Iterator[str]:
    """At commas, except those behind a backslash."""
    start, escaped = 0, False
    for index, sign in enumerate(text):
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == ",":
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _split_term(term: str) -> tuple[str, str, str]:
    for index in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, index):
                return term[:index], operator, term[index + len(operator) :]
    return "", "", ""


def _unescape(value: str) -> str:
    if not any(sign in value for sign in "\\,="):
        return value
    result, escaped = [], False
    for sign in value:
        if escaped and sign not in "\\,=":
            raise bad_request(f"invalid field selector: invalid escape sequence: \\{sign}")
        if not escaped and sign in ",=":
            # The number of the character: so the API puts it.
            text = f"invalid field selector: unescaped character in value: {ord(sign)}"
            raise bad_request(text)
        if escaped or sign != "\\":
            result.append(sign)
        escaped = sign == "\\" and not escaped
    if escaped:
        raise bad_request("invalid field selector: invalid escape sequence: \\")
    return "".join(result)


def _known(kind: Kind) -> dict[str, str]:
    """The names that clients may use → the names that :func:`fields_of` uses."""
    known = {"metadata.name": "metadata.name"}
    if kind.namespaced:
        known["metadata.namespace"] = "metadata.namespace"
    known.update((name, name) for name in _getters(kind))
    known.update(_ALIASES.get((kind.group, kind.kind), {}))
    if kind.group == "events.k8s.io":
        return {name: real for name, real in known.items() if name not in _OLD_EVENT_NAMES}
    return known


def _refusal(kind: Kind, name: str) -> str:
    if (kind.group, kind.kind) == ("batch", "Job"):
        return f'field label "{name}" not supported for Job'
    if kind.custom or (kind.group, kind.kind) in _GETTERS:
        return f"field label not supported: {name}"
    return f'"{name}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _getters(kind: Kind) -> Mapping[str, Getter]:
    if kind.custom:
        return _custom_getters(kind.selectable_fields)
    return _GETTERS.get((kind.group, kind.kind), {})


@lru_cache(maxsize=256)
def _custom_getters(paths: tuple[str, ...]) -> dict[str, Getter]:
    """Simple JSON paths (``.spec.color``), as ``selectableFields`` allows them."""
    return {path.lstrip("."): _text(*path.lstrip(".").split(".")) for path in paths}


def _text(*path: str) -> Getter:
    def get(obj: Object) -> str:
        value: Any = obj
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return _shown(value)

    return get


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _flag(*path: str) -> Getter:
    get = _text(*path)
    return lambda obj: get(obj) or "false"


def _number(*path: str) -> Getter:
    get = _text(*path)
    return lambda obj: get(obj) or "0"


def _event_source(obj: Object) -> str:
    source = (obj.get("source") or obj.get("deprecatedSource") or {}).get("component", "")
    return source or obj.get("reportingComponent") or obj.get("reportingController") or ""


def _event_controller(obj: Object) -> str:
    return obj.get("reportingComponent") or obj.get("reportingController") or ""


def _event_object(name: str) -> Getter:
    """One stored event is read by its names in v1 and in events.k8s.io."""

    def get(obj: Object) -> str:
        about = obj.get("involvedObject") or obj.get("regarding") or {}
        return about.get(name, "") or ""

    return get


_EVENT_OBJECT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT: dict[str, Getter] = {
    **{f"involvedObject.{name}": _event_object(name) for name in _EVENT_OBJECT},
    "reason": _text("reason"),
    "reportingComponent": _event_controller,
    "source": _event_source,
    "type": _text("type"),
}
_OLD_EVENT_NAMES = frozenset(name for name in _EVENT if "." in name) | {
    "reportingComponent",
    "source",
}
_EVENT_ALIASES = {f"regarding.{name}": f"involvedObject.{name}" for name in _EVENT_OBJECT} | {
    "reportingController": "reportingComponent"
}
_REPLICAS: dict[str, Getter] = {"status.replicas": _number("status", "replicas")}

_GETTERS: dict[tuple[str, str], dict[str, Getter]] = {
    ("", "Pod"): {
        "spec.nodeName": _text("spec", "nodeName"),
        "spec.restartPolicy": _text("spec", "restartPolicy"),
        "spec.schedulerName": _text("spec", "schedulerName"),
        "spec.serviceAccountName": _text("spec", "serviceAccountName"),
        "spec.hostNetwork": _flag("spec", "hostNetwork"),
        "status.phase": _text("status", "phase"),
        "status.podIP": _text("status", "podIP"),
        "status.nominatedNodeName": _text("status", "nominatedNodeName"),
    },
    ("", "Node"): {"spec.unschedulable": _flag("spec", "unschedulable")},
    ("", "Namespace"): {"status.phase": _text("status", "phase")},
    ("", "Secret"): {"type": _text("type")},
    ("", "Service"): {
        "spec.clusterIP": _text("spec", "clusterIP"),
        "spec.type": _text("spec", "type"),
    },
    ("", "ReplicationController"): _REPLICAS,
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("apps", "ReplicaSet"): _REPLICAS,
    ("batch", "Job"): {"status.successful": _number("status", "succeeded")},
    ("certificates.k8s.io", "CertificateSigningRequest"): {
        "spec.signerName": _text("spec", "signerName")
    },
    ("certificates.k8s.io", "ClusterTrustBundle"): {"spec.signerName": _text("spec", "signerName")},
    ("resource.k8s.io", "ResourceSlice"): {
        "spec.nodeName": _text("spec", "nodeName"),
        "spec.driver": _text("spec", "driver"),
    },
}
_ALIASES: dict[tuple[str, str], dict[str, str]] = {
    ("", "Pod"): {"spec.host": "spec.nodeName", "status.podIPs": "status.podIPs"},
    ("events.k8s.io", "Event"): _EVENT_ALIASES,
}
