"""A webhook of somebody's: a real HTTPS server that a test tells what to answer."""

import ipaddress
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Answer = Callable[[Mapping[str, Any]], Any]  # from the request of a review to a response


def certificate(*names: str) -> tuple[bytes, bytes]:
    """A certificate of its own authority, and that with its key; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "webhook")])
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, pem + private


class Webhook:
    """``answers``: by path. Its mutable state is what it was asked, in order."""

    def __init__(self, ca: bytes) -> None:
        self.ca_bundle = b64encode(ca).decode()
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
    ca, whole = certificate(*names)
    path = folder / "webhook.pem"
    path.write_bytes(whole)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    hook = Webhook(ca)
    runner = web.ServerRunner(web.Server(hook.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    hook.port = runner.addresses[0][1]
    try:
        yield hook
    finally:
        await runner.cleanup()
