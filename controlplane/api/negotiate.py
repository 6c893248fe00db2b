"""
What a client sends and what it can read: media types, and the forms of an answer.

Bodies come as JSON, YAML or protobuf (kubectl and Helm send the last for
built-in kinds and do not fall back). Answers are JSON or YAML: the object
itself, a Table, or the metadata alone. Source: the API conventions, KEP-2334.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from controlplane.api.bodies import read_json, read_yaml
from controlplane.objects.errors import (
    StatusError,
    bad_request,
    not_acceptable,
    unsupported_media_type,
)
from controlplane.objects.kinds import Kind
from controlplane.objects.schema import Schemas

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
_KNOWN = (JSON, YAML, PROTOBUF)
_FORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


@dataclass(frozen=True, slots=True)
class Output:
    """The form of an answer; ``form`` "": the object as it is."""

    media: str = JSON
    form: str = ""
    version: str = "v1"  # of the form, in meta.k8s.io
    pretty: bool = False

    @property
    def content_type(self) -> str:
        return self.media


@lru_cache(maxsize=256)
def output_for(accept: str, *, pretty: bool = False) -> Output:
    """The first that we have of what the client takes; 406 if none."""
    if not accept:
        return Output(pretty=pretty)
    for clause in _clauses(accept):
        media, parameters = clause
        if media in ("*/*", "application/*"):
            media = JSON
        if media not in (JSON, YAML):
            continue
        form = parameters.get("as", "")
        if not form:
            return Output(media, pretty=pretty)
        version = parameters.get("v", "")
        group = parameters.get("g", "")
        if form in _FORMS and group == "meta.k8s.io" and version in ("v1", "v1beta1"):
            return Output(media, form, version, pretty)
    raise not_acceptable(f"only the following media types are accepted: {JSON}, {YAML}")


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """By preference (q), then in the client's order."""
    found: list[tuple[float, str, dict[str, str]]] = []
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if quality > 0:
            found.append((quality, media.lower(), parameters))
    found.sort(key=lambda clause: -clause[0])
    return [(media, parameters) for _, media, parameters in found]


def media_type(content_type: str) -> str:
    """Without parameters; what browsers and curl send by default counts as JSON."""
    media = content_type.partition(";")[0].strip().lower()
    return JSON if media in ("", "application/x-www-form-urlencoded") else media


def read_object(
    raw: bytes, content_type: str, kind: Kind | None, schemas: Schemas
) -> dict[str, Any]:
    """
    A request body as an object. ``kind`` None: of any kind (options, reviews).

    400 for what cannot be read, 415 for another media type.
    """
    media = media_type(content_type)
    match media:
        case "application/json":
            value = read_json(raw)
        case "application/yaml" | "text/yaml":
            value = read_yaml(raw)
        case "application/vnd.kubernetes.protobuf":
            value = _read_protobuf(raw, kind, schemas)
        case _:
            raise unsupported_media_type(media, _KNOWN)
    if not isinstance(value, dict):
        raise bad_request(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_go_name(value)} into Go value of type struct"
        )
    return value


def _read_protobuf(raw: bytes, kind: Kind | None, schemas: Schemas) -> dict[str, Any]:
    from controlplane.objects import protobuf

    if kind is not None and kind.custom:
        raise unsupported_media_type(PROTOBUF, (JSON, YAML))
    return protobuf.decode(raw)


def _go_name(value: object) -> str:
    match value:
        case list():
            return "array"
        case str():
            return "string"
        case bool():
            return "bool"
        case None:
            return "null"
        case _:
            return "number"


def has_duplicates(raw: bytes, value: object) -> bool:
    """False only where a body surely says no field twice: it is as long as it must be."""
    return len(orjson.dumps(value)) != len(raw.strip())


def render(data: bytes, output: Output) -> bytes:
    """Served JSON in the media type asked for, with a newline at its end."""
    if output.media == YAML:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text: bytes = yaml.dump(
            orjson.loads(data), Dumper=dumper, default_flow_style=False, encoding="utf-8"
        )
        return text
    if output.pretty:
        return orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2) + b"\n"
    return data if data.endswith(b"\n") else data + b"\n"


def status_bytes(error: StatusError) -> bytes:
    try:
        return orjson.dumps(error.body())
    except TypeError:  # what a client sent may be no Unicode, and is quoted in a message
        return json.dumps(error.body()).encode()


def warning_header(text: str) -> str:
    """RFC 7234, as upstream writes them."""
    clean = "".join(sign if sign.isprintable() else " " for sign in text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def partial_metadata(metadata: Mapping[str, Any], version: str) -> dict[str, Any]:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
    }
