"""Deployments, replica sets, stateful sets, daemon sets, jobs and cron jobs."""

from collections.abc import Mapping
from typing import Any

from controlplane.objects import selectors
from controlplane.objects.errors import (
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import checks, cron, metadata, pods
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object

_MISMATCH = "`selector` does not match template `labels`"


def deployment(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.non_negative(spec.get("replicas"), "spec.replicas")
    yield from _selected_template(spec, "deployment")
    yield from _strategy(spec.get("strategy") or {}, "spec.strategy")
    for name in ("minReadySeconds", "revisionHistoryLimit"):
        yield from checks.non_negative(spec.get(name), f"spec.{name}")
    progress, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if progress is not None:
        yield from checks.non_negative(progress, "spec.progressDeadlineSeconds")
        if progress <= ready:
            text = "must be greater than minReadySeconds"
            yield invalid_value("spec.progressDeadlineSeconds", progress, text)


def deployment_updated(new: Object, old: Object) -> Found:
    yield from deployment(new)
    yield from _same_selector(new, old)


def replica_set(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.non_negative(spec.get("replicas"), "spec.replicas")
    yield from checks.non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    yield from _selected_template(spec, "deployment")


def replica_set_updated(new: Object, old: Object) -> Found:
    yield from replica_set(new)
    yield from _same_selector(new, old)


def replication_controller(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from checks.non_negative(spec.get("replicas"), "spec.replicas")
    yield from checks.non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    selector = spec.get("selector") or {}
    template = spec.get("template")
    if not selector:
        yield required("spec.selector")
    if template is None:
        yield required("spec.template")
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not selectors.of_labels(selector).matches(labels):
        yield invalid_value("spec.template.metadata.labels", labels, _MISMATCH)
    yield from pods.template(template, "spec.template")
    yield from _always(template)


def daemon_set(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from _selected_template(spec, "daemonset")
    yield from checks.non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    yield from checks.non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    strategy, path = spec.get("updateStrategy") or {}, "spec.updateStrategy"
    kind = strategy.get("type")
    if kind not in ("RollingUpdate", "OnDelete"):
        yield not_supported(path, strategy, ("RollingUpdate", "OnDelete"))
    if kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            yield required(f"{path}.rollingUpdate")
        else:
            yield from _rolling(rolling, f"{path}.rollingUpdate")


def daemon_set_updated(new: Object, old: Object) -> Found:
    yield from daemon_set(new)
    yield from _same_selector(new, old)


def stateful_set(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    known = ("OrderedReady", "Parallel")
    policy = spec.get("podManagementPolicy")
    if policy not in known:
        text = "must be 'OrderedReady' or 'Parallel'"
        yield invalid_value("spec.podManagementPolicy", policy or "", text)
    yield from _set_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for name, value in retention.items():
        path = f"spec.persistentVolumeClaimRetentionPolicy.{name}"
        yield from checks.one_of(value, ("Delete", "Retain"), path)
    yield from checks.non_negative(spec.get("replicas"), "spec.replicas")
    yield from checks.non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    ordinals = spec.get("ordinals") or {}
    yield from checks.non_negative(ordinals.get("start"), "spec.ordinals.start")
    # Claims become volumes of the same name, so mounts may mean either.
    claims = [
        {"name": (claim.get("metadata") or {}).get("name", ""), "emptyDir": {}}
        for claim in spec.get("volumeClaimTemplates") or ()
    ]
    yield from _selected_template(spec, "statefulset", more_volumes=claims)


def _set_strategy(strategy: Object, path: str) -> Found:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "OnDelete":
            if rolling is not None:
                text = "only allowed for updateStrategy 'RollingUpdate'"
                yield invalid_value(f"{path}.rollingUpdate", rolling, text)
        case "RollingUpdate":
            where = f"{path}.rollingUpdate"
            yield from checks.non_negative((rolling or {}).get("partition"), f"{where}.partition")
            yield from checks.int_or_percent(
                (rolling or {}).get("maxUnavailable"), f"{where}.maxUnavailable"
            )
        case _:
            yield invalid_value(path, dict(strategy), "must be 'RollingUpdate' or 'OnDelete'")


_STATEFUL_FREE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def stateful_set_updated(new: Object, old: Object) -> Found:
    yield from stateful_set(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if _without(after, _STATEFUL_FREE) != _without(before, _STATEFUL_FREE):
        listed = ", ".join(f"'{name}'" for name in _STATEFUL_FREE[:-1])
        text = (
            f"updates to statefulset spec for fields other than {listed} and "
            f"'{_STATEFUL_FREE[-1]}' are forbidden"
        )
        yield forbidden_field("spec", text)


def controller_revision(obj: Object) -> Found:
    if obj.get("data") is None:
        yield required("data", "data is mandatory")
    yield from checks.non_negative(obj.get("revision"), "revision")


def controller_revision_updated(new: Object, old: Object) -> Found:
    yield from controller_revision(new)
    if new.get("data") != old.get("data"):
        yield invalid_value("data", new.get("data"), IMMUTABLE)


def job(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from job_spec(spec, "spec")
    if spec.get("selector") is None:
        yield required("spec.selector")
    else:
        yield from metadata.selector(spec["selector"], "spec.selector")
    yield from _matches(spec, "spec")


def job_spec(spec: Object, path: str) -> Found:
    for name in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "ttlSecondsAfterFinished",
    ):
        yield from checks.non_negative(spec.get(name), f"{path}.{name}")
    mode = spec.get("completionMode")
    known = ("Indexed", "NonIndexed")
    yield from checks.optional_one_of(mode, known, f"{path}.completionMode")
    if mode == "Indexed" and spec.get("completions") is None:
        text = "when completion mode is Indexed"
        yield required(f"{path}.completions", text)
    if spec.get("backoffLimitPerIndex") is not None and mode != "Indexed":
        yield invalid_value(
            f"{path}.backoffLimitPerIndex",
            spec["backoffLimitPerIndex"],
            "requires indexed completion mode",
        )
    yield from _failure_policy(spec, path)
    yield from pods.template(spec.get("template"), f"{path}.template")
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    where = f"{path}.template.spec.restartPolicy"
    if policy in (None, "", "Always"):
        text = 'valid values: "OnFailure", "Never"'
        yield required(where, text)
    elif policy not in ("OnFailure", "Never"):
        yield not_supported(where, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        text = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid_value(where, policy, text)


def _failure_policy(spec: Object, path: str) -> Found:
    policy = spec.get("podFailurePolicy") or {}
    known = ("Count", "FailIndex", "FailJob", "Ignore")
    for index, rule in enumerate(policy.get("rules") or ()):
        where = f"{path}.podFailurePolicy.rules[{index}]"
        yield from checks.one_of(rule.get("action"), known, f"{where}.action")
        codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is None and not patterns:
            text = "specifying one of OnExitCodes and OnPodConditions is required"
            yield invalid_value(where, dict(rule), text)
        if codes is not None and patterns:
            text = "specifying both OnExitCodes and OnPodConditions is not supported"
            yield invalid_value(where, dict(rule), text)


_JOB_FIXED = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy")


def job_updated(new: Object, old: Object) -> Found:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    yield from job_spec(after, "spec")
    yield from checks.unchanged(after, before, "selector", "spec")
    if after.get("completionMode") != "Indexed" or before.get("completionMode") != "Indexed":
        yield from checks.unchanged(after, before, "completions", "spec")
    for name in _JOB_FIXED:
        yield from checks.unchanged(after, before, name, "spec")
    new_template, old_template = _template(after), _template(before)
    if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
        # Where a suspended job may still be steered to (KEP-2926).
        new_template, old_template = map(_without_directions, (new_template, old_template))
    if new_template != old_template:
        yield invalid_value("spec.template", _template(after), IMMUTABLE)


_DIRECTIONS = ("nodeSelector", "tolerations", "schedulingGates", "affinity")


def _without_directions(template: dict[str, Any]) -> dict[str, Any]:
    meta = _without(template.get("metadata") or {}, ("labels", "annotations"))
    spec = _without(template.get("spec") or {}, _DIRECTIONS)
    return {**template, "metadata": meta, "spec": spec}


def cron_job(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from _schedule(spec)
    yield from checks.non_negative(
        spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds"
    )
    known = ("Allow", "Forbid", "Replace")
    yield from checks.one_of(spec.get("concurrencyPolicy"), known, "spec.concurrencyPolicy")
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        yield from checks.non_negative(spec.get(name), f"spec.{name}")
    template = spec.get("jobTemplate") or {}
    path = "spec.jobTemplate"
    yield from metadata.common(template.get("metadata") or {}, f"{path}.metadata")
    inner = template.get("spec") or {}
    if inner.get("manualSelector"):
        known_flags = ("nil", "false")
        yield not_supported(f"{path}.spec.manualSelector", True, known_flags)
    yield from job_spec(inner, f"{path}.spec")


def _schedule(spec: Object) -> Found:
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    if not schedule:
        yield required("spec.schedule")
    elif "TZ" in schedule:
        text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        yield invalid_value("spec.schedule", schedule, text)
    else:
        try:
            cron.parse(schedule)
        except cron.ScheduleError as error:
            yield invalid_value("spec.schedule", schedule, str(error))
    if zone is None:
        return
    if not zone:
        text = "timeZone must be nil or non-empty string"
        yield invalid_value("spec.timeZone", zone, text)
    elif zone.lower() == "local":
        yield invalid_value(
            "spec.timeZone",
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        )
    elif not _is_zone(zone):
        yield invalid_value("spec.timeZone", zone, f"unknown time zone {zone}")


def _is_zone(name: str) -> bool:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _selected_template(
    spec: Object, what: str, *, more_volumes: list[dict[str, Any]] | None = None
) -> Found:
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
    else:
        yield from metadata.selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            text = f"empty selector is invalid for {what}"
            yield invalid_value("spec.selector", selector, text)
    yield from _matches(spec, "spec")
    template = _template(spec)
    if more_volumes:
        inner = dict(template.get("spec") or {})
        taken = {volume["name"] for volume in more_volumes}
        own = [v for v in inner.get("volumes") or () if v.get("name") not in taken]
        template = {**template, "spec": {**inner, "volumes": [*own, *more_volumes]}}
    yield from pods.template(template, "spec.template")
    yield from _always(template)


def _matches(spec: Object, path: str) -> Found:
    selector = spec.get("selector")
    if not selector or any(True for _ in metadata.selector(selector, path)):
        return
    compiled = selectors.of_object(selector)
    labels = (_template(spec).get("metadata") or {}).get("labels") or {}
    if not compiled.empty and not compiled.matches(labels):
        yield invalid_value(f"{path}.template.metadata.labels", labels, _MISMATCH)


def _always(template: Object) -> Found:
    spec = template.get("spec") or {}
    path = "spec.template.spec"
    if spec.get("restartPolicy") != "Always":
        value = spec.get("restartPolicy") or ""
        yield not_supported(f"{path}.restartPolicy", value, ("Always",))
    if spec.get("activeDeadlineSeconds") is not None:
        yield forbidden_field(
            f"{path}.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
        )


def _strategy(strategy: Object, path: str) -> Found:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            if rolling is not None:
                text = "may not be specified when strategy `type` is 'Recreate'"
                yield forbidden_field(f"{path}.rollingUpdate", text)
        case "RollingUpdate":
            if rolling is None:
                text = "this should be defaulted and never be nil"
                yield required(f"{path}.rollingUpdate", text)
            else:
                yield from _rolling(rolling, f"{path}.rollingUpdate")
        case other:
            yield not_supported(f"{path}.type", other or "", ("Recreate", "RollingUpdate"))


def _rolling(rolling: Object, path: str) -> Found:
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    yield from checks.int_or_percent(unavailable, f"{path}.maxUnavailable")
    yield from checks.int_or_percent(surge, f"{path}.maxSurge")
    if checks.is_zero(unavailable) and checks.is_zero(surge):
        text = "may not be 0 when `maxSurge` is 0"
        yield invalid_value(f"{path}.maxUnavailable", unavailable, text)
    yield from checks.not_over_100_percent(unavailable, f"{path}.maxUnavailable")


def _same_selector(new: Object, old: Object) -> Found:
    yield from checks.unchanged(new.get("spec") or {}, old.get("spec") or {}, "selector", "spec")


def _template(spec: Object) -> dict[str, Any]:
    return dict(spec.get("template") or {})


def _without(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}
