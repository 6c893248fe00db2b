"""
The Pod Security Standards by policy version: which check holds since when.

A check that changed has an entry for each minor version it changed in.
Sources: the Pod Security Standards; KEP-2579; KEP-127 for pods in user namespaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from controlplane.api.admission import pod_security_baseline as baseline
from controlplane.api.admission import pod_security_restricted as restricted
from controlplane.api.admission.pod_security_reading import (
    Check,
    Object,
    Violation,
    unless_in_user_namespace,
    unless_windows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Versions:
    """One check through the minor versions of the policy."""

    name: str
    since: tuple[tuple[int, Check], ...]  # ascending
    overrides: str = ""  # the baseline check that a restricted one stands for

    def at(self, minor: int) -> Check | None:
        return next((check for first, check in reversed(self.since) if first <= minor), None)


def evaluate(level: str, minor: int | None, holder: Object, spec: Object) -> list[Violation]:
    """``minor`` None: the latest policy. ``holder`` has the pod's metadata."""
    found = (check(holder, spec) for check in _checks(level, minor))
    return [violation for violation in found if violation is not None]


@cache
def _checks(level: str, minor: int | None) -> tuple[Check, ...]:
    at = LATEST if minor is None else min(minor, LATEST)
    if level == "privileged":
        return ()
    chosen: Sequence[_Versions] = BASELINE
    if level == "restricted":
        hardening = [check for check in RESTRICTED if check.at(at) is not None]
        overridden = {check.overrides for check in hardening}
        chosen = [*(c for c in BASELINE if c.name not in overridden), *hardening]
    checks = (check.at(at) for check in chosen)
    return tuple(check for check in checks if check is not None)


# In the order in which violations are told.
BASELINE = (
    _Versions(name="appArmorProfile", since=((0, baseline.app_armor),)),
    _Versions(name="capabilities_baseline", since=((0, baseline.capabilities_baseline),)),
    _Versions(name="hostNamespaces", since=((0, baseline.host_namespaces),)),
    _Versions(name="hostPathVolumes", since=((0, baseline.host_path_volumes),)),
    _Versions(name="hostPorts", since=((0, baseline.host_ports),)),
    _Versions(name="hostProbesAndHostLifecycle", since=((34, baseline.probe_hosts),)),
    _Versions(name="privileged", since=((0, baseline.privileged),)),
    _Versions(
        name="procMount",
        since=((0, baseline.proc_mount), (35, unless_in_user_namespace(baseline.proc_mount))),
    ),
    _Versions(
        name="seLinuxOptions",
        since=(
            (0, baseline.selinux(baseline.SELINUX_TYPES)),
            (31, baseline.selinux(baseline.SELINUX_TYPES | {"container_engine_t"})),
        ),
    ),
    _Versions(
        name="seccompProfile_baseline",
        since=((0, baseline.seccomp_annotations), (19, baseline.seccomp_baseline)),
    ),
    _Versions(
        name="sysctls",
        since=(
            (0, baseline.sysctls(baseline.SYSCTLS)),
            (27, baseline.sysctls(baseline.SYSCTLS_27)),
            (29, baseline.sysctls(baseline.SYSCTLS_29)),
            (32, baseline.sysctls(baseline.SYSCTLS_32)),
        ),
    ),
    _Versions(name="windowsHostProcess", since=((0, baseline.host_process),)),
)
RESTRICTED = (
    _Versions(
        name="allowPrivilegeEscalation",
        since=((8, restricted.escalation), (25, unless_windows(restricted.escalation))),
    ),
    _Versions(
        name="capabilities_restricted",
        since=(
            (22, restricted.capabilities_restricted),
            (25, unless_windows(restricted.capabilities_restricted)),
        ),
        overrides="capabilities_baseline",
    ),
    _Versions(
        name="procMount_restricted", since=((35, baseline.proc_mount),), overrides="procMount"
    ),
    _Versions(
        name="restrictedVolumes", since=((0, restricted.volumes),), overrides="hostPathVolumes"
    ),
    _Versions(
        name="runAsNonRoot",
        since=((0, restricted.non_root), (35, unless_in_user_namespace(restricted.non_root))),
    ),
    _Versions(
        name="runAsUser",
        since=((23, restricted.user_zero), (35, unless_in_user_namespace(restricted.user_zero))),
    ),
    _Versions(
        name="seccompProfile_restricted",
        since=(
            (19, restricted.seccomp_restricted),
            (25, unless_windows(restricted.seccomp_restricted)),
        ),
        overrides="seccompProfile_baseline",
    ),
)
LATEST = max(first for check in (*BASELINE, *RESTRICTED) for first, _ in check.since)
