"""Writes the facts: ``python -m controlplane.generate --api DIR --apimachinery DIR …``."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from controlplane.generate.emit import Emitter, Rows, references, render
from controlplane.generate.gotypes import read_package
from controlplane.generate.packages import META, SOURCES, Checkouts
from controlplane.objects.builtin import BODIES, KINDS

_OUT = Path(__file__).parents[1] / "objects" / "data"


def generate(checkouts: Checkouts) -> dict[str, str]:
    """File name → text, for the types that served kinds and request bodies reach."""
    packages = {source.key: read_package(checkouts.folder_of(source)) for source in SOURCES}
    emitter = Emitter(packages, SOURCES)
    rows = {source.key: emitter.rows(source.key) for source in SOURCES}
    reached = _reach(rows, _roots(rows))
    return {
        f"{key.replace('/', '_')}.json": render(
            {name: row for name, row in types.items() if f"{key}.{name}" in reached}
        )
        for key, types in rows.items()
    }


def _roots(rows: Mapping[str, Rows]) -> Iterable[str]:
    keys = {(source.group, source.version): source.key for source in SOURCES if source.key != META}
    for kind in KINDS:
        key = keys[kind.group, kind.version]
        yield f"{key}.{kind.kind}"
        if f"{kind.kind}List" in rows[key]:
            yield f"{key}.{kind.kind}List"
    for group, version, name in BODIES:
        key = keys.get((group, version), META)
        yield f"{key if name in rows[key] else META}.{name}"


def _reach(rows: Mapping[str, Rows], roots: Iterable[str]) -> set[str]:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        full = waiting.pop()
        if full in reached:
            continue
        reached.add(full)
        key, _, name = full.rpartition(".")
        if name in rows[key]:
            waiting.extend(references(rows[key][name], key))
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for module in ("api", "apimachinery", "apiextensions", "aggregator"):
        parser.add_argument(f"--{module}", type=Path, required=True, help="the Go module's folder")
    parser.add_argument("--out", type=Path, default=_OUT)
    arguments = parser.parse_args()
    checkouts = Checkouts(
        api=arguments.api,
        apimachinery=arguments.apimachinery,
        apiextensions=arguments.apiextensions,
        aggregator=arguments.aggregator,
    )
    for name, text in generate(checkouts).items():
        (arguments.out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
