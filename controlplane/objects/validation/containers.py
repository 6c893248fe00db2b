"""Containers of a pod: names, images, ports, environment, mounts, resources, probes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.objects import quantity
from controlplane.objects.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import checks, names, probes
from controlplane.objects.validation.checks import Found, Object, formed

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_ENV_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the rules of a container need to know of its pod."""

    volumes: Mapping[str, Object]
    host_network: bool = False
    restart_policy: str = "Always"
    names: set[str] = field(default_factory=set)
    host_ports: set[tuple[str, str, int]] = field(default_factory=set)


def containers(given: Iterable[Object], pod: Surroundings, path: str) -> Found:
    listed = list(given)
    if not listed:
        yield required(path)
    for index, container in enumerate(listed):
        where = f"{path}[{index}]"
        yield from _name(container, pod, where)
        yield from common(container, pod, where)
        yield from probes.of_container(container, where)
        if policy := container.get("restartPolicy"):
            yield from checks.one_of(
                policy, ("Always", "Never", "OnFailure"), f"{where}.restartPolicy"
            )


def init_containers(given: Iterable[Object], pod: Surroundings, path: str) -> Found:
    for index, container in enumerate(given):
        where = f"{path}[{index}]"
        yield from _name(container, pod, where)
        yield from common(container, pod, where)
        policy = container.get("restartPolicy")
        if policy == "Always":
            yield from probes.of_container(container, where)
            continue
        if policy:
            yield from checks.one_of(
                policy, ("Always", "Never", "OnFailure"), f"{where}.restartPolicy"
            )
        for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(name):
                text = "may not be set for init containers without restartPolicy=Always"
                yield forbidden_field(f"{where}.{name}", text)


def ephemeral_containers(given: Iterable[Object], pod: Surroundings, path: str) -> Found:
    for index, container in enumerate(given):
        where = f"{path}[{index}]"
        yield from _name(container, pod, where)
        yield from common(container, pod, where)
        target = container.get("targetContainerName")
        if target and target not in pod.names:
            yield checks.not_found(f"{where}.targetContainerName", target)
        for name in (
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
        ):
            if container.get(name):
                text = "cannot be set for an Ephemeral Container"
                yield forbidden_field(f"{where}.{name}", text)


def _name(container: Object, pod: Surroundings, path: str) -> Found:
    name = container.get("name")
    if not name:
        yield required(f"{path}.name")
    elif name in pod.names:
        yield duplicate(f"{path}.name", name)
    else:
        yield from formed(names.dns1123_label, name, f"{path}.name")
        pod.names.add(name)


def common(container: Object, pod: Surroundings, path: str) -> Found:
    """What containers of all three sorts have."""
    image = container.get("image") or ""
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        yield invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")
    yield from checks.optional_one_of(
        container.get("terminationMessagePolicy"),
        _MESSAGE_POLICIES,
        f"{path}.terminationMessagePolicy",
    )
    yield from checks.optional_one_of(
        container.get("imagePullPolicy"), _PULL_POLICIES, f"{path}.imagePullPolicy"
    )
    yield from _ports(container.get("ports") or (), pod, f"{path}.ports")
    yield from _env(container.get("env") or (), f"{path}.env")
    yield from _env_from(container.get("envFrom") or (), f"{path}.envFrom")
    yield from _mounts(container, pod, path)
    yield from resources(container.get("resources") or {}, f"{path}.resources")
    yield from _security(container.get("securityContext") or {}, f"{path}.securityContext")


def _ports(ports: Iterable[Object], pod: Surroundings, path: str) -> Found:
    seen: set[str] = set()
    for index, given in enumerate(ports):
        where = f"{path}[{index}]"
        if name := given.get("name"):
            yield from formed(names.port_name, name, f"{where}.name")
            if name in seen:
                yield duplicate(f"{where}.name", name)
            seen.add(name)
        number, host = given.get("containerPort") or 0, given.get("hostPort") or 0
        if not number:
            yield required(f"{where}.containerPort")
        else:
            yield from checks.port(number, f"{where}.containerPort")
        yield from checks.one_of(given.get("protocol"), _PROTOCOLS, f"{where}.protocol")
        if host:
            yield from _host_port(given, pod, where)


def _host_port(given: Object, pod: Surroundings, path: str) -> Found:
    host = given["hostPort"]
    yield from checks.port(host, f"{path}.hostPort")
    if pod.host_network and host != given.get("containerPort"):
        text = "must match `containerPort` when `hostNetwork` is true"
        yield invalid_value(f"{path}.hostPort", host, text)
    key = (given.get("protocol", "TCP"), given.get("hostIP", ""), host)
    if key in pod.host_ports:
        yield duplicate(f"{path}.hostPort", f"{key[0]}/{key[1]}/{host}")
    pod.host_ports.add(key)


def _env(variables: Iterable[Object], path: str) -> Found:
    for index, variable in enumerate(variables):
        where = f"{path}[{index}]"
        yield from checks.required_form(names.env_name, variable.get("name"), f"{where}.name")
        if (source := variable.get("valueFrom")) is not None:
            yield from _env_source(variable, source, f"{where}.valueFrom")


_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def _env_source(variable: Object, source: Object, path: str) -> Found:
    given = [name for name in _ENV_SOURCES if source.get(name)]
    if not given:
        text = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
            "`secretKeyRef` or `fileKeyRef`"
        )
        yield invalid_value(path, "", text)
    elif variable.get("value"):
        yield invalid_value(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid_value(path, "", "may not have more than one field specified at a time")
    if reference := source.get("fieldRef"):
        yield from _field_ref(reference, f"{path}.fieldRef")
    if reference := source.get("resourceFieldRef"):
        yield from checks.present(reference.get("resource"), f"{path}.resourceFieldRef.resource")
    for name in ("configMapKeyRef", "secretKeyRef"):
        if reference := source.get(name):
            yield from checks.present(reference.get("name"), f"{path}.{name}.name")
            key = reference.get("key")
            yield from checks.required_form(names.config_key, key, f"{path}.{name}.key")


def _field_ref(reference: Object, path: str) -> Found:
    field_path = reference.get("fieldPath") or ""
    if not reference.get("apiVersion"):
        yield required(f"{path}.apiVersion")
    elif not field_path:
        yield required(f"{path}.fieldPath")
    elif field_path.startswith(("metadata.annotations['", "metadata.labels['")):
        key = field_path.partition("['")[2].removesuffix("']")
        yield from formed(names.qualified_name, key.lower(), path)
    elif field_path not in _ENV_FIELDS:
        text = f"error converting fieldPath: field label not supported: {field_path}"
        yield invalid_value(f"{path}.fieldPath", field_path, text)


def _env_from(sources: Iterable[Object], path: str) -> Found:
    for index, source in enumerate(sources):
        where = f"{path}[{index}]"
        if prefix := source.get("prefix"):
            yield from formed(names.env_name, prefix, f"{where}.prefix")
        given = [name for name in ("configMapRef", "secretRef") if source.get(name)]
        if not given:
            yield invalid_value(where, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            text = "may not have more than one field specified at a time"
            yield invalid_value(where, "", text)
        for name in given:
            yield from checks.required_form(
                names.dns1123_subdomain, source[name].get("name"), f"{where}.{name}.name"
            )


def _mounts(container: Object, pod: Surroundings, path: str) -> Found:
    seen: set[str] = set()
    devices = {d.get("devicePath") for d in container.get("volumeDevices") or ()}
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        name, target = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield required(f"{where}.name")
        elif name not in pod.volumes:
            yield checks.not_found(f"{where}.name", name)
        if not target:
            yield required(f"{where}.mountPath")
        elif target in seen:
            yield invalid_value(f"{where}.mountPath", target, "must be unique")
        elif target in devices:
            text = "must not already exist in volumeDevices"
            yield invalid_value(f"{where}.mountPath", target, text)
        seen.add(target)
        yield from _sub_paths(mount, where)
    for index, device in enumerate(container.get("volumeDevices") or ()):
        where = f"{path}.volumeDevices[{index}]"
        name = device.get("name") or ""
        yield from checks.present(name, f"{where}.name")
        if name and name not in pod.volumes:
            yield checks.not_found(f"{where}.name", name)
        yield from checks.present(device.get("devicePath"), f"{where}.devicePath")


def _sub_paths(mount: Object, path: str) -> Found:
    sub, expression = mount.get("subPath"), mount.get("subPathExpr")
    if sub:
        yield from descending_path(sub, f"{path}.subPath")
    if expression:
        if sub:
            text = "subPathExpr and subPath are mutually exclusive"
            yield invalid_value(f"{path}.subPathExpr", expression, text)
        yield from descending_path(expression, f"{path}.subPathExpr")
    propagation = mount.get("mountPropagation")
    known = ("Bidirectional", "HostToContainer", "None")
    yield from checks.optional_one_of(propagation, known, f"{path}.mountPropagation")


def descending_path(value: str, path: str) -> Found:
    """A path below where it starts."""
    if value.startswith("/"):
        yield invalid_value(path, value, "must be a relative path")
    if ".." in value.split("/"):
        yield invalid_value(path, value, "must not contain '..'")


def resources(given: Object, path: str) -> Found:
    limits, requests = given.get("limits") or {}, given.get("requests") or {}
    for name, value in limits.items():
        yield from _resource(name, value, f"{path}.limits")
    for name, value in requests.items():
        yield from _resource(name, value, f"{path}.requests")
        limit = limits.get(name)
        if limit is None or not (quantity.is_quantity(value) and quantity.is_quantity(limit)):
            continue
        exact = not _is_overcommittable(name)
        if exact and quantity.compare(value, limit) != 0:
            text = f"must be equal to {name} limit of {quantity.canonical(limit)}"
            yield invalid_value(f"{path}.requests", quantity.canonical(value), text)
        elif quantity.compare(value, limit) > 0:
            text = f"must be less than or equal to {name} limit of {quantity.canonical(limit)}"
            yield invalid_value(f"{path}.requests", quantity.canonical(value), text)
    for name in requests:
        if not _is_overcommittable(name) and name not in limits:
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _is_overcommittable(name: str) -> bool:
    return name in _RESOURCES or name.startswith("requests.")


def _resource(name: str, value: Any, path: str) -> Found:
    where = f"{path}[{name}]"
    yield from formed(names.qualified_name, name, where)
    if "/" not in name and name not in _RESOURCES and not name.startswith("hugepages-"):
        yield invalid_value(where, name, "must be a standard resource for containers")
    yield from checks.amount(value, where)
    is_extended = "/" in name and not name.startswith("kubernetes.io/")
    if is_extended and quantity.is_quantity(value) and quantity.nanos(value) % 10**9:
        yield invalid_value(where, quantity.canonical(value), "must be an integer")


def _security(context: Object, path: str) -> Found:
    for name in ("runAsUser", "runAsGroup"):
        if (value := context.get(name)) is not None:
            for complaint in names.user_id(value):
                yield invalid_value(f"{path}.{name}", value, complaint)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid_value(path, dict(context), text)
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            text = (
                "cannot set `allowPrivilegeEscalation` to false and "
                "`capabilities.Add` CAP_SYS_ADMIN"
            )
            yield invalid_value(path, dict(context), text)
    if mount := context.get("procMount"):
        yield from checks.one_of(mount, ("Default", "Unmasked"), f"{path}.procMount")
    yield from profile(context.get("seccompProfile"), f"{path}.seccompProfile")
    yield from profile(context.get("appArmorProfile"), f"{path}.appArmorProfile")


def profile(given: Object | None, path: str) -> Found:
    """A seccomp or an AppArmor profile."""
    if given is None:
        return
    kind, local = given.get("type"), given.get("localhostProfile")
    if kind not in ("Localhost", "RuntimeDefault", "Unconfined"):
        known = ("Localhost", "RuntimeDefault", "Unconfined")
        yield not_supported(f"{path}.type", kind or "", known)
    if kind == "Localhost" and not local:
        text = "must be set when seccomp type is Localhost"
        yield required(f"{path}.localhostProfile", text)
    if kind != "Localhost" and local:
        text = "can only be set when seccomp type is Localhost"
        yield invalid_value(f"{path}.localhostProfile", local, text)
