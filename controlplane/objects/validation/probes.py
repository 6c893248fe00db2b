"""Probes and lifecycle hooks of containers."""

from controlplane.objects.errors import forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, names
from controlplane.objects.validation.checks import Found, Object, formed

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_COUNTS = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def of_container(container: Object, path: str) -> Found:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(name)) is not None:
            yield from _probe(probe, f"{path}.{name}", once=name != "readinessProbe")
    lifecycle = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if (hook := lifecycle.get(name)) is not None:
            yield from _handler(hook, _HOOKS, f"{path}.lifecycle.{name}")


def _probe(probe: Object, path: str, *, once: bool) -> Found:
    yield from _handler(probe, _HANDLERS, path)
    for name in _COUNTS:
        yield from checks.non_negative(probe.get(name), f"{path}.{name}")
    threshold = probe.get("successThreshold")
    if once and threshold not in (None, 1):
        yield invalid_value(f"{path}.successThreshold", threshold, "must be 1")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None:
        where = f"{path}.terminationGracePeriodSeconds"
        if once:
            yield from checks.positive(grace, where)
        else:
            yield invalid_value(where, grace, "must not be set for readinessProbes")


def _handler(given: Object, known: tuple[str, ...], path: str) -> Found:
    found = [name for name in known if given.get(name) is not None]
    if not found:
        yield required(path, "must specify a handler type")
    for name in found[1:]:
        yield forbidden_field(f"{path}.{name}", "may not specify more than 1 handler type")
    if found:
        yield from _action(found[0], given[found[0]], f"{path}.{found[0]}")


def _action(name: str, action: Object, path: str) -> Found:
    match name:
        case "exec":
            yield from checks.present(action.get("command"), f"{path}.command")
        case "httpGet":
            yield from checks.present(action.get("path"), f"{path}.path")
            yield from checks.port_or_name(action.get("port"), f"{path}.port")
            yield from checks.one_of(action.get("scheme"), ("HTTP", "HTTPS"), f"{path}.scheme")
            for header in action.get("httpHeaders") or ():
                where = f"{path}.httpHeaders"
                yield from formed(names.http_header, header.get("name") or "", where)
        case "tcpSocket":
            yield from checks.port_or_name(action.get("port"), f"{path}.port")
        case "grpc":
            yield from checks.port_or_name(action.get("port"), f"{path}.port")
        case _:
            yield from checks.non_negative(action.get("seconds"), f"{path}.seconds")
