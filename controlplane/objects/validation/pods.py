"""Pods: the spec as a whole, templates, and what may change after a pod was created."""

import re
from collections.abc import Iterable
from typing import Any

from controlplane.objects.errors import forbidden_field, invalid_value, required
from controlplane.objects.meta import clone
from controlplane.objects.validation import checks, containers, metadata, names, scheduling, volumes
from controlplane.objects.validation.checks import Found, Object, formed

_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MOST_SEARCHES, _MOST_NAMESERVERS, _LONGEST_SEARCHES = 32, 3, 2048
_SYSCTL_LIMIT = 253
_SYSCTL = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"

_UPDATES = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def created(pod: Object) -> Found:
    spec = pod.get("spec") or {}
    yield from pod_spec(spec, "spec")
    if spec.get("ephemeralContainers"):
        yield forbidden_field("spec.ephemeralContainers", "cannot be set on create")


def template(given: Object | None, path: str) -> Found:
    """A pod template, wherever it is."""
    given = given or {}
    yield from metadata.common(given.get("metadata") or {}, f"{path}.metadata")
    spec = given.get("spec") or {}
    yield from pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        yield forbidden_field(f"{path}.spec.ephemeralContainers", text)


def pod_spec(spec: Object, path: str) -> Found:
    yield from volumes.volumes(spec.get("volumes") or (), f"{path}.volumes")
    pod = containers.Surroundings(
        volumes={v.get("name", ""): v for v in spec.get("volumes") or ()},
        host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy", "Always"),
    )
    yield from containers.containers(spec.get("containers") or (), pod, f"{path}.containers")
    yield from containers.init_containers(
        spec.get("initContainers") or (), pod, f"{path}.initContainers"
    )
    yield from containers.ephemeral_containers(
        spec.get("ephemeralContainers") or (), pod, f"{path}.ephemeralContainers"
    )
    yield from checks.one_of(spec.get("restartPolicy"), _RESTART, f"{path}.restartPolicy")
    yield from _dns(spec, path)
    yield from _security(spec, path)
    yield from _names(spec, path)
    yield from _times(spec, path)
    yield from scheduling.of_pod(spec, path)
    yield from _various(spec, path)


def _dns(spec: Object, path: str) -> Found:
    policy, config = spec.get("dnsPolicy"), spec.get("dnsConfig") or {}
    yield from checks.one_of(policy, _DNS, f"{path}.dnsPolicy")
    where = f"{path}.dnsConfig"
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if policy == "None" and not servers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{where}.nameservers", text)
    if len(servers) > _MOST_NAMESERVERS:
        text = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        yield invalid_value(f"{where}.nameservers", list(servers), text)
    for index, server in enumerate(servers):
        yield from checks.ip_address(server, f"{where}.nameservers[{index}]")
    if len(searches) > _MOST_SEARCHES:
        text = f"must not have more than {_MOST_SEARCHES} search paths"
        yield invalid_value(f"{where}.searches", list(searches), text)
    if len(" ".join(searches)) > _LONGEST_SEARCHES:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        yield invalid_value(f"{where}.searches", list(searches), text)
    for index, search in enumerate(searches):
        # A lone dot, and names that end with one, are good search paths.
        if search != ".":
            value = search.removesuffix(".")
            form = names.dns1123_subdomain_with_underscore
            yield from formed(form, value, f"{where}.searches[{index}]")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{where}.options[{index}]", "must not be empty")


def _security(spec: Object, path: str) -> Found:
    context, where = spec.get("securityContext") or {}, f"{path}.securityContext"
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if (value := context.get(name)) is not None:
            for complaint in names.user_id(value):
                yield invalid_value(f"{where}.{name}", value, complaint)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        for complaint in names.user_id(group):
            yield invalid_value(f"{where}.supplementalGroups[{index}]", group, complaint)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid_value(f"{path}.shareProcessNamespace", True, text)
    change = context.get("fsGroupChangePolicy")
    known = ("Always", "OnRootMismatch")
    yield from checks.optional_one_of(change, known, f"{where}.fsGroupChangePolicy")
    yield from _sysctls(context.get("sysctls") or (), f"{where}.sysctls")
    yield from containers.profile(context.get("seccompProfile"), f"{where}.seccompProfile")
    yield from containers.profile(context.get("appArmorProfile"), f"{where}.appArmorProfile")


def _sysctls(sysctls: Iterable[Object], path: str) -> Found:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        name = sysctl.get("name") or ""
        spot = f"{path}[{index}].name"
        if not name:
            yield required(spot)
        elif len(name) > _SYSCTL_LIMIT or not re.match(_SYSCTL, name):
            text = f"must have at most {_SYSCTL_LIMIT} characters and match regex {_SYSCTL}"
            yield invalid_value(spot, name, text)
        elif name in seen:
            yield from checks.unique([(spot, name), (spot, name)])
        seen.add(name)


_NAMED = {
    "serviceAccountName": names.dns1123_subdomain,
    "nodeName": names.dns1123_subdomain,
    "hostname": names.dns1123_label,
    "subdomain": names.dns1123_label,
    "runtimeClassName": names.dns1123_subdomain,
    "schedulerName": names.qualified_name,
    "priorityClassName": names.dns1123_subdomain,
}


def _names(spec: Object, path: str) -> Found:
    for field, form in _NAMED.items():
        if value := spec.get(field):
            yield from formed(form, value, f"{path}.{field}")
    if spec.get("setHostnameAsFQDN") and spec.get("hostnameOverride"):
        text = "must not be used with hostnameOverride"
        yield forbidden_field(f"{path}.setHostnameAsFQDN", text)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        where = f"{path}.hostAliases[{index}]"
        yield from checks.ip_address(alias.get("ip") or "", f"{where}.ip")
        for spot, host in enumerate(alias.get("hostnames") or ()):
            yield from formed(names.dns1123_subdomain, host, f"{where}.hostnames[{spot}]")
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        where = f"{path}.readinessGates[{index}].conditionType"
        yield from formed(names.qualified_name, gate.get("conditionType") or "", where)


def _times(spec: Object, path: str) -> Found:
    yield from checks.deadline(spec.get("activeDeadlineSeconds"), f"{path}.activeDeadlineSeconds")
    grace = spec.get("terminationGracePeriodSeconds")
    yield from checks.non_negative(grace, f"{path}.terminationGracePeriodSeconds")


def _various(spec: Object, path: str) -> Found:
    policy = spec.get("preemptionPolicy")
    known = ("Never", "PreemptLowerPriority")
    yield from checks.optional_one_of(policy, known, f"{path}.preemptionPolicy")
    for name, value in (spec.get("overhead") or {}).items():
        yield from checks.amount(value, f"{path}.overhead[{name}]")
    system = (spec.get("os") or {}).get("name")
    if spec.get("os") is not None:
        yield from checks.one_of(system, ("linux", "windows"), f"{path}.os.name")
    if (given := spec.get("resources")) is not None:
        yield from containers.resources(given, f"{path}.resources")


def updated(new: Object, old: Object) -> Found:
    """Images, the deadline, new tolerations; gates go, labels stay free."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    yield from _same_containers(after, before)
    yield from _deadline(after, before)
    yield from scheduling.tolerations(after.get("tolerations") or (), "spec.tolerations")
    for field in ("containers", "initContainers"):
        for index, container in enumerate(after.get(field) or ()):
            image = container.get("image") or ""
            yield from checks.present(image, f"spec.{field}[{index}].image")
    if _comparable(after, before) != _comparable(before, before):
        yield forbidden_field("spec", _UPDATES)


def _same_containers(after: Object, before: Object) -> Found:
    for field in ("containers", "initContainers"):
        if len(after.get(field) or ()) != len(before.get(field) or ()):
            text = "pod updates may not add or remove containers"
            yield forbidden_field(f"spec.{field}", text)


def _deadline(after: Object, before: Object) -> Found:
    new, old = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    path = "spec.activeDeadlineSeconds"
    yield from checks.deadline(new, path)
    if old is not None and new is None:
        yield invalid_value(path, None, "must not update from a positive integer to nil value")
    elif old is not None and new is not None and new > old:
        text = "must be less than or equal to previous value"
        yield invalid_value(path, new, text)


def _comparable(spec: Object, before: Object) -> dict[str, Any]:
    """The spec with everything that may change set to what it was before."""
    result = dict(spec)
    result.pop("activeDeadlineSeconds", None)
    for field in ("containers", "initContainers"):
        result[field] = [{**c, "image": ""} for c in spec.get(field) or ()]
    old = before.get("tolerations") or []
    new = spec.get("tolerations") or []
    # Tolerations may be added, and their seconds may change; none may go.
    if all(_tolerated(t) in map(_tolerated, new) for t in old):
        result["tolerations"] = old
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and (
        spec.get("terminationGracePeriodSeconds") == 1
    ):
        result["terminationGracePeriodSeconds"] = before.get("terminationGracePeriodSeconds")
    if _gates(spec) <= _gates(before):
        result.pop("schedulingGates", None)
        if _gates(before):
            _loosen_selection(result)
    return result


def _tolerated(toleration: Object) -> dict[str, Any]:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _gates(spec: Object) -> set[str]:
    return {gate.get("name", "") for gate in spec.get("schedulingGates") or ()}


def _loosen_selection(spec: dict[str, Any]) -> None:
    """While a pod waits at a gate, what selects its node may still be narrowed (KEP-3838)."""
    spec.pop("nodeSelector", None)
    if affinity := spec.get("affinity"):
        affinity = clone(affinity)
        affinity.pop("nodeAffinity", None)
        spec["affinity"] = affinity
        if not affinity:
            del spec["affinity"]


def ephemeral_containers_updated(new: Object, old: Object) -> Found:
    """The ``ephemeralcontainers`` subresource: containers may be added, never changed."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    listed = {c.get("name"): c for c in after.get("ephemeralContainers") or ()}
    path = "spec.ephemeralContainers"
    pod = containers.Surroundings(
        volumes={v.get("name", ""): v for v in after.get("volumes") or ()},
        names={
            c.get("name", "")
            for field in ("containers", "initContainers")
            for c in after.get(field) or ()
        },
    )
    yield from containers.ephemeral_containers(after.get("ephemeralContainers") or (), pod, path)
    for container in before.get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in listed:
            text = f'existing ephemeral containers "{name}" may not be removed\n'
            yield forbidden_field(path, text)
        elif listed[name] != container:
            text = f'existing ephemeral containers "{name}" may not be changed\n'
            yield forbidden_field(path, text)


_RESIZED = "only cpu and memory resources are mutable"


def resized(new: Object, old: Object) -> Found:
    """The ``resize`` subresource (KEP-1287): CPU and memory, within the same class."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for field in ("containers", "initContainers"):
        for index, container in enumerate(after.get(field) or ()):
            path = f"spec.{field}[{index}].resources"
            yield from containers.resources(container.get("resources") or {}, path)
    if _qos(after) != _qos(before):
        text = "Pod QOS Class may not change as a result of resizing"
        yield invalid_value("spec", _qos(after), text)
    if _without_amounts(after) != _without_amounts(before):
        yield forbidden_field("spec", _RESIZED)


def _without_amounts(spec: Object) -> dict[str, Any]:
    result: dict[str, Any] = clone(dict(spec))
    result.pop("resources", None)
    for field in ("containers", "initContainers"):
        for container in result.get(field) or ():
            container.pop("resizePolicy", None)
            given = container.get("resources") or {}
            container["resources"] = {
                kind: {k: v for k, v in amounts.items() if k not in ("cpu", "memory")}
                for kind in ("requests", "limits")
                if (amounts := given.get(kind) or {})
            }
            _drop_empty(container)
    return result


def _drop_empty(container: dict[str, Any]) -> None:
    left = {kind: amounts for kind, amounts in container["resources"].items() if amounts}
    container["resources"] = left


def _qos(spec: Object) -> str:
    """BestEffort asks for nothing, Guaranteed for all that it is limited to."""
    given = [
        container.get("resources") or {}
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
    ]
    wanted = [r for r in given if r.get("requests") or r.get("limits")]
    if not wanted:
        return "BestEffort"
    for one in given:
        limits, requests = one.get("limits") or {}, one.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                return "Burstable"
    return "Guaranteed"
