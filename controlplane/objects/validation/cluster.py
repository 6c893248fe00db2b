"""Kinds of the cluster itself: namespaces, nodes, events, leases, classes, certificates."""

from controlplane.objects.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import checks, metadata, names, scheduling
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object, formed

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_HIGHEST_USER_PRIORITY = 1_000_000_000
_SYSTEM_PRIORITIES = {
    "system-node-critical": 2_000_001_000,
    "system-cluster-critical": 2_000_000_000,
}
_USAGES = frozenset(
    {
        "signing",
        "digital signature",
        "content commitment",
        "key encipherment",
        "key agreement",
        "data encipherment",
        "cert sign",
        "crl sign",
        "encipher only",
        "decipher only",
        "any",
        "server auth",
        "client auth",
        "code signing",
        "email protection",
        "s/mime",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "timestamping",
        "ocsp signing",
        "microsoft sgc",
        "netscape sgc",
    }
)


def namespace(obj: Object) -> Found:
    for index, name in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
        yield from formed(names.qualified_name, name, f"spec.finalizers[{index}]")


def node(obj: Object) -> Found:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        path = f"spec.taints[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        yield from formed(names.qualified_name, key, f"{path}.key")
        for complaint in names.label_value(taint.get("value") or ""):
            yield invalid_value(f"{path}.value", taint.get("value"), complaint)
        if effect:
            yield from checks.one_of(effect, _EFFECTS, f"{path}.effect")
        else:
            yield required(f"{path}.effect")
        if (key, effect) in seen:
            yield duplicate(path, dict(taint))
        seen.add((key, effect))
    for index, block in enumerate(spec.get("podCIDRs") or ()):
        yield from checks.cidr(block, f"spec.podCIDRs[{index}]")
    for field in ("capacity", "allocatable"):
        for name, value in (status.get(field) or {}).items():
            yield from checks.amount(value, f"status.{field}.{name}")


_NODE_FIXED = (
    "node updates may only change labels, taints, or capacity "
    "(or configSource, if the DynamicKubeletConfig feature gate is enabled)"
)
_NODE_FREE = ("unschedulable", "taints", "configSource")


def node_updated(new: Object, old: Object) -> Found:
    yield from node(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    # A provider and pod networks may be assigned once.
    for field in ("providerID", "podCIDR", "podCIDRs"):
        if before.get(field) and after.get(field) != before.get(field):
            text = "node updates may not change " + field + ' except from "" to valid'
            yield forbidden_field(f"spec.{field}", text)
    once = ("providerID", "podCIDR", "podCIDRs", *_NODE_FREE)
    if _rest(after, once) != _rest(before, once):
        yield forbidden_field("spec", _NODE_FIXED)


def _rest(spec: Object, skipped: tuple[str, ...]) -> dict[str, object]:
    return {key: value for key, value in spec.items() if key not in skipped}


def event(obj: Object) -> Found:
    """Of either group; what both share."""
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    field = "regarding" if "regarding" in obj else "involvedObject"
    own = (obj.get("metadata") or {}).get("namespace") or ""
    namespace_ = about.get("namespace") or ""
    if not namespace_:
        if own not in ("", "default", "kube-system"):
            text = "does not match event.namespace"
            yield invalid_value(f"{field}.namespace", namespace_, text)
    elif own != namespace_:
        text = "does not match event.namespace"
        yield invalid_value(f"{field}.namespace", namespace_, text)
    if "regarding" in obj or obj.get("eventTime"):
        yield from _new_event(obj)


def _new_event(obj: Object) -> Found:
    controller = obj.get("reportingController") or obj.get("reportingComponent") or ""
    if not obj.get("eventTime"):
        yield required("eventTime")
        return
    if controller:
        yield from formed(names.qualified_name, controller, "reportingController")
    else:
        yield required("reportingController")
    for name, limit in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
        value = obj.get(name) or ""
        if not value:
            yield required(name)
        elif len(value) > limit:
            yield invalid_value(name, "", f"can have at most {limit} characters")
    if len(obj.get("note") or obj.get("message") or "") > 1024:
        yield invalid_value("message", "", "can have at most 1024 characters")
    if obj.get("type") not in ("Normal", "Warning"):
        yield invalid_value("type", "", "has invalid value: " + str(obj.get("type") or ""))


def lease(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.positive(spec.get("leaseDurationSeconds"), "spec.leaseDurationSeconds")
    yield from checks.non_negative(spec.get("leaseTransitions"), "spec.leaseTransitions")


def priority_class(obj: Object) -> Found:
    name = (obj.get("metadata") or {}).get("name") or ""
    value = obj.get("value") or 0
    if name.startswith("system-"):
        if _SYSTEM_PRIORITIES.get(name) != value:
            text = (
                "priority class names with 'system-' prefix are reserved for system use only. "
                "error: " + f"{name} is not a known system priority class"
            )
            yield forbidden_field("metadata.name", text)
    elif value > _HIGHEST_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        yield forbidden_field("value", text)
    known = ("Never", "PreemptLowerPriority")
    yield from checks.optional_one_of(obj.get("preemptionPolicy"), known, "preemptionPolicy")


def priority_class_updated(new: Object, old: Object) -> Found:
    if (new.get("value") or 0) != (old.get("value") or 0):
        yield forbidden_field("value", "may not be changed in an update.")
    if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
        yield invalid_value("preemptionPolicy", new.get("preemptionPolicy"), IMMUTABLE)


def runtime_class(obj: Object) -> Found:
    handler = obj.get("handler") or ""
    yield from formed(names.dns1123_label, handler, "handler")
    for name, value in ((obj.get("overhead") or {}).get("podFixed") or {}).items():
        yield from checks.amount(value, f"overhead.podFixed[{name}]")
    rules = obj.get("scheduling") or {}
    yield from metadata.labels(rules.get("nodeSelector"), "scheduling.nodeSelector")
    yield from scheduling.tolerations(rules.get("tolerations") or (), "scheduling.tolerations")


def runtime_class_updated(new: Object, old: Object) -> Found:
    yield from runtime_class(new)
    if new.get("handler") != old.get("handler"):
        yield invalid_value("handler", new.get("handler"), IMMUTABLE)


def signing_request(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.present(spec.get("request"), "spec.request")
    usages = spec.get("usages") or ()
    if not usages:
        yield required("spec.usages")
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            yield not_supported(f"spec.usages[{index}]", usage, sorted(_USAGES))
    signer = spec.get("signerName") or ""
    host, slash, rest = signer.partition("/")
    if not signer:
        yield required("spec.signerName")
    elif not slash or not rest or names.dns1123_subdomain(host):
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield invalid_value("spec.signerName", signer, text)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        yield invalid_value("spec.expirationSeconds", seconds, text)


def signing_request_updated(new: Object, old: Object) -> Found:
    if new.get("spec") != old.get("spec"):
        yield invalid_value("spec", new.get("spec"), IMMUTABLE)


def signing_request_decided(new: Object, old: Object) -> Found:
    """Of the status and approval subresources."""
    had, has = (
        {c.get("type") for c in (obj.get("status") or {}).get("conditions") or ()}
        for obj in (old, new)
    )
    if {"Approved", "Denied"} <= has:
        text = "Approved and Denied conditions are mutually exclusive"
        yield invalid_value("status.conditions", "Denied", text)
    for kind in ("Approved", "Denied", "Failed"):
        if kind in had - has:
            text = f'updates may not remove a condition of type "{kind}"'
            yield forbidden_field("status.conditions", text)
