"""
What the baseline level of the Pod Security Standards forbids: known ways to the node.

Each check looks at a pod's metadata and spec and says what is wrong, or nothing.
"""

from collections.abc import Iterator, Sequence

from controlplane.api.admission.pod_security_reading import (
    Check,
    Object,
    Violation,
    containers,
    named,
    plural,
    quoted,
    security,
    who_sets,
)
from controlplane.objects import meta

_APPARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"


def app_armor(holder: Object, spec: Object) -> Violation | None:
    values: set[str] = set()

    def is_bad(security: Object) -> bool:
        profile = security.get("appArmorProfile")
        if profile is None or profile.get("type") in {"RuntimeDefault", "Localhost"}:
            return False
        values.add(profile.get("type", ""))
        return True

    setters = who_sets(spec, is_bad)
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in meta.annotations(holder).items()
        if key.startswith(_APPARMOR_PREFIX)
        and value not in {"", "runtime/default"}
        and not value.startswith("localhost/")
    )
    listed = [*sorted(values), *annotations]
    if annotations:
        setters.append(plural("annotation", annotations))
    if not setters:
        return None
    return Violation(
        plural("forbidden AppArmor profile", listed),
        f"{' and '.join(setters)} must not set AppArmor profile type to {quoted(listed)}",
    )


_CAPABILITIES = frozenset(
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID "
    "SETPCAP SETUID SYS_CHROOT".split()
)


def _added(container: Object) -> Sequence[str]:
    return (security(container).get("capabilities") or {}).get("add") or ()


def adds_beyond(spec: Object, allowed: frozenset[str]) -> str:
    """Which containers add which other capabilities; "": none."""
    bad = [c.get("name", "") for c in containers(spec) if set(_added(c)) - allowed]
    if not bad:
        return ""
    forbidden = sorted({cap for c in containers(spec) for cap in _added(c)} - allowed)
    return f"{named(bad)} must not include {quoted(forbidden)} in securityContext.capabilities.add"


def capabilities_baseline(_holder: Object, spec: Object) -> Violation | None:
    detail = adds_beyond(spec, _CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def host_namespaces(_holder: Object, spec: Object) -> Violation | None:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Violation("host namespaces", ", ".join(used)) if used else None


def host_path_volumes(_holder: Object, spec: Object) -> Violation | None:
    bad = [v.get("name", "") for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    if not bad:
        return None
    return Violation("hostPath volumes", f"{plural('volume', bad)} {quoted(bad)}")


def _uses(bad: Sequence[str]) -> str:
    return f"{named(bad)} {'uses' if len(bad) == 1 else 'use'}"


def host_ports(_holder: Object, spec: Object) -> Violation | None:
    bad: list[str] = []
    ports: set[str] = set()
    for container in containers(spec):
        used = [str(p["hostPort"]) for p in container.get("ports") or () if p.get("hostPort")]
        if used:
            bad.append(container.get("name", ""))
            ports.update(used)
    if not bad:
        return None
    return Violation(
        "hostPort", f"{_uses(bad)} {plural('hostPort', ports)} {', '.join(sorted(ports))}"
    )


def _handlers(container: Object) -> Iterator[Object]:
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield container.get(probe) or {}
    lifecycle = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        yield lifecycle.get(hook) or {}


def probe_hosts(_holder: Object, spec: Object) -> Violation | None:
    bad: set[str] = set()
    hosts: set[str] = set()
    for container in containers(spec):
        for handler in _handlers(container):
            for action in ("httpGet", "tcpSocket"):
                host = (handler.get(action) or {}).get("host")
                if host:
                    bad.add(container.get("name", ""))
                    hosts.add(host)
    if not bad:
        return None
    what = plural("probe or lifecycle host", hosts)
    return Violation(
        "probe or lifecycle host", f"{_uses(sorted(bad))} {what} {quoted(sorted(hosts))}"
    )


def privileged(_holder: Object, spec: Object) -> Violation | None:
    bad = [c.get("name", "") for c in containers(spec) if security(c).get("privileged")]
    if not bad:
        return None
    return Violation("privileged", f"{named(bad)} must not set securityContext.privileged=true")


def proc_mount(_holder: Object, spec: Object) -> Violation | None:
    mounts = {
        c.get("name", ""): mount
        for c in containers(spec)
        if (mount := security(c).get("procMount")) not in {None, "Default"}
    }
    if not mounts:
        return None
    kinds = sorted(set(mounts.values()))
    detail = f"{named(list(mounts))} must not set securityContext.procMount to {quoted(kinds)}"
    return Violation("procMount", detail)


SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})


def selinux(types: frozenset[str]) -> Check:
    def check(_holder: Object, spec: Object) -> Violation | None:
        bad_types: set[str] = set()
        named: dict[str, bool] = {}

        def is_bad(security: Object) -> bool:
            options = security.get("seLinuxOptions")
            if options is None:
                return False
            wrong = (options.get("type") or "") not in types
            if wrong:
                bad_types.add(options["type"])
            for field in ("user", "role"):
                if options.get(field):
                    named[field] = wrong = True
            return wrong

        setters = who_sets(spec, is_bad)
        if not setters:
            return None
        data = []
        if bad_types:
            data.append(f"{plural('type', bad_types)} {quoted(sorted(bad_types))}")
        data += [f"{field} may not be set" for field in ("user", "role") if field in named]
        setting = f"{' and '.join(setters)} set forbidden securityContext.seLinuxOptions"
        return Violation("seLinuxOptions", f"{setting}: {'; '.join(data)}")

    return check


_SECCOMP_TYPES = frozenset({"RuntimeDefault", "Localhost"})
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def seccomp_annotations(holder: Object, spec: Object) -> Violation | None:
    annotations = meta.annotations(holder)
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{c.get('name', '')}" for c in containers(spec))]
    bad = sorted(
        {
            f'{key}="{annotations[key]}"'
            for key in keys
            if key in annotations
            and annotations[key] not in {"runtime/default", "docker/default"}
            and not annotations[key].startswith("localhost/")
        }
    )
    if not bad:
        return None
    return Violation("seccompProfile", f"forbidden {plural('annotation', bad)} {', '.join(bad)}")


def seccomp_baseline(_holder: Object, spec: Object) -> Violation | None:
    values: set[str] = set()

    def is_bad(security: Object) -> bool:
        profile = security.get("seccompProfile")
        if profile is None or profile.get("type") in _SECCOMP_TYPES:
            return False
        values.add(profile.get("type", ""))
        return True

    setters = who_sets(spec, is_bad)
    if not setters:
        return None
    return Violation(
        "seccompProfile",
        f"{' and '.join(setters)} must not set securityContext.seccompProfile.type to "
        f"{quoted(sorted(values))}",
    )


SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    }
)
SYSCTLS_27 = SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
SYSCTLS_29 = SYSCTLS_27 | {
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
}
SYSCTLS_32 = SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def sysctls(allowed: frozenset[str]) -> Check:
    def check(_holder: Object, spec: Object) -> Violation | None:
        names = [s.get("name", "") for s in security(spec).get("sysctls") or ()]
        bad = [name for name in names if name not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def host_process(_holder: Object, spec: Object) -> Violation | None:
    setters = who_sets(spec, lambda s: bool((s.get("windowsOptions") or {}).get("hostProcess")))
    if not setters:
        return None
    setting = f"{' and '.join(setters)} must not set securityContext"
    return Violation("hostProcess", f"{setting}.windowsOptions.hostProcess=true")
