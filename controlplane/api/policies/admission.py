"""
The plugins MutatingAdmissionPolicy and ValidatingAdmissionPolicy.

Expressions are loaded with the first policy. A policy that has no verdict (an expression
fails, parameters are missing) refuses, unless its ``failurePolicy`` is Ignore.
"""

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api import pipeline
from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.admission.versions import seen, take, versions_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.api.call import Parts
from controlplane.api.policies.matching import Bound, ParameterError, bound, parameters
from controlplane.api.webhooks.asking import asker
from controlplane.api.webhooks.review import described
from controlplane.client.base import Object
from controlplane.objects import patch, strategic
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind, Resource
from controlplane.objects.resources import (
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    NAMESPACES,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)

LOG = logging.getLogger(__name__)
_EXEMPT = "admissionregistration.k8s.io"
_CEL = "controlplane.objects.cel.policies"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


class _Failed(Exception):
    """No verdict; whether that refuses the request is the policy's failure policy."""


@dataclass(frozen=True, slots=True)
class _Finding:
    one: Bound
    message: str
    reason: str


class _Policies(Plugin):
    """What both kinds share."""

    policies: Resource
    bindings: Resource

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts

    def _bound(self, request: AdmissionRequest) -> Sequence[Bound]:
        found = request.reads.list(self.policies)
        if not found or request.kind.group == _EXEMPT:
            return ()
        versions = versions_of(self._parts(), request.kind)
        return bound(found, request.reads.list(self.bindings), request, versions)

    async def _scopes(self, one: Bound, request: AdmissionRequest) -> list[Any]:
        """One for each of the parameters; raises :class:`_Failed`."""
        cel = importlib.import_module(_CEL)
        spec = one.policy.get("spec") or {}
        try:
            found = parameters(one, request, self._parts().kinds)
        except ParameterError as err:
            raise _Failed(f"failed to configure binding: {err}") from err
        obj, old = await seen(self._parts(), request, one.kind)
        values = {
            "object": obj,
            "oldObject": old,
            "request": described(request, one.kind, obj),
            "namespaceObject": self._namespace(request),
            "authorizer": asker(self._parts().authorizer, request),
        }
        scopes = [cel.Scope(spec, {**values, "params": params}) for params in found]
        try:
            return [scope for scope in scopes if scope.meets()]
        except cel.ConditionError as err:
            raise _Failed(str(err)) from err

    def _namespace(self, request: AdmissionRequest) -> Object | None:
        if not request.kind.namespaced:
            return None
        return request.reads.get(NAMESPACES, "", request.namespace)


def _ignores(one: Bound) -> bool:
    return (one.policy.get("spec") or {}).get("failurePolicy") == "Ignore"


class ValidatingPolicies(_Policies):
    name = "ValidatingAdmissionPolicy"
    policies = VALIDATING_ADMISSION_POLICIES
    bindings = VALIDATING_ADMISSION_POLICY_BINDINGS

    async def validate(self, request: AdmissionRequest) -> None:
        refusals = []
        for one in self._bound(request):
            actions = (one.binding.get("spec") or {}).get("validationActions") or ()
            for finding in await self._findings(one, request):
                head = f"alidation failed for ValidatingAdmissionPolicy '{one.name}' with binding"
                told = f"{head} '{one.binding['metadata']['name']}': {finding.message}"
                if "Warn" in actions:
                    request.warnings.append(f"V{told}")
                if "Audit" in actions:
                    LOG.info("v%s", told)
                if "Deny" in actions:
                    refusals.append(finding)
        if refusals:
            raise _refusal(request, refusals[0])

    async def _findings(self, one: Bound, request: AdmissionRequest) -> list[_Finding]:
        try:
            return [
                finding
                for scope in await self._scopes(one, request)
                for finding in self._judged(one, scope)
            ]
        except _Failed as err:
            return [] if _ignores(one) else [_Finding(one, str(err), "")]

    def _judged(self, one: Bound, scope: Any) -> Iterator[_Finding]:
        cel = importlib.import_module(_CEL)
        for rule in (one.policy.get("spec") or {}).get("validations") or ():
            text = rule["expression"]
            try:
                good = scope.value(text)
            except cel.CelError as err:
                if not _ignores(one):
                    yield _Finding(one, f"expression '{text}' resulted in error: {err}", "")
                continue
            if good is not True:
                yield _Finding(one, _message(rule, scope, cel), rule.get("reason") or "")


def _message(rule: Mapping[str, Any], scope: Any, cel: Any) -> str:
    if text := rule.get("messageExpression"):
        try:
            said = scope.value(text)
        except cel.CelError as err:
            LOG.info("messageExpression %s: %s", text, err)
            said = None
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said.strip()
    message = (rule.get("message") or "").strip()
    return message or f"failed expression: {rule['expression'].strip()}"


def _refusal(request: AdmissionRequest, finding: _Finding) -> StatusError:
    one = finding.one
    binding = one.binding["metadata"]["name"]
    kind = one.policy.get("kind") or "ValidatingAdmissionPolicy"
    text = f"{kind} '{one.name}' with binding '{binding}' denied request: {finding.message}"
    plain = refused(request, text)
    reason = finding.reason or "Invalid"
    details = {**(plain.details or {}), "causes": [{"message": text}]}
    return StatusError(_CODES.get(reason, 422), reason, plain.message, details=details)


class MutatingPolicies(_Policies):
    name = "MutatingAdmissionPolicy"
    policies = MUTATING_ADMISSION_POLICIES
    bindings = MUTATING_ADMISSION_POLICY_BINDINGS

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.object is None or request.operation is Operation.CONNECT:
            return
        if request.subresource not in ("", "status", "ephemeralcontainers"):
            return
        for one in self._bound(request):
            spec = one.policy.get("spec") or {}
            if request.again is not None and spec.get("reinvocationPolicy") != "IfNeeded":
                continue
            try:
                for scope in await self._scopes(one, request):
                    for mutation in spec.get("mutations") or ():
                        await self._apply(one, scope, mutation, request)
            except _Failed as err:
                if not _ignores(one):
                    raise _refusal(request, _Finding(one, str(err), "")) from err

    async def _apply(
        self, one: Bound, scope: Any, mutation: Mapping[str, Any], request: AdmissionRequest
    ) -> None:
        cel = importlib.import_module(_CEL)
        field = "jsonPatch" if mutation.get("patchType") == "JSONPatch" else "applyConfiguration"
        text = (mutation.get(field) or {}).get("expression") or ""
        obj, _ = await seen(self._parts(), request, one.kind)
        try:
            change = cel.plain(scope.value(text))
            new = self._changed(one.kind, pipeline.copy(obj or {}), change)
            await take(self._parts(), request, one.kind, new)
        except (cel.CelError, StatusError) as err:
            raise _Failed(f"expression '{text}' resulted in error: {err}") from err

    def _changed(self, kind: Kind, obj: dict[str, Any], change: Any) -> dict[str, Any]:
        if isinstance(change, list):
            changed: dict[str, Any] = patch.json_patch(obj, change)
            return changed
        if not isinstance(change, dict) or {"apiVersion", "kind"} & change.keys():
            raise StatusError(422, "Invalid", "must be an Object without apiVersion and kind")
        if kind.custom:
            merged: dict[str, Any] = patch.merge_patch(obj, change)
            return merged
        return strategic.strategic_patch(obj, change, self._parts().schemas.of(kind))
