"""
A Plan of system-upgrade-controller as an UpgradePlan, field by field, and the way back. Pure.

Each field is translated, or refused by its name, or said to have no effect; none is dropped without
a word. What a Plan means by K3s's versions is a matter of K3s: whoever has Plans for
nodes of Pinnace says by annotations where Pinnace's versions come from.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from operators import window
from operators.upgrade import drainplan, queries
from operators.upgrade.fields import Fields

GROUP = "/apis/upgrade.cattle.io/v1"
UPGRADE_PLANS = "/apis/upgrade.pinnace.dev/v1/upgradeplans"
FROM = "upgrade.pinnace.dev/translated-from"  # of an UpgradePlan: <namespace>/<name> of its Plan
CHANNEL = "upgrade.pinnace.dev/channel"  # of a Plan
CHANNEL_KEY = "upgrade.pinnace.dev/channel-key"
SOURCE = "upgrade.pinnace.dev/source"
# What an UpgradePlan has of its Plan; more may be added to it by hand, and stays.
TRANSLATED = frozenset(
    "version channel channelKey source nodeSelector concurrency exclusive window cordon drain "
    "postComplete suspend".split()
)
IDLE = frozenset("Pending Waiting Updated Skipped RolledBack Refused Failed".split())

_IMAGE = re.compile(r"(.*/)?k3s-upgrade([:@].*)?")
_OURS = re.compile(r"(v\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?)[+-](pinnace\d+)")
_K3S = re.compile(r"update\.(k3s|rke2)\.io|.*/v1-release/channels/?.*")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Of the pod that would have run.
_NO_EFFECT = (
    "serviceAccountName",
    "tolerations",
    "imagePullSecrets",
    "priorityClassName",
    "jobActiveDeadlineSecs",
)
_CONTAINER = ("command", "args", "envs", "env", "envFrom", "volumes", "securityContext")
FIELDS = (
    *("concurrency", "nodeSelector", "channel", "version", "secrets", "exclusive", "window"),
    *("prepare", "cordon", "drain", "upgrade", "postCompleteDelay", "postCompleteLabels"),
    *_NO_EFFECT,
)
Plan = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    spec: Mapping[str, Any]  # of an UpgradePlan, without suspend; {} where something is refused
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what has no effect
    idle: str = ""  # why no node is meant
    after: str = ""  # another Plan of its namespace, for which it waits


def key_of(upgrade_plan: Plan) -> str:
    """``<namespace>/<name>`` of the Plan that it was made of; "": of none."""
    return str((upgrade_plan["metadata"].get("annotations") or {}).get(FROM) or "")


def name_of(key: str) -> str:
    """UpgradePlans have no namespace, and no name of a namespace has a dot."""
    return key.replace("/", ".", 1)


def translate(plan: Plan) -> Translation:
    fields = Fields(plan.get("spec") or {}, "spec")
    fields.only(*FIELDS)
    notes = [
        f"spec.{name}: has no effect, no pod runs" for name in _NO_EFFECT if name in fields.value
    ]
    found = {
        **_where_from(fields, plan["metadata"].get("annotations") or {}, notes),
        "exclusive": fields.flag("exclusive"),
        "cordon": fields.flag("cordon"),
        "nodeSelector": _nodes(fields, plan["metadata"]["name"]),
        "window": _window(fields),
        "drain": _drain(fields),
        "postComplete": _after_completion(fields),
    }
    _check_image(fields)
    after = _prepare(fields)
    if fields.items("secrets"):
        fields.wrong("secrets", "cannot be translated: no container runs that could read them")
    concurrency, idle = fields.number("concurrency", 0, low=0, high=2**31 - 1) or 0, ""
    if not fields.value.get("nodeSelector"):
        idle = "spec.nodeSelector is not given, so no node is selected"
    elif not concurrency:
        idle = "spec.concurrency is 0, so no node is selected"
    if fields.errors:
        return Translation(spec={}, refused=tuple(fields.errors))
    found["concurrency"] = concurrency or 1
    spec = {name: value for name, value in found.items() if value is not None}
    return Translation(spec=spec, notes=tuple(notes), idle=idle, after=after)


def _where_from(fields: Fields, notes_of: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    version, channel = fields.text("version"), fields.text("channel")
    found: dict[str, Any] = {}
    if version:
        if channel:
            notes.append("spec.channel: has no effect beside spec.version")
        if not (matched := _OURS.fullmatch(version)):
            why = "is no version of Pinnace such as v1.36.4+pinnace1"
            fields.wrong("version", f"{version!r} {why}")
            return {}
        channel = notes_of.get(CHANNEL, "")
        source = notes_of.get(SOURCE) or (f"{channel.rstrip('/')}/channel.json" if channel else "")
        if not source:
            why = f"the annotation {SOURCE} or {CHANNEL} must say where its bundles are"
            fields.wrong("version", why)
        found = {"version": f"{matched[1]}+{matched[2]}", "source": source}
    elif channel or notes_of.get(CHANNEL):
        found = {"channel": notes_of.get(CHANNEL) or channel}
        parts = urlsplit(found["channel"])
        if _K3S.fullmatch(parts.hostname or "") or _K3S.fullmatch(parts.path):
            why = f"names versions of K3s; the annotation {CHANNEL} must name a channel of Pinnace"
            fields.wrong("channel", why)
    else:
        fields.wrong("", "version or channel is needed")
    key = notes_of.get(CHANNEL_KEY)
    return {**found, **({"channelKey": key} if key else {})}


def _check_image(fields: Fields) -> None:
    upgrade = fields.inside("upgrade")
    if upgrade is None:
        fields.wrong("upgrade", "is needed")
        return
    upgrade.only("image", *_CONTAINER)
    image = upgrade.text("image", required=True)
    if image and not _IMAGE.fullmatch(image):
        why = "cannot be translated: only k3s-upgrade means what a node does by itself"
        upgrade.wrong("image", f"{image!r} {why}")
    _refuse_container(upgrade)


def _refuse_container(fields: Fields) -> None:
    for name in _CONTAINER:
        if fields.value.get(name):
            fields.wrong(name, "cannot be translated: no container runs")


def _prepare(fields: Fields) -> str:
    """Only what K3s's own Plans for agents have: to wait for the Plan of the servers."""
    prepare = fields.inside("prepare")
    if prepare is None:
        return ""
    prepare.only("image", *_CONTAINER)
    args, image = prepare.texts("args"), prepare.text("image", required=True)
    waits = len(args) == 2 and args[0] == "prepare" and _IMAGE.fullmatch(image)
    if not waits:
        why = "cannot be translated, but for k3s-upgrade with args [prepare, <plan>]"
        fields.wrong("prepare", why)
    rest = {name: value for name, value in prepare.value.items() if name != "args"}
    _refuse_container(Fields(rest, prepare.path, prepare.errors))
    return args[1] if waits else ""


def _nodes(fields: Fields, name: str) -> dict[str, Any] | None:
    """Its label on a node keeps the Plan away from that node, as with the controller."""
    selector = fields.inside("nodeSelector")
    if selector is None:
        return None
    queries.check(selector)
    key = f"plan.upgrade.cattle.io/{name}"
    expressions = [*selector.items("matchExpressions")]
    expressions.append({"key": key, "operator": "NotIn", "values": ["disabled"]})
    return {**selector.value, "matchExpressions": expressions}


def _window(fields: Fields) -> Mapping[str, Any] | None:
    found = fields.inside("window")
    if found is None:
        return None
    found.only("days", "startTime", "endTime", "timeZone")
    try:
        window.parse(found.value)
    except ValueError as err:
        fields.wrong("window", str(err))
    return found.value


def _drain(fields: Fields) -> dict[str, Any] | None:
    drain = fields.inside("drain")
    if drain is None:
        return None
    drain.only(
        *("timeout", "gracePeriod", "deleteLocalData", "deleteEmptydirData", "ignoreDaemonSets"),
        *("force", "disableEviction", "skipWaitForDeleteTimeout", "podSelector"),
    )
    local, empty = drain.value.get("deleteLocalData"), drain.value.get("deleteEmptydirData")
    if local is not None and empty is not None:
        fields.wrong("drain", "cannot specify both deleteEmptydirData and deleteLocalData")
    which = "deleteLocalData" if empty is None else "deleteEmptydirData"
    found = {
        "enabled": True,
        "force": drain.flag("force"),
        "deleteEmptyDirData": drain.flag(which, default=True),
        "ignoreDaemonSets": drain.flag("ignoreDaemonSets", default=True),
        "disableEviction": drain.flag("disableEviction"),
        "timeoutSeconds": _seconds(drain, "timeout"),
        "gracePeriodSeconds": drain.value.get("gracePeriod"),
        "skipWaitForDeleteTimeout": drain.value.get("skipWaitForDeleteTimeout"),
        "podSelector": drain.value.get("podSelector"),
    }
    spec = {name: value for name, value in found.items() if value is not None}
    drain.errors += drainplan.validate(spec, drain.path)
    return spec


def _seconds(fields: Fields, name: str) -> int | None:
    """Of a duration as Go writes it (1m30s), or in nanoseconds; rounded up."""
    given = fields.value.get(name)
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return -(-given // 10**9)
    text = str(given)
    if text == "0" or (text and not _PART.sub("", text)):
        total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return int(-(-total // 1))
    fields.wrong(name, f"{given!r} is no duration such as 1m30s")
    return None


def _after_completion(fields: Fields) -> dict[str, Any] | None:
    labels = fields.inside("postCompleteLabels")
    delay = _seconds(fields, "postCompleteDelay")
    for key, value in (labels.value if labels else {}).items():
        if "$(LATEST_HASH)" in str(value) and labels is not None:
            labels.wrong(key, "$(LATEST_HASH) cannot be translated")
    found = {
        "labels": dict(labels.value) if labels else None,
        "delaySeconds": delay,
    }
    return {name: value for name, value in found.items() if value} or None


def suspended(found: Translation, before: Plan | None) -> str:
    """Why nothing may begin; ``before``: the UpgradePlan of the Plan for which it waits."""
    if found.idle or not found.after:
        return found.idle
    phase = ((before or {}).get("status") or {}).get("phase")
    generation = (before or {"metadata": {}})["metadata"].get("generation")
    observed = ((before or {}).get("status") or {}).get("observedGeneration")
    return "" if phase == "Complete" and generation == observed else f"waits for Plan {found.after}"


def status(
    plan: Plan, upgrade: Plan | None, found: Translation, *, waits: str, now: str
) -> dict[str, Any]:
    """
    What its users look at; ``upgrade``: the UpgradePlan, ``waits``: why it is suspended.

    ``now``: RFC 3339.
    """
    told = (upgrade or {}).get("status") or {}
    before = (plan.get("status") or {}).get("conditions") or ()
    conditions = [
        _condition("Validated", *_validated(found), before=before, now=now),
        _condition("LatestResolved", *_resolved(plan, told), before=before, now=now),
        _condition("Complete", *_complete(found, told, waits), before=before, now=now),
    ]
    version = str(told.get("version") or "").replace("+", "-")
    account = str((plan.get("spec") or {}).get("serviceAccountName") or "")
    nodes: Sequence[Mapping[str, Any]] = told.get("nodes") or ()
    return {
        "latestVersion": version or None,
        "latestHash": hashlib.sha224((version + account).encode()).hexdigest() if version else None,
        "applying": [n["name"] for n in nodes if n["phase"] not in IDLE] or None,
        "conditions": conditions,
    }


def _validated(found: Translation) -> tuple[str, str, str]:
    if found.refused:
        return "False", "NotTranslatable", "; ".join(found.refused)
    return "True", "PlanIsValid", "; ".join(found.notes)


def _resolved(plan: Plan, told: Mapping[str, Any]) -> tuple[str, str, str]:
    spec = plan.get("spec") or {}
    for condition in told.get("conditions") or ():
        if condition["type"] == "Resolved":
            if condition["status"] == "True":
                return "True", "Version" if spec.get("version") else "Channel", ""
            return "False", condition.get("reason") or "Error", condition.get("message") or ""
    return "Unknown", "Unknown", ""


def _complete(found: Translation, told: Mapping[str, Any], waits: str) -> tuple[str, str, str]:
    if found.refused:
        return "False", "NotTranslatable", ""
    if waits:
        return "False", "Waiting", waits
    for condition in told.get("conditions") or ():
        if condition["type"] == "Complete":
            return (
                condition["status"],
                condition.get("reason") or "",
                condition.get("message") or "",
            )
    return "False", "Waiting", ""


def _condition(
    kind: str,
    value: str,
    reason: str,
    message: str,
    *,
    before: Sequence[Mapping[str, Any]],
    now: str,
) -> dict[str, Any]:
    last = next((found for found in before if found.get("type") == kind), {})
    said = {"type": kind, "status": value, "reason": reason, "message": message[:1024]}
    if said == {name: last.get(name) for name in said}:
        return dict(last)
    same = last.get("status") == value
    since = last.get("lastTransitionTime") if same else None
    return {**said, "lastTransitionTime": since or now, "lastUpdateTime": now}
