"""
``/static/…``: files that any client may read, such as the charts that come with the node.

As K3s serves them: without authentication, GET and HEAD only, from ``<data>/server/static``;
what the package brings along is served from where it is installed, so nothing is copied to
the data partition. Listings, hidden files and links that lead out are not served.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from controlplane.api.base import User
from controlplane.objects.errors import StatusError, no_such_path

_METHODS = ("GET", "HEAD")
_GZIP = (".tgz", ".gz")


class StaticFiles:
    """One of the paths beside the API; the first of the folders that has a file gives it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    async def __call__(self, request: web.BaseRequest, user: User) -> web.StreamResponse:
        """The file with its ETag and ranges; 404 for whatever is none, 405 for other methods."""
        if request.method not in _METHODS:
            text = "the server does not allow this method on the requested resource"
            raise StatusError(405, "MethodNotAllowed", text, details={})
        found = await asyncio.to_thread(self._find, request.rel_url.raw_path)
        if found is None:
            raise no_such_path()
        # Not left to guessing: a client that is told of an encoding would undo it.
        kind = "application/gzip" if found.suffix in _GZIP else None
        return web.FileResponse(found, headers={"Content-Type": kind} if kind else None)

    def _find(self, raw_path: str) -> Path | None:
        """The file that ``/static/a/b.tgz`` means; None where there is none to be served."""
        parts = [unquote(part) for part in raw_path.split("/")[2:]]
        if not parts or any(not _is_name(part) for part in parts):
            return None
        for folder in self._folders:
            path = folder.joinpath(*parts)
            try:
                inside = path.resolve(strict=True).is_relative_to(folder.resolve())
                if inside and path.is_file():
                    return path
            except (OSError, ValueError):
                continue
        return None


def _is_name(part: str) -> bool:
    """Of a file or folder, and not a hidden one: neither a way up nor two steps in one."""
    return bool(part) and not part.startswith(".") and not set(part) & {"/", "\\", "\0"}
