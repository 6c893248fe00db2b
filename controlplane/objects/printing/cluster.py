"""Nodes, namespaces, events, configuration, access, quotas and classes."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.objects import quantity
from controlplane.objects.printing.cells import (
    NONE,
    UNKNOWN,
    Cells,
    Object,
    Printer,
    age,
    columns,
    human,
    name,
    since,
    spec,
    status,
)

_ROLE = "node-role.kubernetes.io/"
_OLD_ROLE = "kubernetes.io/role"


def _node(obj: Object, now: datetime) -> Cells:
    info = status(obj).get("nodeInfo") or {}
    return [
        name(obj),
        _node_status(obj),
        _roles(obj),
        age(obj, now),
        info.get("kubeletVersion", ""),
        _address(obj, "InternalIP"),
        _address(obj, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_status(obj: Object) -> str:
    listed = {c.get("type"): c.get("status") for c in status(obj).get("conditions") or ()}
    match listed.get("Ready"):
        case "True":
            shown = "Ready"
        case None:
            shown = "Unknown"
        case _:
            shown = "NotReady"
    return f"{shown},SchedulingDisabled" if spec(obj).get("unschedulable") else shown


def _roles(obj: Object) -> str:
    labels = (obj.get("metadata") or {}).get("labels") or {}
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)} - {""}
    if old := labels.get(_OLD_ROLE):
        roles.add(old)
    return ",".join(sorted(roles)) or NONE


def _address(obj: Object, kind: str) -> str:
    for address in status(obj).get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address"))
    return NONE


def _namespace(obj: Object, now: datetime) -> Cells:
    return [name(obj), status(obj).get("phase") or "", age(obj, now)]


def _event(obj: Object, now: datetime) -> Cells:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    first, last = first or obj.get("eventTime"), last or obj.get("eventTime")
    if series := obj.get("series"):
        last, count = series.get("lastObservedTime") or last, series.get("count") or count
    target = str(about.get("kind", "")).lower()
    if about.get("name"):
        target = f"{target}/{about['name']}"
    return [
        since(last, now) if last else since(first, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        target,
        about.get("fieldPath", ""),
        _source(obj),
        str(obj.get("message") or obj.get("note") or "").strip(),
        since(first, now),
        count,
        name(obj),
    ]


def _source(obj: Object) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    parts = [source.get("component"), source.get("host")]
    if not any(parts):
        controller = obj.get("reportingComponent") or obj.get("reportingController")
        parts = [controller, obj.get("reportingInstance")]
    return ", ".join(str(part) for part in parts if part)


def _config_map(obj: Object, now: datetime) -> Cells:
    count = len(obj.get("data") or ()) + len(obj.get("binaryData") or ())
    return [name(obj), count, age(obj, now)]


def _secret(obj: Object, now: datetime) -> Cells:
    return [name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(obj, now)]


def _account(obj: Object, now: datetime) -> Cells:
    return [name(obj), len(obj.get("secrets") or ()), age(obj, now)]


def _created(obj: Object, _now: datetime) -> Cells:
    return [name(obj), (obj.get("metadata") or {}).get("creationTimestamp") or UNKNOWN]


def _binding(obj: Object, now: datetime) -> Cells:
    reference = obj.get("roleRef") or {}
    subjects = obj.get("subjects") or ()
    accounts = [
        f"{s.get('namespace', '')}/{s.get('name')}"
        for s in subjects
        if s.get("kind") == "ServiceAccount"
    ]
    return [
        name(obj),
        f"{reference.get('kind')}/{reference.get('name')}",
        age(obj, now),
        _subjects(subjects, "User"),
        _subjects(subjects, "Group"),
        ", ".join(accounts),
    ]


def _subjects(subjects: Iterable[Mapping[str, Any]], kind: str) -> str:
    return ", ".join(str(s.get("name")) for s in subjects if s.get("kind") == kind)


def _lease(obj: Object, now: datetime) -> Cells:
    return [name(obj), spec(obj).get("holderIdentity") or "", age(obj, now)]


def _priority(obj: Object, now: datetime) -> Cells:
    return [
        name(obj),
        obj.get("value") or 0,
        bool(obj.get("globalDefault")),
        age(obj, now),
        obj.get("preemptionPolicy") or "",
    ]


def _runtime(obj: Object, now: datetime) -> Cells:
    return [name(obj), obj.get("handler", ""), age(obj, now)]


def _quota(obj: Object, now: datetime) -> Cells:
    hard, used = status(obj).get("hard") or {}, status(obj).get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for key in sorted(hard):
        text = f"{key}: {quantity.canonical(used.get(key, 0))}/{quantity.canonical(hard[key])}"
        (limits if key.startswith("limits.") else requests).append(text)
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _signing_request(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    seconds = inner.get("expirationSeconds")
    duration = NONE if seconds is None else human(timedelta(seconds=seconds))
    signer = inner.get("signerName") or NONE
    return [
        name(obj),
        age(obj, now),
        signer,
        inner.get("username", ""),
        duration,
        _request_state(obj),
    ]


def _request_state(obj: Object) -> str:
    state = status(obj)
    kinds = [c.get("type") for c in state.get("conditions") or ()]
    shown = [kind for kind in ("Approved", "Denied", "Failed") if kind in kinds]
    if "Approved" in shown and "Denied" in shown:
        shown.remove("Approved")
    if not shown:
        return "Pending"
    return ",".join([*shown, "Issued"] if state.get("certificate") else shown)


def _component(obj: Object, _now: datetime) -> Cells:
    for condition in obj.get("conditions") or ():
        if condition.get("type") == "Healthy":
            healthy = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            return [name(obj), healthy, condition.get("message", ""), condition.get("error", "")]
    return [name(obj), "Unknown", "", ""]


NODE = Printer(
    columns(
        "Name",
        "Status",
        "Roles",
        "Age",
        "Version",
        "Internal-IP*",
        "External-IP*",
        "OS-Image*",
        "Kernel-Version*",
        "Container-Runtime*",
    ),
    _node,
)
NAMESPACE = Printer(columns("Name", "Status", "Age"), _namespace)
EVENT = Printer(
    columns(
        "Last Seen",
        "Type",
        "Reason",
        "Object",
        "Subobject*",
        "Source*",
        "Message",
        "First Seen*",
        "Count#*",
        "Name*",
    ),
    _event,
)
CONFIG_MAP = Printer(columns("Name", "Data#", "Age"), _config_map)
SECRET = Printer(columns("Name", "Type", "Data#", "Age"), _secret)
SERVICE_ACCOUNT = Printer(columns("Name", "Secrets#", "Age"), _account)
CREATED = Printer(columns("Name", "Created At"), _created)
BINDING = Printer(columns("Name", "Role", "Age", "Users*", "Groups*", "ServiceAccounts*"), _binding)
LEASE = Printer(columns("Name", "Holder", "Age"), _lease)
PRIORITY_CLASS = Printer(
    columns("Name", "Value#", "Global-Default?", "Age", "PreemptionPolicy"), _priority
)
RUNTIME_CLASS = Printer(columns("Name", "Handler", "Age"), _runtime)
QUOTA = Printer(columns("Name", "Request", "Limit", "Age"), _quota)
SIGNING_REQUEST = Printer(
    columns("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
    _signing_request,
)
COMPONENT = Printer(columns("Name", "Status", "Message", "Error"), _component)
