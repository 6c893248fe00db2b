"""
Pack a chart of this folder: what ``helm package --dependency-update`` would give, without Helm.

A dependency with a ``file://`` repository is taken in, what ``.helmignore`` names
is left out, and the same files give the same archive.
"""

import base64
import functools
import re
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import yaml

from charts import pack

FOLDER = Path(__file__).parent
NAMES = ("crds", "hooks", "umbrella", "probing", "big")


@functools.cache
def packed(name: str, version: str = "") -> bytes:
    """The ``.tgz``; ``version`` in place of the chart's own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        shutil.copytree(FOLDER / name, copy, ignore=_ignored(FOLDER / name))
        _take_in_dependencies(copy)
        if version:
            chart = copy / "Chart.yaml"
            line = re.compile(r"^version: .*$", re.MULTILINE)
            chart.write_text(line.sub(f"version: {version}", chart.read_text()))
        return pack(copy)


def content(name: str, version: str = "") -> str:
    """For ``spec.chartContent``."""
    return base64.b64encode(packed(name, version)).decode()


def written(folder: Path, files: dict[str, str]) -> bytes:
    """The ``.tgz`` of a chart that a test makes up: its files by their paths."""
    chart = yaml.safe_load(files["Chart.yaml"])["name"]
    for path, text in files.items():
        target = folder / chart / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return pack(folder / chart)


def _ignored(folder: Path) -> "functools.partial[set[str]]":
    rules = folder / ".helmignore"
    lines = rules.read_text().split() if rules.exists() else []
    return functools.partial(_matching, folder, lines)


def _matching(root: Path, lines: list[str], folder: str, names: list[str]) -> set[str]:
    below = Path(folder).relative_to(root)
    return {
        name
        for name in names
        for line in lines
        if fnmatch(name, line) or fnmatch(str(below / name), line)
    }


def _take_in_dependencies(chart: Path) -> None:
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    for dependency in described.get("dependencies") or ():
        repository = dependency.get("repository", "")
        if repository.startswith("file://"):
            source = (FOLDER / chart.name / repository.removeprefix("file://")).resolve()
            shutil.copytree(source, chart / "charts" / dependency["name"])
