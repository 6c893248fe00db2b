"""What extends the API server: aggregated APIs, webhooks, policies, flow control, devices."""

from datetime import datetime

from controlplane.objects.printing.cells import (
    NONE,
    UNSET,
    Cells,
    Object,
    Printer,
    age,
    columns,
    name,
    spec,
    status,
)


def _api_service(obj: Object, now: datetime) -> Cells:
    service = spec(obj).get("service")
    shown = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    return [name(obj), shown, _available(obj), age(obj, now)]


def _available(obj: Object) -> str:
    for condition in status(obj).get("conditions") or ():
        if condition.get("type") == "Available":
            if condition.get("status") == "True":
                return "True"
            return f"{condition.get('status')} ({condition.get('reason', '')})"
    return "Unknown"


def _webhooks(obj: Object, now: datetime) -> Cells:
    return [name(obj), len(obj.get("webhooks") or ()), age(obj, now)]


def _policy(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    kind = inner.get("paramKind")
    shown = f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else UNSET
    rules = inner.get("validations") or inner.get("mutations") or ()
    return [name(obj), len(rules), shown, age(obj, now)]


def _binding(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    reference = inner.get("paramRef")
    shown = UNSET
    if reference:
        if reference.get("name"):
            parts = [reference.get("namespace"), reference["name"]]
            shown = "/".join(part for part in parts if part)
        else:
            shown = "*"
    return [name(obj), inner.get("policyName", ""), shown, age(obj, now)]


def _flow_schema(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    method = (inner.get("distinguisherMethod") or {}).get("type") or NONE
    missing = "?"
    for condition in status(obj).get("conditions") or ():
        if condition.get("type") == "Dangling":
            missing = condition.get("status", "?")
    level = (inner.get("priorityLevelConfiguration") or {}).get("name", "")
    precedence = inner.get("matchingPrecedence") or 0
    return [name(obj), level, precedence, method, age(obj, now), missing]


def _priority_level(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    limited = inner.get("limited") or inner.get("exempt") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    shares = limited.get("nominalConcurrencyShares")
    counts = [queuing.get(field) for field in ("queues", "handSize", "queueLengthLimit")]
    return [
        name(obj),
        inner.get("type", ""),
        NONE if shares is None else str(shares),
        *(NONE if count is None else str(count) for count in counts),
        age(obj, now),
    ]


def _claim(obj: Object, now: datetime) -> Cells:
    state = status(obj)
    shown = []
    if (obj.get("metadata") or {}).get("deletionTimestamp"):
        shown.append("deleted")
    if state.get("allocation") is None:
        if not shown:
            shown.append("pending")
    else:
        shown.append("allocated")
        shown.append("reserved") if state.get("reservedFor") else None
    return [name(obj), ",".join(shown), age(obj, now)]


def _slice(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    pool = (inner.get("pool") or {}).get("name", "")
    return [name(obj), inner.get("nodeName") or UNSET, inner.get("driver", ""), pool, age(obj, now)]


def _plain(obj: Object, now: datetime) -> Cells:
    return [name(obj), age(obj, now)]


API_SERVICE = Printer(columns("Name", "Service", "Available", "Age"), _api_service)
WEBHOOKS = Printer(columns("Name", "Webhooks#", "Age"), _webhooks)
VALIDATING_POLICY = Printer(columns("Name", "Validations#", "ParamKind", "Age"), _policy)
MUTATING_POLICY = Printer(columns("Name", "Mutations#", "ParamKind", "Age"), _policy)
POLICY_BINDING = Printer(columns("Name", "PolicyName", "ParamRef", "Age"), _binding)
FLOW_SCHEMA = Printer(
    columns(
        "Name", "PriorityLevel", "MatchingPrecedence#", "DistinguisherMethod", "Age", "MissingPL"
    ),
    _flow_schema,
)
PRIORITY_LEVEL = Printer(
    columns(
        "Name",
        "Type",
        "NominalConcurrencyShares",
        "Queues",
        "HandSize",
        "QueueLengthLimit",
        "Age",
    ),
    _priority_level,
)
RESOURCE_CLAIM = Printer(columns("Name", "State", "Age"), _claim)
RESOURCE_SLICE = Printer(columns("Name", "Node", "Driver", "Pool", "Age"), _slice)
PLAIN = Printer(columns("Name", "Age"), _plain)
