"""
The part of Go's templates that path patterns are made of. Pure.

``{{ .PVName }}``, ``{{ .PVC.Namespace }}``, ``{{ .PVC.Name }}``, ``{{ .PVC.Labels.app }}``,
``{{ .PVC.Annotations.x }}`` and ``{{ index .PVC.Annotations "example.com/x" }}``; the first
letters may be small, as local-path-provisioner had them once. Source: its README.
"""

import re
from collections.abc import Mapping
from typing import Any

from operators.localpath.base import Refused

_ACTION = re.compile(r"(\s*)\{\{(-?)(.*?)(-?)\}\}(\s*)", re.DOTALL)
_PLAIN = re.compile(r"\.PVC\.(Namespace|namespace|Name|name)$")
_KEYED = re.compile(r"\.PVC\.(Labels|labels|Annotations|annotations)\.([A-Za-z0-9_]+)$")
_INDEX = re.compile(
    r"""index\s+\.PVC\.(Labels|labels|Annotations|annotations)\s+(?:"([^"]*)"|`([^`]*)`)$"""
)


def render(pattern: str, volume_name: str, claim: Mapping[str, Any]) -> str:
    """``claim``: the PersistentVolumeClaim. Raises :class:`Refused` in the pattern's terms."""
    metadata = claim["metadata"]

    def fill(found: re.Match[str]) -> str:
        before, trim_left, expression, trim_right, after = found.groups()
        value = _value(expression.strip(), volume_name, metadata)
        return f"{'' if trim_left else before}{value}{'' if trim_right else after}"

    rendered = _ACTION.sub(fill, pattern)
    if "{{" in rendered or "}}" in rendered:
        raise Refused(f"pattern {pattern!r} has braces that do not match")
    return rendered


def _value(expression: str, volume_name: str, metadata: Mapping[str, Any]) -> str:
    if expression == ".PVName":
        return volume_name
    if found := _PLAIN.match(expression):
        return str(metadata[found[1].lower()])
    if found := _KEYED.match(expression):
        kind, key = found[1].lower(), found[2]
        values: Mapping[str, str] = metadata.get(kind) or {}
        if key not in values:
            raise Refused(f'the claim has no entry "{key}" in its {kind}')
        return values[key]
    if found := _INDEX.match(expression):
        return str((metadata.get(found[1].lower()) or {}).get(found[2] or found[3] or "", ""))
    raise Refused(f"{{{{ {expression} }}}} is not supported in a pattern")
