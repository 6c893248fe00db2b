"""Webhooks, admission policies and aggregated APIs: what extends the API server."""

import importlib
from collections.abc import Iterable
from typing import Any

from controlplane.objects.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import Found, Object, formed

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REVIEWS = ("v1", "v1beta1")
_ACTIONS = ("Audit", "Deny", "Warn")


def webhooks(obj: Object) -> Found:
    """Of both kinds."""
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = hook.get("name") or ""
        yield from _full_name(name, f"{path}.name")
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        yield from _hook(hook, path)


def _hook(hook: Object, path: str) -> Found:
    versions = hook.get("admissionReviewVersions") or ()
    if not versions:
        text = f"must specify one of {', '.join(_REVIEWS)}"
        yield required(f"{path}.admissionReviewVersions", text)
    elif not any(version in _REVIEWS for version in versions):
        text = f"must include at least one of {', '.join(_REVIEWS)}"
        yield invalid_value(f"{path}.admissionReviewVersions", list(versions), text)
    effects = hook.get("sideEffects")
    if effects is None:
        yield required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun")
    else:
        yield from checks.one_of(effects, ("None", "NoneOnDryRun"), f"{path}.sideEffects")
    for field, known in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
        ("reinvocationPolicy", ("IfNeeded", "Never")),
    ):
        yield from checks.optional_one_of(hook.get(field), known, f"{path}.{field}")
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        yield invalid_value(f"{path}.timeoutSeconds", seconds, text)
    for field in ("namespaceSelector", "objectSelector"):
        yield from metadata.selector(hook.get(field), f"{path}.{field}")
    if conditions := hook.get("matchConditions"):
        # Loaded for those alone who have conditions: expressions take memory.
        cel = importlib.import_module("controlplane.objects.cel.conditions")
        yield from cel.condition_errors(conditions, f"{path}.matchConditions")
    yield from client_config(hook.get("clientConfig") or {}, f"{path}.clientConfig")
    yield from _rules(hook.get("rules") or (), f"{path}.rules")


def _full_name(name: str, path: str) -> Found:
    if not name:
        yield required(path)
        return
    broken = list(formed(names.dns1123_subdomain, name, path))
    yield from broken
    if not broken and name.count(".") < 2:
        text = "should be a domain with at least three segments separated by dots"
        yield invalid_value(path, name, text)


def client_config(client: Object, path: str) -> Found:
    """Of an admission webhook or a conversion webhook."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    if url is not None and not url.startswith("https://"):
        scheme = url.partition("://")[0] if "://" in url else ""
        text = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
        yield invalid_value(f"{path}.url", scheme, text)
    if service is not None:
        yield from _service(service, f"{path}.service")


def _service(service: Object, path: str) -> Found:
    yield from checks.present(service.get("name"), f"{path}.name", "service name is required")
    namespace = service.get("namespace")
    yield from checks.present(namespace, f"{path}.namespace", "service namespace is required")
    if (port := service.get("port")) is not None:
        for complaint in names.port_number(port):
            text = f"port is not valid: {complaint}"
            yield invalid_value(f"{path}.port", port, text)


def _rules(rules: Iterable[Object], path: str) -> Found:
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        for field in ("operations", "apiGroups", "apiVersions", "resources"):
            yield from checks.present(rule.get(field), f"{where}.{field}")
        for spot, operation in enumerate(rule.get("operations") or ()):
            spotted = f"{where}.operations[{spot}]"
            yield from checks.one_of(operation, _OPERATIONS, spotted)
        for field in ("operations", "apiGroups", "apiVersions"):
            yield from _alone(rule.get(field) or (), f"{where}.{field}", field)
        scope = rule.get("scope")
        known = ("*", "Cluster", "Namespaced")
        yield from checks.optional_one_of(scope, known, f"{where}.scope")


_SPOKEN = {
    "operations": "operations",
    "apiGroups": "API groups",
    "apiVersions": "API versions",
}


def _alone(values: Iterable[str], path: str, field: str) -> Found:
    listed = list(values)
    if "*" in listed and len(listed) > 1:
        text = f"if '*' is present, must not specify other {_SPOKEN[field]}"
        yield invalid_value(path, listed, text)


def validating_policy(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        text = (
            "validations or auditAnnotations must be non-empty; "
            "at least one validation or auditAnnotation is required"
        )
        yield required("spec.validations", text)
    for index, rule in enumerate(spec.get("validations") or ()):
        expression = (rule.get("expression") or "").strip()
        text = "expression is not specified"
        yield from checks.present(expression, f"spec.validations[{index}].expression", text)
    yield from _policy(spec)


def mutating_policy(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    if not spec.get("mutations"):
        text = "mutations must contain at least one item"
        yield required("spec.mutations", text)
    yield from _policy(spec)


def _policy(spec: Object) -> Found:
    yield from importlib.import_module("controlplane.objects.cel.policies").expression_errors(spec)
    known = ("Fail", "Ignore")
    yield from checks.optional_one_of(spec.get("failurePolicy"), known, "spec.failurePolicy")
    constraints, path = spec.get("matchConstraints"), "spec.matchConstraints"
    if constraints is None:
        yield required(path)
        return
    yield from checks.present(constraints.get("resourceRules"), f"{path}.resourceRules")
    yield from _rules(constraints.get("resourceRules") or (), f"{path}.resourceRules")
    for field in ("namespaceSelector", "objectSelector"):
        yield from metadata.selector(constraints.get(field), f"{path}.{field}")


def policy_binding(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.required_form(
        names.dns1123_subdomain, spec.get("policyName"), "spec.policyName"
    )
    reference, path = spec.get("paramRef"), "spec.paramRef"
    if reference is not None:
        name, selector = reference.get("name"), reference.get("selector")
        if bool(name) == (selector is not None):
            yield forbidden_field(f"{path}.name", "name and selector are mutually exclusive")
        if not reference.get("parameterNotFoundAction"):
            yield required(f"{path}.parameterNotFoundAction")
    if obj.get("kind") == "MutatingAdmissionPolicyBinding":
        return
    actions = spec.get("validationActions") or ()
    if not actions:
        yield required("spec.validationActions")
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            yield not_supported(f"spec.validationActions[{index}]", action, _ACTIONS)
    if "Deny" in actions and "Warn" in actions:
        text = "must not contain both Deny and Warn (repeating the same validation failure"
        text += " information in the API response and headers serves no purpose)"
        yield invalid_value("spec.validationActions", list(actions), text)


def api_service(obj: Object) -> Found:
    spec: dict[str, Any] = dict(obj.get("spec") or {})
    name = (obj.get("metadata") or {}).get("name") or ""
    group, version = spec.get("group") or "", spec.get("version") or ""
    wanted = f"{version}.{group}"
    if name != wanted:
        text = f'must be `spec.version+"."+spec.group`: "{wanted}"'
        yield invalid_value("metadata.name", name, text)
    if group:
        yield from formed(names.dns1123_subdomain, group, "spec.group")
    yield from formed(names.dns1035_label, version, "spec.version")
    for field, limit in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(field) or 0
        if not 0 < value <= limit:
            text = f"must be positive and less than {limit}"
            yield invalid_value(f"spec.{field}", value, text)
    service, bundle = spec.get("service"), spec.get("caBundle")
    insecure = spec.get("insecureSkipTLSVerify")
    if service is None:
        if bundle:
            text = "local APIServices may not have a caBundle"
            yield invalid_value("spec.caBundle", f"{len(bundle)} bytes", text)
        if insecure:
            text = "local APIServices may not use insecureSkipTLSVerify"
            yield invalid_value("spec.insecureSkipTLSVerify", True, text)
        return
    yield from _service(service, "spec.service")
    if insecure and bundle:
        text = "may not be true if caBundle is present"
        yield invalid_value("spec.insecureSkipTLSVerify", True, text)
