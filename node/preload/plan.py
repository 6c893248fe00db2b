"""
What an archive of images holds, from its few files that are JSON: an OCI image layout
(``index.json``) or what ``docker save`` writes (``manifest.json``).

Pure: it gets documents and digests, and says which images there are for this machine, of
which content, and which labels keep that content from being removed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.cri.reference import normalise

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
_NAME, _TAG = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_LABEL = "containerd.io/gc.ref.content"
_DEEPEST = 8  # indexes within indexes


class Unusable(Exception):
    """The archive has no image that this machine could run; one line that says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """As images name it: ``amd64``, ``arm64``, ``arm`` with ``v7``."""

    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        variant = f"/{self.variant}" if self.variant else ""
        return f"linux/{self.architecture}{variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the archive. ``packed``: it is compressed, as a layer may be."""

    digest: str
    size: int
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """As in the image specification."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """``made``: a manifest that the archive does not hold and that is to be written."""

    names: tuple[str, ...]
    target: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    labels: Mapping[str, Mapping[str, str]]  # content → its labels
    made: bytes = b""

    def content(self) -> Iterator[str]:
        """The digests of what must be there."""
        yield from dict.fromkeys([*self.labels, self.config.digest, *_digests(self.layers)])


def images(
    files: Mapping[str, Blob], documents: Mapping[str, bytes], machine: Machine, undated: str
) -> list[Image]:
    """
    All images with a name. Raises :class:`Unusable`.

    ``files``: by name; ``documents``: by digest, of those that are JSON. ``undated``: the
    name of an image that has only a tag.
    """
    try:
        if "oci-layout" in files and "index.json" in files:
            found = list(_of_layout(files, documents, machine, undated))
        elif "manifest.json" in files:
            found = list(_of_docker(files, documents, machine))
        else:
            raise Unusable("no archive of images: no index.json with oci-layout, no manifest.json")
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        # Anybody may have written it: a list where an object belongs, a number for a name.
        raise Unusable(f"its JSON is not what the specifications say: {err}") from err
    if not found:
        raise Unusable("no image in it has a name")
    return found


def rank(platform: Mapping[str, Any] | None, machine: Machine) -> int | None:
    """
    How well this machine runs what is made for ``platform``: 0 is best, None: not at all.

    As containerd orders them, which will take the best, and no other.
    """
    if platform is None:
        return len(_runs(machine)) + 1  # unknown: after all that is known to run
    if platform.get("os") != "linux":
        return None
    architecture, variant = platform.get("architecture", ""), platform.get("variant", "")
    if architecture == "arm":
        variant = f"v{str(variant or 'v7').removeprefix('v')}"
    elif architecture == "arm64" and variant in {"8", "v8"}:
        variant = ""
    try:
        return _runs(machine).index((architecture, variant))
    except ValueError:
        return None


def _runs(machine: Machine) -> list[tuple[str, str]]:
    own = [(machine.architecture, machine.variant)]
    if machine.architecture == "amd64":
        return [*own, ("386", "")]
    newest = 8 if machine.architecture == "arm64" else int(machine.variant.strip("v") or 7) - 1
    if machine.architecture in {"arm", "arm64"}:
        return [*own, *(("arm", f"v{version}") for version in range(newest, 4, -1))]
    return own


def _of_layout(
    files: Mapping[str, Blob], documents: Mapping[str, bytes], machine: Machine, undated: str
) -> Iterator[Image]:
    index = _parsed(documents.get(files["index.json"].digest), "index.json")
    tops: dict[str, list[Mapping[str, Any]]] = {}
    for entry in _list(index, "manifests", "index.json"):
        name = _name(entry.get("annotations") or {}, undated)
        if name:
            tops.setdefault(name, []).append(entry)
    named: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for name, entries in tops.items():
        entry = _best(entries, machine, name)
        named.setdefault(str(entry.get("digest")), (entry, []))[1].append(name)
    for entry, names in named.values():
        labels: dict[str, dict[str, str]] = {}
        found = _manifest(_descriptor(entry), documents, machine, labels, deep=0)
        yield _image(
            tuple(names),
            _descriptor(entry),
            found,
            documents=documents,
            machine=machine,
            labels=labels,
        )


def _name(annotations: Mapping[str, str], undated: str) -> str:
    if name := annotations.get(_NAME):
        return normalise(name)
    tag = annotations.get(_TAG, "")
    if not tag:
        return ""
    return normalise(tag) if any(c in tag for c in "/:@") else f"{undated}:{tag}"


def _best(entries: Sequence[Mapping[str, Any]], machine: Machine, name: str) -> Mapping[str, Any]:
    ranked = [(rank(e.get("platform"), machine), n) for n, e in enumerate(entries)]
    usable = [(place, n) for place, n in ranked if place is not None]
    if not usable:
        others = ", ".join(dict.fromkeys(_shown(e.get("platform")) for e in entries)) or "nothing"
        raise Unusable(f"{name} is for {others}, and this machine is {machine}")
    return entries[min(usable)[1]]


def _shown(platform: Mapping[str, Any] | None) -> str:
    parts = [(platform or {}).get(key) for key in ("os", "architecture", "variant")]
    return "/".join(str(part) for part in parts if part)


def _manifest(
    target: Descriptor,
    documents: Mapping[str, bytes],
    machine: Machine,
    labels: dict[str, dict[str, str]],
    *,
    deep: int,
) -> Mapping[str, Any]:
    """The manifest that ``target`` leads to; the content on the way there is put in ``labels``."""
    body: Mapping[str, Any] = _parsed(documents.get(target.digest), target.digest)
    if "manifests" not in body:
        if "layers" not in body:
            raise Unusable(f"{target.digest} is no manifest of schema 2 ({target.media_type})")
        config = _descriptor(body.get("config") or {})
        own = {f"{_LABEL}.config": config.digest}
        own |= {f"{_LABEL}.l.{n}": d.digest for n, d in enumerate(_layers(body))}
        labels[target.digest] = own
        return body
    if deep == _DEEPEST:
        raise Unusable(f"{target.digest}: more than {_DEEPEST} indexes within each other")
    child = _descriptor(_best(_list(body, "manifests", target.digest), machine, target.digest))
    kind = "" if "index" in child.media_type or "list" in child.media_type else "m."
    labels[target.digest] = {f"{_LABEL}.{kind}0": child.digest}
    return _manifest(child, documents, machine, labels, deep=deep + 1)


def _of_docker(
    files: Mapping[str, Blob], documents: Mapping[str, bytes], machine: Machine
) -> Iterator[Image]:
    listed = _parsed(documents.get(files["manifest.json"].digest), "manifest.json", list)
    for entry in listed:
        if not isinstance(entry, dict):
            raise Unusable("manifest.json is not what `docker save` writes")
        names = tuple(dict.fromkeys(normalise(tag) for tag in entry.get("RepoTags") or ()))
        if not names:
            continue
        config = _file(files, str(entry.get("Config")))
        body = {
            "schemaVersion": 2,
            "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
            "config": _as_json(f"{DOCKER}.container.image.v1+json", config),
            "layers": [
                _as_json(f"{DOCKER}.image.rootfs.diff.tar{'.gzip' if b.packed else ''}", b)
                for b in (_file(files, str(name)) for name in entry.get("Layers") or ())
            ],
        }
        made = json.dumps(body, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(made).hexdigest()}"
        target = Descriptor(media_type=str(body["mediaType"]), digest=digest, size=len(made))
        labels: dict[str, dict[str, str]] = {}
        _manifest(target, {digest: made}, machine, labels, deep=0)
        yield _image(
            names, target, body, documents=documents, machine=machine, labels=labels, made=made
        )


def _file(files: Mapping[str, Blob], name: str) -> Blob:
    try:
        return files[name]
    except KeyError:
        raise Unusable(f"{name} is missing") from None


def _as_json(media_type: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _image(
    names: tuple[str, ...],
    target: Descriptor,
    manifest: Mapping[str, Any],
    *,
    documents: Mapping[str, bytes],
    machine: Machine,
    labels: dict[str, dict[str, str]],
    made: bytes = b"",
) -> Image:
    config, layers = _descriptor(manifest.get("config") or {}), _layers(manifest)
    about = _parsed(documents.get(config.digest), config.digest)
    diff_ids = (about.get("rootfs") or {}).get("diff_ids")
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
        raise Unusable(f"{names[0]}: its configuration does not name its {len(layers)} layers")
    if about.get("os") and rank(about, machine) is None:
        raise Unusable(f"{names[0]} is for {_shown(about)}, and this machine is {machine}")
    return Image(
        names=names,
        target=target,
        config=config,
        layers=layers,
        diff_ids=tuple(map(str, diff_ids)),
        labels=labels,
        made=made,
    )


def _layers(manifest: Mapping[str, Any]) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(layer) for layer in manifest["layers"])


def _descriptor(entry: Mapping[str, Any]) -> Descriptor:
    try:
        digest, size = str(entry["digest"]), int(entry["size"])
    except (KeyError, TypeError, ValueError):
        raise Unusable(f"{str(entry)[:80]} is no descriptor") from None
    algorithm, _, rest = digest.partition(":")
    if algorithm != "sha256" or len(rest) != 64:
        raise Unusable(f"{digest[:80]}: only sha256 is supported")
    return Descriptor(
        media_type=str(entry.get("mediaType", "")),
        digest=digest,
        size=size,
        annotations=entry.get("annotations") or {},
    )


def _parsed(document: bytes | None, name: str, kind: type = dict) -> Any:
    if document is None:
        raise Unusable(f"{name} is missing")
    try:
        value = json.loads(document)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise Unusable(f"{name} is no JSON of this kind")
    return value


def _list(body: Mapping[str, Any], key: str, name: str) -> Sequence[Mapping[str, Any]]:
    found = body.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unusable(f"{name} has no list of {key}")
    return found


def _digests(descriptors: Sequence[Descriptor]) -> Iterator[str]:
    return (descriptor.digest for descriptor in descriptors)
