"""Our library renders what the ``helm`` program renders, byte for byte, charts of every kind."""

import itertools
import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from operators.helm import wanted
from operators.helm.values import put
from tests.charts import packing, program

# The first of them may have to build the program.
pytestmark = pytest.mark.timeout(program.BUILD_SECONDS + 60)
ROOT = Path(__file__).parent.parent.parent.parent
NOTHING = wanted.Inputs(
    config=None, secrets={}, config_maps={}, kubernetes_api="127.0.0.1:6443", cluster_ca=""
)
CASES = yaml.safe_load((packing.FOLDER / "cases.yaml").read_text())
NAMES = [(chart, case["name"]) for chart, cases in CASES.items() for case in cases]


@dataclass(frozen=True)
class Rendered:
    manifest: str
    documents: tuple[str, ...]  # with hooks, sorted
    error: str = ""


@pytest.fixture(scope="module")
def helm() -> None:
    try:
        program.build()
        program.find()
    except program.NoHelm as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def ours() -> Mapping[tuple[str, str], Rendered]:
    """All cases, in one process as a worker is."""
    requests = [_request(chart, case) for chart, cases in CASES.items() for case in cases]
    return dict(zip(NAMES, _render(requests), strict=True))


def _render(requests: list[dict[str, Any]]) -> list[Rendered]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.charts.rendering"],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'image-build'}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return [
        Rendered(
            manifest=answer.get("manifest", "").strip(),
            documents=documents(answer.get("template", "")),
            error=answer.get("error", "").strip(),
        )
        for answer in json.loads(done.stdout)
    ]


def _request(chart: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """The way of a HelmChart: its spec becomes a Job, and the Job a request of the worker."""
    spec = {name: value for name, value in case.items() if name != "name"}
    body = {
        "metadata": {"name": "rel", "namespace": "ns"},
        "spec": {"chartContent": packing.content(chart), **spec},
    }
    job = wanted.job_of(body, NOTHING)
    return {**asdict(job), "kubeconfig": "/nonexistent"}


def documents(text: str) -> tuple[str, ...]:
    """Sorted, without what says which file they are from and without those that are empty."""
    found = []
    for part in f"\n{text}".split("\n---\n"):
        kept = "\n".join(line for line in part.split("\n") if not line.startswith("# Source: "))
        if kept.strip():
            found.append(kept.strip())
    return tuple(sorted(found))


def template(chart: bytes, case: Mapping[str, Any], folder: Path, *more: str) -> str:
    """What the program prints when it is told the same by hand; an AssertionError else."""
    done = subprocess.run(
        _command(chart, case, folder, *more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The library does not know the patch number of its version: see the test of that.
    return done.stdout.replace(f'helm: "{program.VERSION}"', 'helm: "v4.2"')


def _command(chart: bytes, case: Mapping[str, Any], folder: Path, *more: str) -> list[str]:
    (folder / "chart.tgz").write_bytes(chart)
    given = [case.get("valuesContent", ""), yaml.safe_dump(case.get("values") or {})]
    for number, text in enumerate(given):
        (folder / f"{number}.yaml").write_text(text)
    files = [f"--values={folder}/{number}.yaml" for number in range(len(given))]
    sets = [_set(path, value) for path, value in sorted((case.get("set") or {}).items())]
    command = [program.find(), "template", "rel", f"{folder}/chart.tgz", "--namespace=ns"]
    return [*command, *files, *sets, *more]


def _set(path: str, value: Any) -> str:
    """Numbers and the three words are literal, the rest are strings whose commas are their own."""
    if isinstance(value, int) or str(value).lower() in {"true", "false", "null"}:
        return f"--set={path}={str(value).lower() if isinstance(value, bool) else value}"
    escaped = str(value).replace(",", r"\,")
    return f"--set-string={path}={escaped}"


@pytest.mark.parametrize(("chart", "name"), NAMES, ids=[f"{c}-{n}" for c, n in NAMES])
@pytest.mark.usefixtures("helm")
def test_a_chart_is_rendered_as_the_program_does(
    chart: str, name: str, ours: Mapping[tuple[str, str], Rendered], tmp_path: Path
) -> None:
    case = next(case for case in CASES[chart] if case["name"] == name)
    found = ours[chart, name]
    assert found.error == ""
    archive = packing.packed(chart)
    assert found.manifest == template(archive, case, tmp_path, "--no-hooks").strip()
    assert found.documents == documents(template(archive, case, tmp_path))


REFUSALS = {
    "the schema: a type": ("probing", {"replicas": "many"}),
    "the schema: a limit": ("probing", {"replicas": 9}),
    "the schema: a word": ("probing", {"settings": {"level": "loud"}}),
    "the schema: something missing": ("probing", {"word": None}),
    "fail": ("probing", {"fail": "not today"}),
    "required": ("probing", {"needs": ["password"], "generate": False}),
    "a template that is none": ("probing", {"greeting": "{{ .Values.word", "generate": False}),
    "a function that is none": ("probing", {"greeting": "{{ nope }}", "generate": False}),
    "no manifest": ("big", {"extraDeploy": ["a: b: c"]}),
}


@pytest.fixture(scope="module")
def refused() -> Mapping[str, Rendered]:
    requests = [_request(chart, {"values": values}) for chart, values in REFUSALS.values()]
    return dict(zip(REFUSALS, _render(requests), strict=True))


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.usefixtures("helm")
def test_what_a_chart_refuses_is_told_in_the_words_of_the_program(
    name: str, refused: Mapping[str, Rendered], tmp_path: Path
) -> None:
    chart, values = REFUSALS[name]
    command = _command(packing.packed(chart), {"values": values}, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    words = done.stderr.removeprefix("Error: ").removesuffix(DEBUG_HINT).strip()
    assert refused[name].error.endswith(words)


DEBUG_HINT = "\n\nUse --debug flag to render out invalid YAML\n"


@pytest.mark.usefixtures("helm")
def test_these_two_differences_are_known(tmp_path: Path) -> None:
    """The library names its version without the patch, and takes numbers as JSON has them."""
    spec = {"set": {"generate": False, "settings.big": 9007199254740993}}
    [found] = _render([_request("probing", spec)])
    command = _command(packing.packed("probing"), spec, tmp_path, "--no-hooks")
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    changed = set(theirs.strip().split("\n")) ^ set(found.manifest.split("\n"))
    named = {line.split(":")[0].strip() for line in changed}
    # Of the settings there are three more forms and a checksum.
    assert named == {"helm", "big", '"big"', "json", "sum"}
    assert f'  helm: "{program.VERSION}"' in changed
    assert '  helm: "v4.2"' in changed
    assert "    big: 9007199254740993" in changed


@pytest.mark.parametrize("name", packing.NAMES)
@pytest.mark.usefixtures("helm")
def test_a_chart_is_packed_as_the_program_packs_it(name: str, tmp_path: Path) -> None:
    argv = [program.find(), "package", str(packing.FOLDER / name), f"--destination={tmp_path}"]
    theirs = tmp_path / "theirs"
    ours = tmp_path / "ours.tgz"
    ours.write_bytes(packing.packed(name))
    shutil.copytree(packing.FOLDER, tmp_path / "charts")
    argv[2] = str(tmp_path / "charts" / name)
    subprocess.run([*argv, "--dependency-update"], capture_output=True, check=True)
    [made] = tmp_path.glob(f"{name}-*.tgz")
    made.rename(theirs)
    assert files(ours) == files(theirs)


def files(archive: Path) -> dict[str, Any]:
    """Without the lock of the dependencies; what Helm writes anew is compared as what it means."""
    with tarfile.open(archive) as packed:
        found = {m.name: packed.extractfile(m) for m in packed.getmembers() if m.isfile()}
        texts = {name: stream.read() for name, stream in found.items() if stream}
    return {
        name: _said(yaml.safe_load(text)) if name.endswith("Chart.yaml") else text
        for name, text in texts.items()
        if not name.endswith("Chart.lock")
    }


def _said(thing: Any) -> Any:
    """Without what is empty: Helm writes the repository of each dependency, though it has none."""
    if isinstance(thing, list):
        return [_said(item) for item in thing]
    if isinstance(thing, dict):
        return {name: _said(value) for name, value in thing.items() if value}
    return thing


def test_the_library_is_of_the_version_that_is_compared_with() -> None:
    library = Path(helm_python.__file__).parent / "lib" / "libhelm_c.so"
    assert f"helm.sh/helm/v4@{program.VERSION}/".encode() in library.read_bytes()


def expressions(count: int) -> list[str]:
    """What a person might type, and much that none would; the same each time."""
    chosen = random.Random(20)
    pieces = ["a", "b.c", "a.b", "d", "t", "=", ".", "[0]", "[1]", "[2]", "{", "}", ",", "\\", "1"]
    pieces += ["007", "null", "true", "=x", "=5", "={1,x}", "=-3", "=1.5", "é", "=-"]
    made = ("".join(chosen.choices(pieces, k=chosen.randint(2, 6))) for _ in range(10 * count))
    return list(itertools.islice((text for text in made if "=" in text), count))


@pytest.mark.usefixtures("helm")
def test_expressions_of_set_are_read_as_the_program_reads_them(tmp_path: Path) -> None:
    chart = {
        "Chart.yaml": "apiVersion: v2\nname: told\nversion: 1.0.0\n",
        "templates/all.yaml": "told: {{ .Values | toJson | quote }}\n",
    }
    (tmp_path / "told.tgz").write_bytes(packing.written(tmp_path, chart))
    (tmp_path / "below.yaml").write_text('{"d": {"e": [1, {"f": 2}]}, "t": "text"}')
    differ, read = [], 0
    for text in expressions(70):
        argv = [program.find(), "template", "rel", f"{tmp_path}/told.tgz", f"--set={text}"]
        argv.append(f"--values={tmp_path}/below.yaml")
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        theirs = _told(done.stdout) if done.returncode == 0 else "refused"
        ours = _put(text)
        read += theirs != "refused"
        if ours != theirs:
            differ.append((text, ours, theirs, done.stderr))
    assert not differ, differ
    assert read > 20


def _told(out: str) -> Any:
    values = json.loads(yaml.safe_load(out)["told"])
    return {name: value for name, value in values.items() if name != "global"}


def _put(text: str) -> Any:
    """The same, with ours; a path ends at its first ``=`` that stands for itself."""
    values: dict[str, Any] = {"d": {"e": [1, {"f": 2}]}, "t": "text"}
    path, _, value = text.partition("=")
    try:
        put(values, path, value)
    except ValueError:
        return "refused"
    return json.loads(json.dumps(values))
