"""
HTTP through the server: to a pod, a Service's pod, or a kubelet.

Requests and answers are streamed. Links that begin at the root are rewritten, in
HTML and in redirects, so that a page keeps working below its longer path.
"""

import re
import ssl

import aiohttp
from aiohttp import web
from yarl import URL

from controlplane.api.targets import Target
from controlplane.objects.errors import unavailable

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = frozenset({"host", "authorization", "content-length", "cookie"})
_LINK = re.compile(
    rb"""(<[^>]*?\b(?:href|src|action|data|background|cite|longdesc|usemap|formaction|icon|"""
    rb"""manifest|poster)\s*=\s*["']?)(/(?!/)[^"'>\s]*)""",
    re.IGNORECASE,
)


async def relay_http(
    session: aiohttp.ClientSession,
    request: web.BaseRequest,
    target: Target,
    *,
    path: str,
    prefix: str,
    tls: ssl.SSLContext | None,
) -> web.StreamResponse:
    """
    ``path`` is the target's, with its query; ``prefix`` is what stands before it in ours.

    503 where the target cannot be reached.
    """
    headers = {
        key: value
        for key, value in request.headers.items()
        if key.lower() not in _HOP_BY_HOP | _OURS and not key.lower().startswith("impersonate-")
    }
    headers["X-Forwarded-Uri"] = prefix + path.partition("?")[0]
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Proto"] = "https"
    if request.remote:
        headers["X-Forwarded-For"] = request.remote
    try:
        async with session.request(
            request.method,
            URL(target.origin + path, encoded=True),
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
            ssl=tls if tls is not None else True,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            return await _answer(request, answer, prefix)
    except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, TimeoutError) as error:
        raise unavailable(f"error trying to reach service: {error}") from error


async def _answer(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, prefix: str
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for key, value in answer.headers.items():
        if key.lower() not in _HOP_BY_HOP:
            response.headers.add(key, value)
    if "Location" in response.headers:
        response.headers["Location"] = _location(response.headers["Location"], prefix)
    if answer.content_type == "text/html" and "Content-Encoding" not in answer.headers:
        body = _LINK.sub(lambda m: m[1] + prefix.encode() + m[2], await answer.read())
        response.headers["Content-Length"] = str(len(body))
        await response.prepare(request)
        await response.write(body)
    else:
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    await response.write_eof()
    return response


def _location(location: str, prefix: str) -> str:
    return prefix + location if location.startswith("/") else location
