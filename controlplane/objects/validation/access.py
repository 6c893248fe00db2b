"""Roles and bindings."""

from controlplane.objects.errors import invalid_value, not_supported, required
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import Found, Object, formed

_GROUP = "rbac.authorization.k8s.io"


def role(obj: Object) -> Found:
    for index, rule in enumerate(obj.get("rules") or ()):
        yield from _rule(rule, f"rules[{index}]", cluster=False)


def cluster_role(obj: Object) -> Found:
    for index, rule in enumerate(obj.get("rules") or ()):
        yield from _rule(rule, f"rules[{index}]", cluster=True)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return
    path = "aggregationRule.clusterRoleSelectors"
    chosen = aggregation.get("clusterRoleSelectors") or ()
    if not chosen:
        text = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        yield required(path, text)
    for index, selector in enumerate(chosen):
        yield from metadata.selector(selector, f"{path}[{index}]")


def _rule(rule: Object, path: str, *, cluster: bool) -> Found:
    if not rule.get("verbs"):
        yield required(f"{path}.verbs", "verbs must contain at least one value")
    if urls := rule.get("nonResourceURLs"):
        if not cluster:
            text = "namespaced rules cannot apply to non-resource URLs"
            yield invalid_value(f"{path}.nonResourceURLs", urls, text)
        if any(rule.get(name) for name in ("apiGroups", "resources", "resourceNames")):
            text = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid_value(f"{path}.nonResourceURLs", urls, text)
        return
    if not rule.get("apiGroups"):
        text = "resource rules must supply at least one api group"
        yield required(f"{path}.apiGroups", text)
    if not rule.get("resources"):
        text = "resource rules must supply at least one resource"
        yield required(f"{path}.resources", text)


def binding(obj: Object) -> Found:
    cluster = obj.get("kind") == "ClusterRoleBinding"
    reference = obj.get("roleRef") or {}
    if reference.get("apiGroup") != _GROUP:
        yield not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (_GROUP,))
    known = ("ClusterRole",) if cluster else ("Role", "ClusterRole")
    yield from checks.one_of(reference.get("kind"), known, "roleRef.kind")
    name = reference.get("name")
    yield from checks.required_form(names.path_segment, name, "roleRef.name")
    for index, subject in enumerate(obj.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{index}]", cluster=cluster)


def _subject(subject: Object, path: str, *, cluster: bool) -> Found:
    name, group = subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        yield required(f"{path}.name")
    match subject.get("kind"):
        case "ServiceAccount":
            if name:
                yield from formed(names.dns1123_subdomain, name, f"{path}.name")
            if group:
                yield not_supported(f"{path}.apiGroup", group, ("",))
            if cluster and not subject.get("namespace"):
                yield required(f"{path}.namespace")
        case "User" | "Group":
            if group != _GROUP:
                yield not_supported(f"{path}.apiGroup", group, (_GROUP,))
        case other:
            known = ("ServiceAccount", "User", "Group")
            yield not_supported(f"{path}.kind", other or "", known)


def binding_updated(new: Object, old: Object) -> Found:
    yield from binding(new)
    if new.get("roleRef") != old.get("roleRef"):
        yield invalid_value("roleRef", new.get("roleRef"), "cannot change roleRef")
