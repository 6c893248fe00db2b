"""PersistentVolumes, claims on them, and storage classes."""

from controlplane.objects import quantity
from controlplane.objects.errors import forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, metadata, names, scheduling, volumes
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object, formed

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES = ("Block", "Filesystem")
_RECLAIM = ("Delete", "Recycle", "Retain")
_SOURCE_FIXED = "spec.persistentvolumesource is immutable after creation"
_MOST_PARAMETERS = 512
_CLAIM_FIXED = (
    "spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)


def persistent_volume(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from _access_modes(spec, "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    if "storage" not in capacity or len(capacity) > 1:
        for name in capacity:
            if name != "storage":
                yield from checks.one_of(name, ("storage",), "spec.capacity")
    for name, value in capacity.items():
        yield from _size(value, f"spec.capacity[{name}]")
    yield from volumes.source(spec, "spec")
    policy = spec.get("persistentVolumeReclaimPolicy")
    yield from checks.optional_one_of(policy, _RECLAIM, "spec.persistentVolumeReclaimPolicy")
    yield from _common(spec)
    path = "spec.nodeAffinity"
    needed = (spec.get("nodeAffinity") or {}).get("required")
    if needed is not None:
        yield from scheduling.node_selector(needed, f"{path}.required")
    elif spec.get("local") is not None:
        yield required(path, "Local volume requires node affinity")


def persistent_volume_updated(new: Object, old: Object) -> Found:
    yield from persistent_volume(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for name in volumes.SOURCES:
        if after.get(name) != before.get(name):
            yield forbidden_field("spec.persistentvolumesource", _SOURCE_FIXED)
            break
    yield from checks.unchanged(after, before, "volumeMode", "spec")
    if before.get("nodeAffinity") is not None:
        yield from checks.unchanged(after, before, "nodeAffinity", "spec")


def claim(obj: Object) -> Found:
    yield from claim_spec(obj.get("spec") or {})


def claim_spec(spec: Object) -> Found:
    yield from _access_modes(spec, "spec.accessModes")
    if spec.get("selector") is not None:
        yield from metadata.selector(spec["selector"], "spec.selector")
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield required("spec.resources[storage]")
    else:
        yield from _size(size, "spec.resources[storage]")
    yield from _common(spec)


def claim_updated(new: Object, old: Object) -> Found:
    yield from claim(new)
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    status = old.get("status") or {}
    bound = status.get("phase") == "Bound"
    # Binding sets the volume once; a class may be filled in while there is none.
    if not before.get("volumeName"):
        before["volumeName"] = after.get("volumeName")
    if before.get("storageClassName") is None:
        before["storageClassName"] = after.get("storageClassName")
    new_size, old_size = _request(after), _request(before)
    if bound:
        after.pop("volumeAttributesClassName", None)
        before.pop("volumeAttributesClassName", None)
        if new_size and old_size and quantity.compare(new_size, old_size) < 0:
            # Back from a growth that failed, but never to less than there is (KEP-1790).
            has = (status.get("capacity") or {}).get("storage", "0")
            if quantity.compare(new_size, has) <= 0:
                text = "field can not be less than status.capacity"
                yield forbidden_field("spec.resources.requests.storage", text)
        after["resources"] = before.get("resources")
    if _present(after) != _present(before):
        yield forbidden_field("spec", _CLAIM_FIXED)


def _present(spec: Object) -> dict[str, object]:
    return {key: value for key, value in spec.items() if value is not None}


def _request(spec: Object) -> str | None:
    found: str | None = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return found


def _access_modes(spec: Object, path: str) -> Found:
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(path, "at least 1 access mode is required")
    for mode in modes:
        yield from checks.one_of(mode, _MODES, path)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        text = "may not use ReadWriteOncePod with other access modes"
        yield forbidden_field(path, text)


def _size(value: object, path: str) -> Found:
    broken = list(checks.amount(value, path))
    yield from broken
    if not broken and isinstance(value, str | int | float) and quantity.nanos(value) == 0:
        yield invalid_value(path, str(value), "must be greater than zero")


def _common(spec: Object) -> Found:
    if name := spec.get("storageClassName"):
        yield from formed(names.dns1123_subdomain, name, "spec.storageClassName")
    yield from checks.optional_one_of(spec.get("volumeMode"), _VOLUME_MODES, "spec.volumeMode")


def storage_class(obj: Object) -> Found:
    provisioner = obj.get("provisioner") or ""
    if provisioner:
        yield from formed(names.qualified_name, provisioner.lower(), "provisioner")
    else:
        yield required("provisioner")
    parameters = obj.get("parameters") or {}
    if len(parameters) > _MOST_PARAMETERS:
        yield checks.too_long("parameters", _MOST_PARAMETERS)
    if "" in parameters:
        yield invalid_value("parameters", "", "field must not be empty.")
    yield from checks.optional_one_of(
        obj.get("reclaimPolicy"), ("Delete", "Retain"), "reclaimPolicy"
    )
    mode = obj.get("volumeBindingMode")
    if mode is None:
        yield required("volumeBindingMode")
    else:
        yield from checks.one_of(mode, ("Immediate", "WaitForFirstConsumer"), "volumeBindingMode")


def storage_class_updated(new: Object, old: Object) -> Found:
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        yield forbidden_field("parameters", "updates to parameters are forbidden.")
    if new.get("provisioner") != old.get("provisioner"):
        yield forbidden_field("provisioner", "updates to provisioner are forbidden.")
    if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
        yield forbidden_field("reclaimPolicy", "updates to reclaimPolicy are forbidden.")
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        yield invalid_value("volumeBindingMode", new.get("volumeBindingMode"), IMMUTABLE)
    yield from storage_class(new)
