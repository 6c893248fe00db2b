"""
The AdmissionReview: what is asked, and what an answer means. Pure.

Source: the API document of admission.k8s.io/v1; v1beta1 is spoken to webhooks that know
no better, and is the same but for what an answer must repeat.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.api.base import AdmissionRequest, User
from controlplane.api.scale import scale_of
from controlplane.client.base import Object
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind

_GROUP = "admission.k8s.io"
_SPOKEN = ("v1", "v1beta1")


class Unusable(Exception):
    """An answer that is none; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    allowed: bool
    status: Mapping[str, Any]
    patch: list[Any]  # operations of a JSON patch
    warnings: tuple[str, ...]


def version_of(settings: Mapping[str, Any]) -> str:
    """The first version of AdmissionReview that both sides know."""
    known = [v for v in settings.get("admissionReviewVersions") or () if v in _SPOKEN]
    if not known:
        raise Unusable("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
    return str(known[0])


def review(
    request: AdmissionRequest,
    kind: Kind,
    *,
    uid: str,
    version: str,
    obj: Object | None,
    old: Object | None,
) -> dict[str, Any]:
    """``obj`` and ``old``: those of the request, in the version of ``kind``."""
    asked = {
        "uid": uid,
        **described(request, kind, obj),
        "object": _shown(request, kind, obj),
        "oldObject": _shown(request, kind, old),
    }
    return {"kind": "AdmissionReview", "apiVersion": f"{_GROUP}/{version}", "request": asked}


def described(request: AdmissionRequest, kind: Kind, obj: Object | None) -> dict[str, Any]:
    """The request without its objects."""
    asked: dict[str, Any] = {
        "kind": _kind(request, kind, obj),
        "resource": _resource(kind),
        "subResource": request.subresource,
        "requestKind": _kind(request, request.kind, request.object),
        "requestResource": _resource(request.kind),
        "requestSubResource": request.subresource,
        "name": request.name,
        "namespace": _namespace(request),
        "operation": request.operation.value,
        "userInfo": _user(request.user),
        "dryRun": request.dry_run,
        "options": dict(request.options) or None,
    }
    for field in ("subResource", "requestSubResource", "name", "namespace"):
        if not asked[field]:
            del asked[field]
    return asked


def _namespace(request: AdmissionRequest) -> str:
    """A request for a Namespace is one within it."""
    if request.kind.kind == "Namespace" and not request.kind.group:
        return request.name
    return request.namespace


def _shown(request: AdmissionRequest, kind: Kind, obj: Object | None) -> Object | None:
    if obj is not None and request.subresource == "scale" and obj.get("kind") == kind.kind:
        return scale_of(kind, obj)
    return obj


def _kind(request: AdmissionRequest, kind: Kind, obj: Object | None) -> dict[str, str]:
    """Of the object, where the request brings another kind than the resource's: a Binding."""
    if request.subresource == "scale":
        return {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    if request.subresource and obj is not None and obj.get("kind", kind.kind) != kind.kind:
        group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
        return {"group": group, "version": version, "kind": obj["kind"]}
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _resource(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "resource": kind.plural}


def _user(user: User) -> dict[str, Any]:
    found: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra.items()}
    return found


def verdict(answer: Mapping[str, Any], *, uid: str, version: str, mutating: bool) -> Verdict:
    """Raises :class:`Unusable`."""
    response = answer.get("response")
    if not isinstance(response, Mapping):
        raise Unusable("webhook response was absent")
    if version == "v1":
        _check_v1(answer, response, uid, mutating=mutating)
    warnings = response.get("warnings") or ()
    return Verdict(
        allowed=bool(response.get("allowed")),
        status=response.get("status") or {},
        patch=_patch(response) if mutating else [],
        warnings=tuple(str(warning) for warning in warnings),
    )


def _check_v1(
    answer: Mapping[str, Any], response: Mapping[str, Any], uid: str, *, mutating: bool
) -> None:
    if response.get("uid") != uid:
        raise Unusable(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    named = f"{answer.get('apiVersion') or ''}, Kind={answer.get('kind') or ''}"
    if named != f"{_GROUP}/v1, Kind=AdmissionReview":
        raise Unusable(
            f"expected webhook response of {_GROUP}/v1, Kind=AdmissionReview, got {named}"
        )
    has_patch, has_type = bool(response.get("patch")), response.get("patchType") is not None
    if not mutating and (has_patch or has_type):
        field = "patch" if has_patch else "patchType"
        raise Unusable(f"validating webhook may not return response.{field}")
    if has_patch and not has_type:
        raise Unusable("webhook returned response.patch but not response.patchType")
    if has_type and not has_patch:
        raise Unusable("webhook returned response.patchType but not response.patch")
    if has_type and response["patchType"] != "JSONPatch":
        raise Unusable(f'unsupported patch type "{response["patchType"]}"')


def _patch(response: Mapping[str, Any]) -> list[Any]:
    text = response.get("patch")
    if not text:
        return []
    try:
        operations = orjson.loads(b64decode(text))
    except (Base64Error, TypeError, ValueError) as err:
        raise Unusable(f"received undecodable patch in webhook response: {err}") from err
    if not isinstance(operations, list):
        raise Unusable("received undecodable patch in webhook response: it is no list")
    return operations


def denial(name: str, status: Mapping[str, Any]) -> StatusError:
    """What the client gets: the webhook's own words, and that they are its."""
    text = f'admission webhook "{name}" denied the request'
    if status.get("message"):
        text = f"{text}: {status['message']}"
    elif status.get("reason"):
        text = f"{text}: {status['reason']}"
    else:
        text = f"{text} without explanation"
    code = status.get("code")
    code = code if isinstance(code, int) and 400 <= code < 600 else 400
    return StatusError(code, status.get("reason") or "", text, details=status.get("details"))
