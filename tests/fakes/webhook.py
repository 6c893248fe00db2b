"""A webhook of somebody's: a real HTTPS server that a test tells what to answer."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.fakes.tls import self_signed

Answer = Callable[[Mapping[str, Any]], Any]  # from the request of a review to a response


class Webhook:
    """``answers``: by path. Its mutable state is what it was asked, in order."""

    def __init__(self, ca: str) -> None:
        self.ca_bundle = b64encode(ca.encode()).decode()
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.port = 0

    def client(self, path: str) -> dict[str, Any]:
        """A WebhookClientConfig."""
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.ca_bundle}

    def requests(self, path: str) -> list[dict[str, Any]]:
        return [asked["request"] for where, asked in self.asked if where == path]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        self.asked.append((request.path, asked))
        response = self.answers[request.path](asked["request"])
        if hasattr(response, "__await__"):
            response = await response
        if isinstance(response, web.StreamResponse):
            return response
        answer = {"apiVersion": asked["apiVersion"], "kind": asked["kind"]}
        answer["response"] = {"uid": asked["request"]["uid"], **response}
        return web.json_response(answer)


def allow(_request: Mapping[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def patching(*operations: Mapping[str, Any]) -> Answer:
    patch = b64encode(orjson.dumps(operations)).decode()

    def answer(_request: Mapping[str, Any]) -> dict[str, Any]:
        return {"allowed": True, "patchType": "JSONPatch", "patch": patch}

    return answer


@asynccontextmanager
async def webhook(folder: Path, *names: str) -> AsyncIterator[Webhook]:
    """``names``: of the certificate, beside 127.0.0.1."""
    made = self_signed(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.write(folder / "webhook.pem"))
    hook = Webhook(made.certificate)
    runner = web.ServerRunner(web.Server(hook.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    hook.port = runner.addresses[0][1]
    try:
        yield hook
    finally:
        await runner.cleanup()
