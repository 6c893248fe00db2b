"""What a pod says about where it wants to run: affinity, tolerations, spreading."""

from collections.abc import Iterable

from controlplane.objects.errors import duplicate, forbidden_field, invalid_value, required
from controlplane.objects.selectors import is_int64
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import Found, Object, formed

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def of_pod(spec: Object, path: str) -> Found:
    yield from metadata.labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    yield from affinity(spec.get("affinity") or {}, f"{path}.affinity")
    yield from tolerations(spec.get("tolerations") or (), f"{path}.tolerations")
    yield from _spreading(
        spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints"
    )
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        where = f"{path}.schedulingGates[{index}]"
        yield from checks.required_form(names.qualified_name, gate.get("name"), where)


def affinity(given: Object, path: str) -> Found:
    node = given.get("nodeAffinity") or {}
    if (needed := node.get(REQUIRED)) is not None:
        yield from node_selector(needed, f"{path}.nodeAffinity.{REQUIRED}")
    for index, term in enumerate(node.get(PREFERRED) or ()):
        where = f"{path}.nodeAffinity.{PREFERRED}[{index}]"
        yield from _weight(term, where)
        yield from node_term(term.get("preference") or {}, f"{where}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = given.get(kind) or {}
        for index, term in enumerate(pods.get(REQUIRED) or ()):
            yield from _pod_term(term, f"{path}.{kind}.{REQUIRED}[{index}]")
        for index, term in enumerate(pods.get(PREFERRED) or ()):
            where = f"{path}.{kind}.{PREFERRED}[{index}]"
            yield from _weight(term, where)
            yield from _pod_term(term.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def _weight(term: Object, path: str) -> Found:
    weight = term.get("weight") or 0
    if not 1 <= weight <= 100:
        yield invalid_value(f"{path}.weight", weight, "must be in the range 1-100")


def node_selector(given: Object, path: str) -> Found:
    terms = given.get("nodeSelectorTerms") or ()
    if not terms:
        text = "must have at least one node selector term"
        yield required(f"{path}.nodeSelectorTerms", text)
    for index, term in enumerate(terms):
        yield from node_term(term, f"{path}.nodeSelectorTerms[{index}]")


def node_term(term: Object, path: str) -> Found:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        yield from _node_requirement(requirement, where)
        yield from formed(names.qualified_name, requirement.get("key") or "", f"{where}.key")
    for index, requirement in enumerate(term.get("matchFields") or ()):
        where = f"{path}.matchFields[{index}]"
        if requirement.get("operator") not in ("In", "NotIn"):
            text = "not a valid selector operator"
            yield invalid_value(f"{where}.operator", requirement.get("operator") or "", text)
        if len(requirement.get("values") or ()) != 1:
            text = (
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
            yield required(f"{where}.values", text)
        if requirement.get("key") != "metadata.name":
            text = "not a valid field selector key"
            yield invalid_value(f"{where}.key", requirement.get("key") or "", text)


def _node_requirement(requirement: Object, path: str) -> Found:
    values = list(requirement.get("values") or ())
    match requirement.get("operator"):
        case "In" | "NotIn":
            if not values:
                text = "must be specified when `operator` is 'In' or 'NotIn'"
                yield required(f"{path}.values", text)
        case "Exists" | "DoesNotExist":
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield forbidden_field(f"{path}.values", text)
        case "Gt" | "Lt":
            if len(values) != 1:
                text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                yield required(f"{path}.values", text)
            elif not is_int64(values[0]):
                text = "must be an integer when `operator` is 'Lt' or 'Gt'"
                yield invalid_value(f"{path}.values[0]", values[0], text)
        case other:
            yield invalid_value(f"{path}.operator", other or "", "not a valid selector operator")


def _pod_term(term: Object, path: str) -> Found:
    yield from metadata.selector(term.get("labelSelector"), f"{path}.labelSelector")
    yield from metadata.selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for index, namespace in enumerate(term.get("namespaces") or ()):
        yield from formed(names.dns1123_label, namespace, f"{path}.namespaces[{index}]")
    if key := term.get("topologyKey"):
        yield from formed(names.qualified_name, key, f"{path}.topologyKey")
    else:
        yield required(f"{path}.topologyKey", "can not be empty")


def tolerations(given: Iterable[Object], path: str) -> Found:
    for index, toleration in enumerate(given):
        where = f"{path}[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        value, effect = toleration.get("value") or "", toleration.get("effect") or ""
        if key:
            yield from formed(names.qualified_name, key, f"{where}.key")
        elif operator != "Exists":
            text = (
                "operator must be Exists when `key` is empty, which means "
                '"match all values and all keys"'
            )
            yield invalid_value(f"{where}.operator", operator, text)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield invalid_value(f"{where}.effect", effect, text)
        match operator:
            case "" | "Equal":
                for complaint in names.label_value(value):
                    yield invalid_value(f"{where}.operator", value, complaint)
            case "Exists":
                if value:
                    text = "value must be empty when `operator` is 'Exists'"
                    yield invalid_value(f"{where}.operator", dict(toleration), text)
            case _:
                yield from checks.one_of(operator, ("Equal", "Exists"), f"{where}.operator")
        yield from checks.optional_one_of(effect, _EFFECTS, f"{where}.effect")


def _spreading(constraints: Iterable[Object], path: str) -> Found:
    seen: set[tuple[object, object]] = set()
    for index, constraint in enumerate(constraints):
        where = f"{path}[{index}]"
        if (constraint.get("maxSkew") or 0) <= 0:
            skew = constraint.get("maxSkew") or 0
            yield invalid_value(f"{where}.maxSkew", skew, "must be greater than zero")
        key, action = constraint.get("topologyKey"), constraint.get("whenUnsatisfiable")
        if not key:
            yield required(f"{where}.topologyKey", "can not be empty")
        known = ("DoNotSchedule", "ScheduleAnyway")
        yield from checks.one_of(action, known, f"{where}.whenUnsatisfiable")
        if (key, action) in seen:
            yield duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
        seen.add((key, action))
        domains = constraint.get("minDomains")
        if domains is not None and domains <= 0:
            yield invalid_value(f"{where}.minDomains", domains, "must be greater than zero")
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            known = ("Honor", "Ignore")
            yield from checks.optional_one_of(constraint.get(name), known, f"{where}.{name}")
        yield from metadata.selector(constraint.get("labelSelector"), f"{where}.labelSelector")
