"""Charts drawn by Helm's own library, in a process of its own: Go and pytest do not share one."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent.parent
DRAW = """
import json, sys
import helm_python
order = json.load(sys.stdin)
with helm_python.Chart.load(order["chart"]) as chart:
    values = helm_python.values_from_yaml(order["values"]) if order["values"].strip() else {}
    try:
        drawn = chart.render(values, name=order["name"], namespace="kube-system")
    except helm_python.HelmError as err:
        print(json.dumps({"error": str(err)}))
    else:
        print(json.dumps({"drawn": drawn}))
"""

Draw = Callable[..., list[dict[str, Any]]]


class NotDrawn(Exception):
    """Helm refused; the text is its own."""


@pytest.fixture(scope="session")
def draw() -> Draw:
    """``draw("traefik", values)``: the objects of a release of the same name in kube-system."""
    if find_spec("helm_python") is None:
        pytest.skip("Helm's library has no wheel for this machine")

    def drawn(chart: str, values: str = "") -> list[dict[str, Any]]:
        order = {"chart": str(ROOT / "charts" / chart), "values": values, "name": chart}
        done = subprocess.run(
            [sys.executable, "-c", DRAW],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise NotDrawn(answer["error"])
        texts = (t for path, t in sorted(answer["drawn"].items()) if path.endswith(".yaml"))
        return [item for text in texts for item in yaml.safe_load_all(text) if item]

    return drawn
