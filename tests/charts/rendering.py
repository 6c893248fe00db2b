"""
Many renderings by our library in one process: Job requests in, texts out, as JSON.

``manifest`` is what an install would store and apply, in its order; ``template`` is
what the worker's own action gives. An error is a text in ``error``.
"""

import json
import sys
from typing import Any

import helm_python

from operators.helm import actions


def rendered(request: dict[str, Any]) -> dict[str, str]:
    answer = actions.answer({**request, "action": "template"})
    if "error" in answer:
        return {"error": answer["error"]["message"]}
    try:
        return {"template": answer["result"], "manifest": _manifest(request)}
    except helm_python.HelmError as err:
        return {"error": str(err)}


def _manifest(request: dict[str, Any]) -> str:
    target = request["target"]
    with (
        helm_python.Config(namespace=target["namespace"], storage_driver="memory") as config,
        actions.load_chart(request["source"]) as chart,
    ):
        values = actions.values_of(request)
        manifest: str = config.install(chart, target["name"], values, dry_run="client")["manifest"]
        return manifest


if __name__ == "__main__":
    json.dump([rendered(request) for request in json.load(sys.stdin)], sys.stdout)
