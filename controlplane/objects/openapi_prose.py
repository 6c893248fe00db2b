"""
Descriptions of the built-in types, for ``kubectl explain``.

None are kept here: they are read from the source files of the installed ``kubernetes``
package, one file a type, when a document is made. Importing that package would cost
more memory than the control plane has; its classes are parsed, never run. Without the
package there are no descriptions, and nothing else changes.
"""

import ast
import importlib.util
import re
from pathlib import Path

Prose = tuple[str, dict[str, str]]  # of the type, and of its fields by JSON name

_NOTHING: Prose = ("", {})
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Where the class's description ends and its generated part begins.
_BODY_END = "\n    openapi_types"
_BOILERPLATE = "\n\nAttributes:"


class Descriptions:
    """Its state is the names of the package's files; what they say is not kept."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: with one file a type; None: no descriptions."""
        self._files: dict[str, Path] = {}
        if folder is not None and folder.is_dir():
            self._files = {path.stem.replace("_", ""): path for path in folder.glob("*.py")}

    def of(self, name: str) -> Prose:
        """``io.k8s.api.core.v1.PodSpec``; empty where the package does not have it."""
        path = self._find(name)
        if path is None:
            return _NOTHING
        try:
            return _read(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return _NOTHING

    def _find(self, name: str) -> Path | None:
        *_, group, version, kind = name.split(".")
        kind = _WORDS.sub("", kind).lower()
        # Types whose name two groups have carry their group in front.
        return self._files.get(f"{group}{version}{kind}") or self._files.get(f"{version}{kind}")


def installed() -> Descriptions:
    """Of the installed package; none where it is not installed."""
    found = importlib.util.find_spec("kubernetes")
    if found is None or found.origin is None:
        return Descriptions(None)
    return Descriptions(Path(found.origin).parent / "client" / "models")


def _read(text: str) -> Prose:
    start = text.find("\nclass ")
    end = text.find(_BODY_END, start)
    if start < 0 or end < 0:
        return _NOTHING
    [declared] = ast.parse(text[start:end]).body
    if not isinstance(declared, ast.ClassDef):
        return _NOTHING
    prose = (ast.get_docstring(declared) or "").partition(_BOILERPLATE)[0].strip()
    fields: dict[str, str] = {}
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
            given = {
                keyword.arg: keyword.value.value
                for keyword in node.value.keywords
                if isinstance(keyword.value, ast.Constant)
            }
            name = given.get("serialization_alias") or getattr(node.target, "id", "")
            if given.get("description"):
                fields[str(name)] = str(given["description"])
    return prose, fields
