"""
The program that speaks to the API through the official client: requests in, answers out.

One JSON object a line on stdin, ``{"id", "method", "path", "query", "body", "headers"}``, and
for each one on stdout, ``{"id", "code", "body"}``, in the order in which they were answered;
code 0 means that no answer came. It ends with its stdin. A program of its own, because the
client costs 19 MiB that an idle node should not carry: :mod:`operators.client` starts it
when there is something to say and lets it go soon after.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

from operators.config import Credentials, read_kubeconfig

TIMEOUTS = (10.0, 60.0)  # seconds to connect, to answer
AT_ONCE = 4
PAUSES = (0.3, 1.0, 3.0)  # before each further try
LONGEST_PAUSE = 10.0
# All that the server says before it did anything; with these it asks to come again.
BUSY = frozenset({429, 503})
# The server may have done it, or not: only a read may be asked again.
UNCERTAIN = frozenset({0, 500, 502, 503, 504})

Request = Mapping[str, Any]
Answer = dict[str, Any]


def main(kubeconfig: str) -> int:
    api, lock = connect(read_kubeconfig(Path(kubeconfig))), Lock()

    def handle(line: bytes) -> None:
        request = json.loads(line)
        answer = {"id": request["id"], **perform(api, request)}
        text = json.dumps(answer).encode() + b"\n"
        with lock:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in sys.stdin.buffer:
            pool.submit(handle, line)
    return 0


def connect(found: Credentials) -> Any:
    """The official client, from what a kubeconfig says."""
    ApiClient, Configuration = _client()
    told = Configuration()
    told.host = found.server.rstrip("/")
    told.verify_ssl = not found.insecure
    told.ssl_ca_cert = _file(found.ca)
    told.cert_file, told.key_file = _file(found.certificate), _file(found.key)
    told.retries = False  # its own would ask again what must not be asked again
    told.connection_pool_maxsize = AT_ONCE

    def freshen(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = f"Bearer {found.bearer()}"

    if found.token or found.token_file:
        told.api_key["BearerToken"] = ""  # or else the client does not ask for one
        told.refresh_api_key_hook = freshen
    return ApiClient(told)


def _client() -> tuple[Any, Any]:
    """Here, so that importing this module costs nothing; without what the package loads beside."""
    unused = ("config", "dynamic", "watch", "stream", "leaderelection", "informer")
    hidden = {f"kubernetes.{name}" for name in unused} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden, ModuleType("unused")))
    try:
        from kubernetes.client import ApiClient, Configuration
    finally:
        for name in hidden:
            del sys.modules[name]
    return ApiClient, Configuration


def perform(api: Any, request: Request, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """Asked again where that does no harm, with pauses, at most as often as there are pauses."""
    for pause in (*PAUSES, None):
        answer, sent, wait = _once(api, request)
        again = _again(request, answer["code"], sent=sent, wait=wait)
        if pause is None or not again or (wait or 0) > LONGEST_PAUSE:
            return answer
        sleep(max(pause, wait or 0))
    raise AssertionError("the last pause is None")


def _again(request: Request, code: int, *, sent: bool, wait: float | None) -> bool:
    if not sent:
        return True
    if code in BUSY and wait is not None:
        # A disruption budget answers so as well, and means minutes.
        return not request["path"].endswith("/eviction")
    return request["method"] == "GET" and code in UNCERTAIN


def _once(api: Any, request: Request) -> tuple[Answer, bool, float | None]:
    """The answer; False where the server cannot have seen the request; what it asked to wait."""
    url = api.configuration.host + request["path"]
    if request["query"]:
        url += "?" + urlencode(request["query"])
    headers = dict(request["headers"])
    try:
        api.update_params_for_auth(headers, [], ["BearerToken"], url, request["method"], None)
        response = api.call_api(
            request["method"], url, headers, request["body"], _request_timeout=TIMEOUTS
        )
        raw = response.read()
    except Exception as err:
        message = f"{type(err).__name__}: {err}"
        return {"code": 0, "body": {"message": message}}, not _unsent(err), None
    return _answer(response.status, raw), True, _seconds(response.getheader("Retry-After"))


def _answer(code: int, raw: bytes) -> Answer:
    try:
        return {"code": code, "body": json.loads(raw) if raw else None}
    except ValueError:
        return {"code": code, "body": {"message": raw[:500].decode(errors="replace")}}


def _unsent(err: BaseException) -> bool:
    """There was no connection: refused, no route, or nobody answered the first packet."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    return isinstance(err, NewConnectionError | ConnectTimeoutError)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None


def _file(pem: str) -> str | None:
    """A name for what is nowhere on a disk, and gone with this process, however it ends."""
    if not pem:
        return None
    file = os.memfd_create("pem")
    os.write(file, pem.encode())
    return f"/proc/self/fd/{file}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
