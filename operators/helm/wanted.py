"""
What a HelmChart and its HelmChartConfig ask for, field by field. Pure.

A HelmChart is what K3s's Helm controller takes, and a few fields more; the order in which
values count is K3s's: the chart's own, then ``valuesContent``, ``values`` and ``valuesSecrets``
of the HelmChart, the same three of the HelmChartConfig, and ``set`` over all.
"""

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.helm.base import Job, Source, Target
from operators.window import Window, parse

Object = Mapping[str, Any]

API_PLACEHOLDER = "%{KUBERNETES_API}%"
CHECK = "helm.pinnace.dev/check"
CHART_URL = "helm.cattle.io/chart-url"  # where whoever made the object had the content from
DEFAULT_TIMEOUT = 300  # seconds, Helm's
DEFAULT_BACKOFF_LIMIT = 1000  # attempts, K3s's
SHORTEST_INTERVAL = 60  # seconds between two looks for drift
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Refused(Exception):
    """What the HelmChart asks for cannot be done; ``reason`` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Missing(Exception):
    """A Secret or ConfigMap that the HelmChart names is not there yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a HelmChart refers to, by name; None: not there."""

    config: Object | None
    secrets: Mapping[str, Object | None]
    config_maps: Mapping[str, Object | None]
    kubernetes_api: str
    cluster_ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What to do about objects that are not as the release made them."""

    mode: str  # detect, correct
    ignore: tuple[Object, ...]  # {kind, name, paths}, each as it was given
    interval: int | None  # seconds; None: only when there is another reason to look


def target_of(chart: Object) -> Target:
    """Raises :class:`Refused` when the timeout is none."""
    spec, metadata = spec_of(chart), chart["metadata"]
    return Target(
        name=metadata["name"],
        namespace=spec.get("targetNamespace") or metadata["namespace"],
        driver=spec.get("driver") or "secret",
        timeout=seconds(spec.get("timeout") or ""),
    )


def seconds(text: str, *, field: str = "timeout", default: int = DEFAULT_TIMEOUT) -> int:
    """A Go duration, at least one second; the default for an empty one."""
    if not text:
        return default
    parts = re.findall(r"([\d.]+)(h|ms|m|s|us|µs|ns)", text)
    if text != "0" and "".join(number + unit for number, unit in parts) != text:
        raise Refused(_invalid(field), f"spec.{field} {text!r} is not a duration such as 5m30s")
    try:
        return max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))
    except ValueError as err:
        raise Refused(_invalid(field), f"spec.{field} {text!r} is not a duration") from err


def _invalid(field: str) -> str:
    return "Invalid" + "".join(part[0].upper() + part[1:] for part in field.split("."))


def names(chart: Object, config: Object | None) -> tuple[frozenset[str], frozenset[str]]:
    """The Secrets and the ConfigMaps that these two refer to, in the namespace of the chart."""
    spec = spec_of(chart)
    secrets = {entry["name"] for entry in _value_secrets(chart, config)}
    secrets |= {_name(spec, "authSecret"), _name(spec, "dockerRegistrySecret")}
    return frozenset(secrets - {""}), frozenset({_name(spec, "repoCAConfigMap")} - {""})


def names_the_api(chart: Object) -> bool:
    """Whether the chart comes from the API server, whose authority is the cluster's."""
    return _names_the_api(spec_of(chart))


def authorities_of(chart: Object) -> str:
    """The path of the ConfigMap that holds them; "": there is none."""
    name = _name(spec_of(chart), "repoCAConfigMap")
    return f"/api/v1/namespaces/{chart['metadata']['namespace']}/configmaps/{name}" if name else ""


def watched_secrets(chart: Object, config: Object | None) -> frozenset[str]:
    """The Secrets whose change is a reason to look: of the values, or of the way to the chart."""
    spec = spec_of(chart)
    values = {e["name"] for e in _value_secrets(chart, config) if not e.get("ignoreUpdates")}
    access = {_name(spec, "authSecret"), _name(spec, "dockerRegistrySecret")}
    return frozenset(values | access - {""})


def _value_secrets(chart: Object, config: Object | None) -> list[Object]:
    entries = [
        *(spec_of(chart).get("valuesSecrets") or ()),
        *(spec_of(config).get("valuesSecrets") or ()),
    ]
    return [entry for entry in entries if entry.get("keys") and entry.get("name")]


def access_of(chart: Object, inputs: Inputs) -> str:
    """
    Changes whenever a credential or an authority on the way to the chart does.

    Of their versions, not of what they say: it is written where others may read it.
    """
    spec = spec_of(chart)
    secrets = (_name(spec, "authSecret"), _name(spec, "dockerRegistrySecret"))
    found = [inputs.secrets.get(name) for name in secrets]
    found.append(inputs.config_maps.get(_name(spec, "repoCAConfigMap")))
    versions = [
        [thing["metadata"].get("uid"), thing["metadata"].get("resourceVersion")] if thing else None
        for thing in found
    ]
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16] if any(versions) else ""


def job_of(chart: Object, inputs: Inputs) -> Job:
    """
    What Helm is to do, without labels.

    Raises :class:`Refused` for what cannot be done, :class:`Missing` for what is not there yet.
    """
    spec, config = spec_of(chart), spec_of(inputs.config)
    if spec.get("helmVersion") not in {None, "", "v3"}:
        raise Refused("UnsupportedVersion", "Only Helm v3 charts are supported")
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
        # To go back from what does not come up, one must see that it does not.
        wait=failure_policy(chart, inputs.config) == "rollback",
    )


def failure_policy(chart: Object, config: Object | None) -> str:
    return str(
        spec_of(config).get("failurePolicy") or spec_of(chart).get("failurePolicy") or "reinstall"
    )


def backoff_limit(chart: Object) -> int:
    limit = spec_of(chart).get("backOffLimit")
    return DEFAULT_BACKOFF_LIMIT if limit is None else int(limit)


def dependencies(chart: Object) -> tuple[str, ...]:
    """The HelmCharts that must be ready first, as namespace/name."""
    here = chart["metadata"]["namespace"]
    found = spec_of(chart).get("dependsOn") or ()
    return tuple(f"{entry.get('namespace') or here}/{entry['name']}" for entry in found)


def window_of(chart: Object) -> Window | None:
    """When the chart may be upgraded; None: always. Raises :class:`Refused`."""
    given = spec_of(chart).get("maintenanceWindow")
    if not given:
        return None
    try:
        return parse(given)
    except ValueError as err:
        raise Refused("InvalidMaintenanceWindow", f"spec.maintenanceWindow.{err}") from err


def drift_of(chart: Object) -> Drift | None:
    """None: nobody asked. Raises :class:`Refused`."""
    given = spec_of(chart).get("driftDetection") or {}
    if given.get("mode") not in {"detect", "correct"}:
        return None
    interval = seconds(given.get("interval") or "", field="driftDetection.interval", default=0)
    return Drift(
        mode=given["mode"],
        ignore=tuple(given.get("ignore") or ()),
        interval=max(interval, SHORTEST_INTERVAL) if interval else None,
    )


def origin_of(chart: Object) -> str:
    """Where the chart comes from, for a person."""
    spec = spec_of(chart)
    if spec.get("chartContent"):
        url = (chart["metadata"].get("annotations") or {}).get(CHART_URL)
        return f"spec.chartContent from {url}" if url else "spec.chartContent"
    named = str(spec.get("chart") or "")
    version = f" version {spec['version']}" if spec.get("version") else ""
    place = f" from {spec['repo']}" if spec.get("repo") else ""
    return f"{named}{version}{place}"


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
        for spec in (spec_of(chart), spec_of(inputs.config))
        for entry in spec.get("valuesSecrets") or ()
        if entry.get("ignoreUpdates")
        for document in _documents(entry, inputs)
    )


def spec_of(thing: Object | None) -> Object:
    return (thing or {}).get("spec") or {}


def _names_the_api(spec: Object) -> bool:
    return API_PLACEHOLDER in f"{spec.get('chart')}{spec.get('repo')}"


def _name(spec: Object, field: str) -> str:
    return str((spec.get(field) or {}).get("name") or "")


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _layers(spec: Object, inputs: Inputs) -> list[str]:
    layers = [spec.get("valuesContent") or ""]
    if spec.get("values"):
        layers.append(_yaml(spec["values"]))
    for entry in spec.get("valuesSecrets") or ():
        layers += _documents(entry, inputs)
    return [layer for layer in layers if layer]


def _yaml(values: Any) -> str:
    """JSON, but for what JSON escapes otherwise than YAML: letters beyond the 16-bit ones."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return re.sub(r"[^\x20-\x7e]", lambda letter: f"\\U{_number(letter[0]):08x}", text)


def _number(letter: str) -> int:
    half = "\ud800" <= letter <= "\udfff"  # of a pair whose other half is not there
    return 0xFFFD if half else ord(letter)


def _documents(entry: Object, inputs: Inputs) -> list[str]:
    keys = entry.get("keys") or ()
    secret = inputs.secrets.get(entry.get("name") or "")
    data = (secret or {}).get("data") or {}
    absent = [key for key in keys if key not in data]
    if absent and not entry.get("ignoreUpdates"):
        raise Missing(f"Secret {entry.get('name')} with {', '.join(absent)} is not there")
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
            text.append((path, re.sub(r"\\*,", _escaped, str(value))))
    return tuple(literal), tuple(text)


def _escaped(comma: re.Match[str]) -> str:
    """A comma that no backslash escapes yet; two of them are one backslash."""
    return f"\\{comma[0]}" if len(comma[0]) % 2 else comma[0]


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
    if _names_the_api(spec):
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
