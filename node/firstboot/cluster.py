"""
What of the file concerns the node in its cluster: flags, labels, taints, token, manifests.

Values are checked by the node's own rules (:mod:`node.settings`), so that what is taken
here starts there.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from node import registries, settings
from node.firstboot.base import Manifest
from node.firstboot.fields import At, present, shown, unknown
from node.flags import BY_NAME, NOT_SUPPORTED, Flag

# Where these are is part of the image: the partitions, the units and the updates rely on it.
FIXED = frozenset({"config", "data-dir", "run-dir", "token-file", "write-kubeconfig"})
ELSEWHERE = {
    "disable": "disable",
    "node-label": "nodeLabels",
    "node-taint": "nodeTaints",
    "token": "token",
    "server": "server",
}
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
MANIFEST_ENDINGS = (".yaml", ".yml", ".json")
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}")
_LABEL_VALUE = re.compile(rf"({_LABEL_NAME})?")
_TOKEN = re.compile(r"K10([0-9a-f]{64})::(server:)?\S+")
_BOOTSTRAP = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


def config(at: At) -> Mapping[str, Any]:
    """Flags by name; each value as the text, or the list of texts, that the flag takes."""
    found: dict[str, tuple[Flag, At, Any]] = {}
    for name, below in at.entries():
        flag = _flag(name, below)
        if flag is None or below.empty:
            continue
        values = [item.text() for item in (below.one_or_more() if flag.repeatable else [below])]
        if any(value is None for value in values):
            continue
        wrong = _refused(flag, [str(value) for value in values])
        if wrong:
            below.wrong(wrong)
        else:
            found[name] = (flag, below, values if flag.repeatable else values[0])
    _together(at, found)
    return {name: value for name, (_, _, value) in found.items()}


def _flag(name: str, at: At) -> Flag | None:
    if name.startswith("-") or name.endswith("+"):
        at.wrong(f"is written {name.strip('-+')!r} here")
    elif name in FIXED:
        at.wrong("is part of the image and cannot be chosen")
    elif name in ELSEWHERE:
        at.wrong(f"stands outside of 'config' in this file, as {ELSEWHERE[name]!r}")
    elif name in NOT_SUPPORTED:
        at.wrong("is not supported by Pinnace: remove it (see docs/compatibility.md)")
    elif name not in BY_NAME:
        at.wrong(unknown(name, BY_NAME))
    else:
        return BY_NAME[name]
    return None


def _refused(flag: Flag, values: list[str]) -> str:
    """What the node itself says to this one flag; "" where it takes it."""
    return _asked([f"--{flag.name}={value}" for value in values])


def _together(at: At, found: Mapping[str, tuple[Flag, At, Any]]) -> None:
    arguments = [
        f"--{name}={value}"
        for name, (_, _, values) in found.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    wrong = _asked(arguments)
    if wrong:
        at.wrong(wrong)


def _asked(arguments: list[str]) -> str:
    # Without the files and addresses of the machine on which somebody checks the file.
    fixed = ["--config=/dev/null", "--node-name=pinnace", "--node-ip=192.0.2.1"]
    try:
        settings.read("server", [*fixed, *arguments], {})
    except settings.UsageError as err:
        return str(err)
    return ""


def labels(at: At) -> tuple[str, ...]:
    found = []
    for key, below in at.entries():
        value = "" if below.empty else below.text()
        if not _LABEL_KEY.fullmatch(key):
            below.wrong(f"{shown(key)} is no name of a label, such as example.com/room")
        elif value is not None and (len(value) > 63 or not _LABEL_VALUE.fullmatch(value)):
            below.wrong(f"{shown(value)} is no value of a label: 63 letters, digits, -, _ and .")
        elif value is not None:
            found.append(f"{key}={value}")
    return tuple(found)


def taints(at: At) -> tuple[str, ...]:
    """Each ``key=value:Effect``, or keys and values as in a Node."""
    return present(_taint(item) for item in at.items())


def _taint(at: At) -> str | None:
    if isinstance(at.node, yaml.MappingNode):
        given = at.fields(["key", "value", "effect"])
        parts = {name: below.text() or "" for name, below in given.items()}
        text = f"{parts.get('key', '')}={parts.get('value', '')}:{parts.get('effect', '')}"
    else:
        text = at.text() or ""
    key, _, effect = text.rpartition(":")
    key, _, value = key.partition("=")
    if effect not in EFFECTS or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
        at.wrong(f"{shown(text)} is no taint such as key=value:NoSchedule ({', '.join(EFFECTS)})")
        return None
    return f"{key}={value}:{effect}"


def names(at: At) -> tuple[str, ...]:
    """Of packaged components."""
    found = []
    for item in at.one_or_more():
        text = (item.text() or "").strip()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", text):
            item.wrong(f"{shown(text)} is no name such as traefik")
        else:
            found.append(text)
    return tuple(found)


def token(at: At) -> str:
    """A secret: it is never shown in what is said about it."""
    text = (at.text() or "").strip()
    if any(c.isspace() or not c.isprintable() for c in text) or not text:
        at.wrong("must be one word without spaces")
    elif text.startswith("K10") and not _TOKEN.fullmatch(text):
        at.wrong("begins with K10 but is not K10<64 hexadecimal digits>::server:<password>")
    elif _BOOTSTRAP.fullmatch(text):
        at.wrong("is a bootstrap token, which joins agents: a server needs a password")
    return text


def manifests(at: At) -> tuple[Manifest, ...]:
    return present(_manifest(item) for item in at.items())


def _manifest(at: At) -> Manifest | None:
    if isinstance(at.node, yaml.MappingNode):
        if not {"apiVersion", "kind"} <= {name for name, _ in at.entries()}:
            at.wrong("is no object of Kubernetes: 'apiVersion' and 'kind' are missing")
        return Manifest(text=yaml.serialize(at.node, Dumper=yaml.SafeDumper, allow_unicode=True))
    text = at.text()
    if text is None:
        return None
    if "\n" in text.strip():
        _readable(at, text)
        return Manifest(text=text)
    name = text.strip().replace("\\", "/").removeprefix("./").rstrip("/")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or ":" in name:
        at.wrong(f"{shown(text)} is no file or folder of this partition, such as apps/web.yaml")
        return None
    return Manifest(name=name)


def _readable(at: At, text: str) -> None:
    wrong = not_yaml(text)
    if wrong:
        at.wrong(wrong)


def not_yaml(text: str) -> str:
    """Why a manifest is none; "" where it is YAML. What its objects are the node says later."""
    try:
        for _ in yaml.parse(text, Loader=yaml.SafeLoader):
            pass
    except (yaml.YAMLError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in its line {mark.line + 1}" if mark is not None else ""
        said = getattr(err, "problem", None) or "cannot be read"
        return f"is not YAML{where}: {' '.join(str(said).split())}"
    return ""


def image_registries(at: At) -> Mapping[str, Any]:
    content = at.plain()
    wrong = list(registries.wrong_with(content))
    for path, message in wrong:
        at.wrong(f"{path}: {message}" if path else message)
    return content if isinstance(content, dict) and not wrong else {}
