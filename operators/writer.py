"""
The program that speaks to the API through the official client: requests in, answers out.

One JSON object a line on stdin, ``{"method", "path", "query", "body", "headers"}``, and
for each one on stdout, ``{"code", "body"}``; code 0 means that no answer came. It
ends with its stdin. A program of its own, because the client costs 19 MiB that
an idle node should not carry: :mod:`operators.client` starts it when there is
something to say and lets it go soon after.
"""

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

TIMEOUTS = (10.0, 60.0)  # seconds to connect, to answer


def main(kubeconfig: str) -> int:
    # Here, so that importing this module costs nothing.
    from kubernetes import config

    new_client: Callable[[str], Any] = config.new_client_from_config
    api = new_client(kubeconfig)
    for line in sys.stdin.buffer:
        answer = perform(api, json.loads(line))
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


def perform(api: Any, request: dict[str, Any]) -> dict[str, Any]:
    url = api.configuration.host + request["path"]
    if request["query"]:
        url += "?" + urlencode(request["query"])
    headers = dict(request["headers"])
    api.update_params_for_auth(headers, [], ["BearerToken"], url, request["method"], None)
    try:
        response = api.call_api(
            request["method"], url, headers, request["body"], _request_timeout=TIMEOUTS
        )
        raw = response.read()
    except Exception as err:
        return {"code": 0, "body": {"message": f"{type(err).__name__}: {err}"}}
    try:
        return {"code": response.status, "body": json.loads(raw) if raw else None}
    except ValueError:
        return {"code": response.status, "body": {"message": raw[:500].decode(errors="replace")}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
