"""
From HelmChart, HelmChartConfig and the record of releases to the next step. Pure.

What was last wanted is remembered where Helm remembers what it did: each revision
that we make carries a hash of all that shapes it, and its own number, as labels of its
record. A revision that a person makes (``helm rollback`` copies the labels of an older
one) has a number that is not its own, so it is never taken for ours: what a person
did stands until the HelmChart changes. A restart forgets nothing.
"""

import enum
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.helm.base import Job, Source, Target

Object = Mapping[str, Any]

FINALIZER = "wrangler.cattle.io/on-helm-chart-remove"
UNMANAGED = "helmcharts.helm.cattle.io/unmanaged"
HASH_LABEL = "helmcharts.helm.cattle.io/configHash"
REVISION_LABEL = "pinnace.dev/helm-revision"
API_PLACEHOLDER = "%{KUBERNETES_API}%"
DEFAULT_TIMEOUT = 300  # seconds, Helm's
DEFAULT_BACKOFF_LIMIT = 1000  # attempts, K3s's
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Refused(Exception):
    """What the HelmChart asks for cannot be done; ``reason`` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Missing(Exception):
    """A Secret or ConfigMap that the HelmChart names is not there yet."""


class Step(enum.Enum):
    IGNORE = enum.auto()  # not ours to touch
    FORGET = enum.auto()  # take the finalizer away, nothing else
    UNINSTALL = enum.auto()
    INSTALL = enum.auto()
    UPGRADE = enum.auto()
    REINSTALL = enum.auto()  # uninstall, then install
    HEAL = enum.auto()  # a revision was interrupted: mark it failed and look again
    WAIT = enum.auto()  # somebody else may be at work on the release
    LEAVE = enum.auto()  # failed, and the failure policy is to leave it so
    NOTHING = enum.auto()  # as wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of a release, from the labels of its record."""

    version: int
    status: str
    hash: str  # "": made by somebody else
    recorded: int  # the number that we gave it; 0: made by somebody else
    modified_at: int  # seconds since 1970

    @property
    def ours(self) -> bool:
        return self.recorded == self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a HelmChart refers to, by name; None: not there."""

    config: Object | None
    secrets: Mapping[str, Object | None]
    config_maps: Mapping[str, Object | None]
    kubernetes_api: str
    cluster_ca: str


def target_of(chart: Object) -> Target:
    """Raises :class:`Refused` when the timeout is none."""
    spec, metadata = chart.get("spec") or {}, chart["metadata"]
    return Target(
        name=metadata["name"],
        namespace=spec.get("targetNamespace") or metadata["namespace"],
        driver=spec.get("driver") or "secret",
        timeout=seconds(spec.get("timeout") or ""),
    )


def seconds(text: str) -> int:
    """A Go duration, at least one second; the default for an empty one."""
    if not text:
        return DEFAULT_TIMEOUT
    parts = re.findall(r"([\d.]+)(h|ms|m|s|us|µs|ns)", text)
    if "".join(number + unit for number, unit in parts) != text:
        raise Refused("InvalidTimeout", f"spec.timeout {text!r} is not a duration such as 5m30s")
    try:
        return max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))
    except ValueError as err:
        raise Refused("InvalidTimeout", f"spec.timeout {text!r} is not a duration") from err


def names(chart: Object, config: Object | None) -> tuple[frozenset[str], frozenset[str]]:
    """The Secrets and the ConfigMaps that these two refer to, in the namespace of the chart."""
    spec = chart.get("spec") or {}
    entries = [*(spec.get("valuesSecrets") or ()), *(_spec(config).get("valuesSecrets") or ())]
    secrets = {entry["name"] for entry in entries if entry.get("keys")}
    secrets |= {_name(spec, "authSecret"), _name(spec, "dockerRegistrySecret")}
    return frozenset(secrets - {""}), frozenset({_name(spec, "repoCAConfigMap")} - {""})


def watched_secrets(chart: Object, config: Object | None) -> frozenset[str]:
    """The Secrets whose change is a change of the values."""
    entries = [
        *(_spec(chart).get("valuesSecrets") or ()),
        *(_spec(config).get("valuesSecrets") or ()),
    ]
    return frozenset(e["name"] for e in entries if e.get("keys") and not e.get("ignoreUpdates"))


def job_of(chart: Object, inputs: Inputs) -> Job:
    """
    What Helm is to do, without labels.

    Raises :class:`Refused` for what cannot be done, :class:`Missing` for what is not there yet.
    """
    spec, config = chart.get("spec") or {}, _spec(inputs.config)
    if spec.get("helmVersion") not in {None, "", "v3"}:
        raise Refused("UnsupportedVersion", f"helmVersion {spec['helmVersion']} is not supported")
    literal, text = _set(spec.get("set") or {})
    return Job(
        target=target_of(chart),
        source=_source(spec, inputs),
        values=(*_layers(spec, inputs), *_layers(config, inputs)),
        set=literal,
        set_string=text,
        create_namespace=bool(spec.get("createNamespace")),
        take_ownership=bool(spec.get("takeOwnership")),
        server_side=config.get("serverSide") or spec.get("serverSide") or "auto",
        force_conflicts=bool(_first(config.get("forceConflicts"), spec.get("forceConflicts"))),
    )


def failure_policy(chart: Object, config: Object | None) -> str:
    return str(
        _spec(config).get("failurePolicy") or _spec(chart).get("failurePolicy") or "reinstall"
    )


def backoff_limit(chart: Object) -> int:
    limit = _spec(chart).get("backOffLimit")
    return DEFAULT_BACKOFF_LIMIT if limit is None else int(limit)


def hash_of(job: Job, ignored: Sequence[str] = ()) -> str:
    """
    Of all that shapes the release; how to reach the chart, and how long to wait, do not.

    ``ignored``: documents of values whose change is no reason for an upgrade.
    """
    source, target = job.source, job.target
    shaped = {
        "release": [target.name, target.namespace, target.driver],
        "chart": [source.content] if source.content else [source.repo, source.chart],
        "version": "" if source.content else source.version,
        "values": [document for document in job.values if document not in ignored],
        "set": [job.set, job.set_string],
        "how": [job.take_ownership, job.server_side, job.force_conflicts],
    }
    # 40 digits: a label has room for 63 characters.
    return hashlib.sha256(json.dumps(shaped, sort_keys=True).encode()).hexdigest()[:40]


def ignored_values(chart: Object, inputs: Inputs) -> tuple[str, ...]:
    """The documents that come from Secrets with ``ignoreUpdates``."""
    return tuple(
        document
        for spec in (_spec(chart), _spec(inputs.config))
        for entry in spec.get("valuesSecrets") or ()
        if entry.get("ignoreUpdates")
        for document in _documents(entry, inputs)
    )


def labels(
    config_hash: str, history: Sequence[Revision], step: Step
) -> tuple[tuple[str, str], ...]:
    """Of the revision that this step makes."""
    last = 0 if step is Step.REINSTALL or not history else history[-1].version
    return ((HASH_LABEL, config_hash), (REVISION_LABEL, str(last + 1)))


def history_of(records: Sequence[Object]) -> tuple[Revision, ...]:
    """From the metadata of the records in which Helm keeps a release; oldest first."""
    found = []
    for metadata in records:
        label = metadata.get("labels") or {}
        if label.get("owner") == "helm" and label.get("version", "").isdecimal():
            recorded = label.get(REVISION_LABEL, "")
            modified = label.get("modifiedAt") or label.get("createdAt") or ""
            revision = Revision(
                version=int(label["version"]),
                status=label.get("status", "unknown"),
                hash=label.get(HASH_LABEL, ""),
                recorded=int(recorded) if recorded.isdecimal() else 0,
                modified_at=int(modified) if modified.isdecimal() else 0,
            )
            found.append(revision)
    return tuple(sorted(found, key=lambda revision: revision.version))


def recorded_hash(history: Sequence[Revision]) -> str:
    """What the last revision of ours was made from; "": there is none."""
    return next((found.hash for found in reversed(history) if found.ours), "")


def on_deletion(chart: Object, namespace: Object | None, history: Sequence[Revision]) -> Step:
    if FINALIZER not in (chart["metadata"].get("finalizers") or ()):
        return Step.IGNORE
    # All in it goes anyway, and what an uninstall needs may be gone already.
    terminating = namespace is None or "deletionTimestamp" in namespace["metadata"]
    return Step.FORGET if terminating or not history else Step.UNINSTALL


def decide(
    history: Sequence[Revision], wanted_hash: str, *, policy: str, timeout: int, now: float
) -> Step:
    """``now``: seconds since 1970. No step of ours is under way when this is asked."""
    if not history or history[-1].status == "uninstalled":
        return Step.INSTALL
    last = history[-1]
    match last.status:
        case "uninstalling":
            return Step.REINSTALL
        case "failed" if policy == "abort":
            return Step.LEAVE
        case "failed":
            return Step.UPGRADE if policy == "retry" else Step.REINSTALL
        case status if status.startswith("pending-"):
            abandoned = last.ours or now - last.modified_at > timeout
            return Step.HEAL if abandoned else Step.WAIT
        case _:
            return Step.NOTHING if recorded_hash(history) == wanted_hash else Step.UPGRADE


def _spec(thing: Object | None) -> Object:
    return (thing or {}).get("spec") or {}


def _name(spec: Object, field: str) -> str:
    return str((spec.get(field) or {}).get("name") or "")


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _layers(spec: Object, inputs: Inputs) -> list[str]:
    layers = [spec.get("valuesContent") or ""]
    if spec.get("values"):
        layers.append(json.dumps(spec["values"], sort_keys=True))
    for entry in spec.get("valuesSecrets") or ():
        layers += _documents(entry, inputs)
    return [layer for layer in layers if layer]


def _documents(entry: Object, inputs: Inputs) -> list[str]:
    keys = entry.get("keys") or ()
    secret = inputs.secrets.get(entry["name"])
    data = (secret or {}).get("data") or {}
    absent = [key for key in keys if key not in data]
    if absent and not entry.get("ignoreUpdates"):
        raise Missing(f"Secret {entry['name']} with {', '.join(absent)} is not there")
    return [_decoded(data, key) for key in keys if key in data]


def _decoded(data: Object, key: str) -> str:
    return b64decode(data.get(key) or "").decode(errors="replace")


def _set(given: Object) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """For ``--set`` and for ``--set-string``, in the order of their names."""
    literal, text = [], []
    for path, value in sorted(given.items()):
        if isinstance(value, int) or str(value).lower() in {"true", "false", "null"}:
            literal.append((path, str(value).lower() if isinstance(value, bool) else str(value)))
        else:
            text.append((path, str(value).replace(",", r"\,")))
    return tuple(literal), tuple(text)


def _source(spec: Object, inputs: Inputs) -> Source:
    if spec.get("chartContent"):
        return Source(content=spec["chartContent"])
    chart, repo = spec.get("chart") or "", spec.get("repo") or ""
    if not chart:
        raise Refused("NoChart", "spec.chart or spec.chartContent is needed")
    if not repo and not chart.startswith(("https://", "http://", "oci://")):
        raise Refused(
            "NoRepository", f"spec.chart {chart!r} is a name: spec.repo must say where it is"
        )
    return Source(
        chart=chart.replace(API_PLACEHOLDER, inputs.kubernetes_api),
        repo=repo.replace(API_PLACEHOLDER, inputs.kubernetes_api),
        version=spec.get("version") or "",
        ca=_authorities(spec, inputs),
        **_credentials(spec, inputs),
        pass_credentials=bool(spec.get("authPassCredentials")),
        insecure=bool(spec.get("insecureSkipTLSVerify")),
        plain_http=bool(spec.get("plainHTTP")),
    )


def _authorities(spec: Object, inputs: Inputs) -> str:
    texts = [spec.get("repoCA") or ""]
    if name := _name(spec, "repoCAConfigMap"):
        found = inputs.config_maps.get(name)
        if found is None:
            raise Missing(f"ConfigMap {name} is not there")
        texts += [text for _, text in sorted((found.get("data") or {}).items())]
    if API_PLACEHOLDER in f"{spec.get('chart')}{spec.get('repo')}":
        texts.append(inputs.cluster_ca)
    return "\n".join(text.strip() for text in texts if text.strip())


def _credentials(spec: Object, inputs: Inputs) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, keys in (
        ("authSecret", ("username", "password", "tls.crt", "tls.key")),
        ("dockerRegistrySecret", (".dockerconfigjson",)),
    ):
        if name := _name(spec, field):
            secret = inputs.secrets.get(name)
            if secret is None:
                raise Missing(f"Secret {name} is not there")
            found |= {key: _decoded(secret.get("data") or {}, key) for key in keys}
    fields = {
        "username": "username",
        "password": "password",
        "certificate": "tls.crt",
        "key": "tls.key",
        "registry_auth": ".dockerconfigjson",
    }
    return {field: found.get(key, "") for field, key in fields.items()}
