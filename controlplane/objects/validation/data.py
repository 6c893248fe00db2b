"""ConfigMaps and Secrets."""

import base64
import binascii

import orjson

from controlplane.objects.errors import FieldError, forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, names
from controlplane.objects.validation.checks import Found, Object, formed

_LIMIT = 1024 * 1024
_IMMUTABLE = "field is immutable when `immutable` is set"
_DOCKER_CONFIG = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


def config_map(obj: Object) -> Found:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    size = 0
    for key, value in data.items():
        yield from formed(names.config_key, key, f"data[{key}]")
        if key in binary:
            text = "duplicate of key present in binaryData"
            yield invalid_value(f"data[{key}]", key, text)
        size += len(value.encode())
    for key, value in binary.items():
        yield from formed(names.config_key, key, f"binaryData[{key}]")
        size += _decoded_size(value)
    if size > _LIMIT:
        yield checks.too_long("", _LIMIT)


def config_map_updated(new: Object, old: Object) -> Found:
    yield from _kept(new, old, ("data", "binaryData"))
    yield from config_map(new)


def secret(obj: Object) -> Found:
    data = obj.get("data") or {}
    for key in data:
        yield from formed(names.config_key, key, f"data[{key}]")
    if sum(map(_decoded_size, data.values())) > _LIMIT:
        yield checks.too_long("data", _LIMIT)
    yield from _of_type(obj.get("type") or "", obj, data)


def _of_type(kind: str, obj: Object, data: Object) -> Found:
    match kind:
        case "kubernetes.io/service-account-token":
            annotations = (obj.get("metadata") or {}).get("annotations") or {}
            name = "kubernetes.io/service-account.name"
            if not annotations.get(name):
                yield required(f"metadata.annotations[{name}]")
        case "kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson":
            yield from _docker_config(data, _DOCKER_CONFIG[kind])
        case "kubernetes.io/basic-auth":
            if "username" not in data and "password" not in data:
                yield required("data[username]")
                yield required("data[password]")
        case "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                yield required("data[ssh-privatekey]")
        case "kubernetes.io/tls":
            missing = [key for key in ("tls.crt", "tls.key") if key not in data]
            yield from (required(f"data[{key}]") for key in missing)
        case _:
            return


def _docker_config(data: Object, key: str) -> Found:
    path = f"data[{key}]"
    if key not in data:
        yield required(path)
        return
    try:
        orjson.loads(base64.b64decode(data[key]))
    except (orjson.JSONDecodeError, binascii.Error):
        yield FieldError(
            "FieldValueInvalid",
            path,
            'Invalid value: "<secret contents redacted>": invalid character in JSON',
        )


def secret_updated(new: Object, old: Object) -> Found:
    if new.get("type") != old.get("type"):
        yield invalid_value("type", new.get("type") or "", checks.IMMUTABLE)
    yield from _kept(new, old, ("data",))
    yield from secret(new)


def _kept(new: Object, old: Object, fields: tuple[str, ...]) -> Found:
    """What an immutable one must keep, the flag itself included."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield forbidden_field("immutable", _IMMUTABLE)
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            yield forbidden_field(field, _IMMUTABLE)


def _decoded_size(text: str) -> int:
    """Of base64; arithmetic, since decoding would copy it all."""
    return len(text) * 3 // 4 - text[-2:].count("=")
