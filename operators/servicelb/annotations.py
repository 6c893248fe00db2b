"""
What a Service says in annotations: who may come, and which taints its addresses tolerate. Pure.

The field ``spec.loadBalancerSourceRanges`` goes before the annotation of the same meaning.
Source: K3s's documentation; the API's well-known annotations.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, NamedTuple

import yaml

SOURCES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"
TOLERATIONS_ANNOTATION = "svccontroller.k3s.cattle.io/tolerations"
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
_FIELDS = frozenset({"key", "operator", "value", "effect", "tolerationSeconds"})


class Toleration(NamedTuple):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""  # "": every effect
    seconds: int | None = None


def source_ranges(
    spec: Mapping[str, Any], annotations: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """The ranges (none: everybody), and what is wrong with them."""
    listed = spec.get("loadBalancerSourceRanges") or ()
    told = annotations.get(SOURCES_ANNOTATION, "").strip()
    texts = list(listed) if listed else (told.split(",") if told else [])
    found = []
    for text in texts:
        try:
            found.append(str(ip_network(text.strip(), strict=False)))
        except ValueError:
            return (), f"{SOURCES_ANNOTATION}: {told or text} is not a list of IP ranges"
    return tuple(dict.fromkeys(found)), ""


def tolerations(annotations: Mapping[str, str]) -> tuple[tuple[Toleration, ...], str]:
    """The tolerations, and what is wrong with them. The annotation is a list, YAML or JSON."""
    text = annotations.get(TOLERATIONS_ANNOTATION, "")
    if not text.strip():
        return (), ""
    try:
        listed = yaml.safe_load(text)
    except yaml.YAMLError as err:
        return (), f"{TOLERATIONS_ANNOTATION}: {str(err).splitlines()[0]}"
    if not isinstance(listed, list):
        return (), f"{TOLERATIONS_ANNOTATION}: not a list"
    found = []
    for at, entry in enumerate(listed):
        if wrong := _wrong_with(entry):
            return (), f"{TOLERATIONS_ANNOTATION}[{at}]: {wrong}"
        found.append(
            Toleration(
                str(entry.get("key") or ""),
                entry.get("operator") or "Equal",
                str(entry.get("value") or ""),
                entry.get("effect") or "",
                entry.get("tolerationSeconds"),
            )
        )
    return tuple(found), ""


def as_object(toleration: Toleration) -> dict[str, Any]:
    """As a pod's spec has it."""
    named = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
    }
    found: dict[str, Any] = {name: value for name, value in named.items() if value}
    if toleration.seconds is not None:
        found["tolerationSeconds"] = toleration.seconds
    return found


def _wrong_with(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "not an object"
    if unknown := sorted(str(name) for name in entry if name not in _FIELDS):
        return f"unknown field {unknown[0]}"
    operator = entry.get("operator") or "Equal"
    if operator not in {"Equal", "Exists"}:
        return f"operator {operator} is neither Equal nor Exists"
    if (entry.get("effect") or "") not in _EFFECTS:
        return f"effect {entry['effect']} is not known"
    if operator == "Equal" and not entry.get("key"):
        return "without a key, operator must be Exists"
    if operator == "Exists" and entry.get("value"):
        return "with operator Exists, value must be empty"
    seconds = entry.get("tolerationSeconds")
    if seconds is None:
        return ""
    if not isinstance(seconds, int) or entry.get("effect") != "NoExecute":
        return "tolerationSeconds is a number of seconds, with effect NoExecute only"
    return ""
