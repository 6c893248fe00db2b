"""
Prometheus' text format, written line by line.

Source: prometheus.io, "Exposition formats".
"""

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Page:
    """What one request is answered with; families are begun once and then filled."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def begin(self, name: str, kind: str, text: str) -> None:
        """``kind``: counter or gauge; ``text`` begins with the stability level."""
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def add(
        self,
        name: str,
        value: float,
        labels: Mapping[str, str] | None = None,
        *,
        stamp: int | None = None,
    ) -> None:
        """``stamp``: when it was measured, milliseconds since the epoch."""
        pairs = ",".join(f'{k}="{v.translate(_ESCAPES)}"' for k, v in (labels or {}).items())
        shown = f"{name}{{{pairs}}}" if pairs else name
        self._lines.append(f"{shown} {value}" + (f" {stamp}" if stamp is not None else ""))

    def one(self, name: str, kind: str, text: str, value: float) -> None:
        """A family of one series without labels."""
        self.begin(name, kind, text)
        self.add(name, value)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
