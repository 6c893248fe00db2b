"""
What an UpgradePlan asks for, parsed once. Pure.

The definition of the kind refuses most of what makes no sense; what only this machine can tell (a
time zone it does not know) is a problem of the plan, told in its status.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operators import window
from operators.upgrade import selector
from operators.upgrade.selector import Selector
from operators.window import Window

Object = Mapping[str, Any]

GROUP, VERSION, PLURAL, KIND = "upgrade.pinnace.dev", "v1", "upgradeplans", "UpgradePlan"
PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
SOAK_SECONDS, DEADLINE_SECONDS, INTERVAL_MINUTES = 60, 900, 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The nodes that go first: those of a selector, or so many of each stage."""

    name: str
    chosen: Selector | None
    count: int = 0
    percent: int = 0
    soak: int = 0  # seconds between its last node and the next group's first


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    version: str  # "": what the channel offers
    channel: str
    interval: int  # seconds between two looks at the channel
    chosen: Selector
    concurrency: int | None
    percent: int  # of the nodes, where concurrency is None
    exclusive: bool
    stages: tuple[Selector, ...]  # (): servers first
    windows: tuple[Window, ...]
    cordon: bool
    drain: Object | None  # None: not
    checks: Sequence[Object]
    soak: int
    deadline: int
    policy: str  # Pause, RollbackAll, Continue
    canaries: tuple[Canary, ...]
    retry_failed: bool
    labels: Mapping[str, str]  # of postComplete
    annotations: Mapping[str, str]
    delay: int  # seconds
    suspend: bool
    skip_not_ready: bool
    job: bool  # there is a jobTemplate

    def limit(self, total: int) -> int:
        """How many nodes may be in work at once."""
        if self.concurrency is not None:
            return self.concurrency
        return max(1, total * self.percent // 100)

    @property
    def tells(self) -> bool:
        return bool(self.labels or self.annotations or self.delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An UpgradePlan. ``wanted`` None: it cannot be understood, and ``problem`` says why."""

    name: str
    uid: str
    generation: int
    created: str  # RFC 3339
    resource_version: str = field(compare=False)
    wanted: Wanted | None
    problem: str
    body: Object = field(compare=False)

    @property
    def status(self) -> Object:
        found: Object = self.body.get("status") or {}
        return found

    @property
    def age(self) -> tuple[str, str]:
        """In the order of these, plans come first."""
        return (self.created, self.name)


def plan_of(body: Object) -> Plan:
    metadata = body["metadata"]
    wanted, problem = None, ""
    try:
        wanted = wanted_of(body.get("spec") or {})
    except (ValueError, TypeError, AttributeError) as err:
        problem = str(err)
    return Plan(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation") or 0,
        created=metadata.get("creationTimestamp") or "",
        resource_version=metadata.get("resourceVersion") or "",
        wanted=wanted,
        problem=problem,
        body=body,
    )


def wanted_of(spec: Object) -> Wanted:
    """Raises ValueError, which says what is wrong."""
    version, channel = spec.get("version") or "", spec.get("channel") or ""
    if bool(version) == bool(channel):
        raise ValueError("exactly one of version and channel must be given")
    if wrong := next(_problems(spec), ""):
        raise ValueError(wrong)
    concurrency, percent = _concurrency(spec.get("concurrency", 1))
    drain, after = spec.get("drain") or {}, spec.get("postComplete") or {}
    order = spec.get("order") or {}
    return Wanted(
        version=version,
        channel=channel,
        interval=60 * int(spec.get("channelIntervalMinutes") or INTERVAL_MINUTES),
        chosen=_selector("nodeSelector", spec.get("nodeSelector")),
        concurrency=concurrency,
        percent=percent,
        exclusive=bool(spec.get("exclusive")),
        stages=tuple(_selector("order.stages", given) for given in order.get("stages") or ()),
        windows=_windows(spec),
        cordon=spec.get("cordon", True) is not False,
        drain=drain if drain.get("enabled") else None,
        checks=tuple(spec.get("healthChecks") or ()),
        soak=int(spec.get("soakSeconds", SOAK_SECONDS)),
        deadline=int(spec.get("trialDeadlineSeconds") or DEADLINE_SECONDS),
        policy=spec.get("failurePolicy") or "Pause",
        canaries=tuple(map(_canary, spec.get("canaries") or ())),
        retry_failed=bool(spec.get("retryFailed")),
        labels=dict(after.get("labels") or {}),
        annotations=dict(after.get("annotations") or {}),
        delay=int(after.get("delaySeconds") or 0),
        suspend=bool(spec.get("suspend")),
        skip_not_ready=spec.get("notReadyNodes") == "Skip",
        job=bool(spec.get("jobTemplate")),
    )


def _problems(spec: Object) -> Iterator[str]:
    """What those who do it say of it; here, since most plans need none of them."""
    if spec.get("healthChecks"):
        from operators.upgrade.checks import objects

        yield from objects.validate(spec["healthChecks"])
    if (spec.get("drain") or {}).get("enabled"):
        from operators.upgrade import drainplan

        yield from drainplan.validate(spec["drain"])
    if spec.get("jobTemplate"):
        from operators.upgrade import jobplan

        yield from jobplan.validate(spec["jobTemplate"])


def _canary(given: Object) -> Canary:
    name, chosen = str(given.get("name") or ""), given.get("nodeSelector")
    ways = [way for way in ("nodeSelector", "count", "percent") if given.get(way) is not None]
    if len(ways) != 1:
        raise ValueError(f"canaries: {name!r} takes one of nodeSelector, count and percent")
    return Canary(
        name=name,
        chosen=_selector(f"canaries: {name!r}", chosen) if chosen is not None else None,
        count=int(given.get("count") or 0),
        percent=int(given.get("percent") or 0),
        soak=int(given.get("soakSeconds") or 0),
    )


def _selector(field_: str, given: Object | None) -> Selector:
    try:
        return selector.parse(given)
    except ValueError as err:
        raise ValueError(f"{field_}: {err}") from err


def _concurrency(given: Any) -> tuple[int | None, int]:
    text = str(given).strip()
    if text.endswith("%") and text[:-1].isdecimal() and 0 < int(text[:-1]) <= 100:
        return None, int(text[:-1])
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"concurrency: {given!r} is neither a number nor a percentage of nodes")
    return int(text), 0


def _windows(spec: Object) -> tuple[Window, ...]:
    """``window`` is one, as in a Plan of system-upgrade-controller; ``windows`` are several."""
    single = [spec["window"]] if spec.get("window") else []
    try:
        return tuple(map(window.parse, [*single, *(spec.get("windows") or ())]))
    except ValueError as err:
        raise ValueError(f"window: {err}") from err
