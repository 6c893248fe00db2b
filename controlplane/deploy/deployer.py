"""
Applies what lies in the manifests folder, each file as an AddOn.

The kernel tells of changes; a pass reads the folder and does what differs. What
fails (a CRD or a namespace that is not there yet) is tried again with a growing delay.
Deleting a file deletes nothing; disabling a component deletes its objects, file and AddOn.
Source: K3s, "Auto-Deploying Manifests".
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.base import Client, Object, Selection, Unreachable
from controlplane.deploy.definitions import ADDONS, ensure_crds
from controlplane.deploy.folder import File, Listing, is_disabled, read, stage_packaged
from controlplane.deploy.inotify import Folders
from controlplane.deploy.manifest import ParseError, parse
from controlplane.deploy.objects import (
    GVKS,
    NAMESPACE,
    ApplyFailed,
    Objects,
    format_gvks,
    gvks_of,
    parse_gvks,
)
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kinds
from controlplane.reconcile.base import Record
from controlplane.reconcile.clock import Clock
from controlplane.reconcile.events import Recorder
from controlplane.reconcile.queue import Backoff

log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.25, 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """The manifests of the node's own components, and what their variables stand for."""

    source: Path
    variables: Mapping[str, str]


class Deployer:
    """
    Runs until cancelled.

    Its mutable state: which files failed and how often, which were applied since the
    start (the first time counts as changed, so that drift is repaired once a start).
    """

    def __init__(
        self,
        *,
        client: Client,
        kinds: Kinds,
        clock: Clock,
        manifests: Path,
        node_name: str,
        disable: frozenset[str] = frozenset(),
        packaged: Packaged | None = None,
    ) -> None:
        self._client, self._clock, self._root = client, clock, manifests
        self._disable, self._packaged = disable, packaged
        self._objects = Objects(client, kinds, f"deploy@{node_name}")
        self._applied: set[Path] = set()
        self._nameless: set[Path] = set()
        self._backoff: Backoff[str] = Backoff(FIRST_RETRY, LONGEST_RETRY)
        self._idle = asyncio.Event()
        self._defined = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._recorder = Recorder(self._client, self._clock, group.create_task)
            await asyncio.to_thread(self._stage)
            folders = Folders()
            try:
                await self._until_done(folders)
            finally:
                folders.close()

    def _stage(self) -> None:
        """What a full disk does not take now is put there at the next start."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._packaged is None:
            return
        source, variables = self._packaged.source, self._packaged.variables
        try:
            for path in stage_packaged(source, self._root, self._disable, variables):
                log.info("writing manifest: %s", path)
        except OSError as err:
            log.error("the packaged manifests cannot be written: %s", err)  # noqa: TRY400

    async def wait_idle(self) -> None:
        """Until a pass is over and nothing has changed since."""
        await self._idle.wait()

    async def _until_done(self, folders: Folders) -> None:
        while True:
            folders.clear()
            self._idle.clear()
            timer = None
            if await self._pass(folders):
                self._backoff.forget("pass")
            else:
                timer = self._clock.call_later(self._backoff.failed("pass"), folders.poke)
            self._idle.set()
            await folders.changed()
            if timer is not None:
                timer.cancel()

    async def _pass(self, folders: Folders) -> bool:
        """Whether everything is as the folder says."""
        try:
            if not self._defined:
                await ensure_crds(self._client)
                self._defined = True
            listing = await self._listing(folders)
            done = await self._remove_disabled(listing)
            for file in listing.files:
                if not is_disabled(file.path, self._root, self._disable):
                    done = await self._deploy(file) and done
        except (StatusError, Unreachable) as err:
            log.warning("the manifests folder is not applied yet: %s", err)
            return False
        except Exception:
            log.exception("the manifests folder is not applied")
            return False
        return done

    async def _listing(self, folders: Folders) -> Listing:
        """What is there, with every folder of it watched before it was read."""
        before: tuple[Path, ...] = ()
        while True:
            listing = await asyncio.to_thread(read, self._root)
            if set(listing.folders) <= set(before):
                return listing
            folders.watch(listing.folders)
            before = listing.folders

    # -- one file

    async def _deploy(self, file: File) -> bool:
        addon = await self._addon(file)
        if addon is None:
            return True
        spec = addon.get("spec") or {}
        unchanged = (spec.get("source"), spec.get("checksum")) == (str(file.path), file.checksum)
        if unchanged and file.path in self._applied:
            return True
        try:
            await self._apply(file, addon)
        except _Failed as err:
            self._warn(addon, err.reason, f"{err.doing} manifest at {_quoted(file)} failed: {err}")
            return False
        self._applied.add(file.path)
        return True

    async def _apply(self, file: File, addon: Object) -> None:
        if file.problem:
            raise _Failed("ReadManifestFailed", "Read", file.problem)
        try:
            objects = await asyncio.to_thread(parse, file.data)
        except ParseError as err:
            raise _Failed("ParseManifestFailed", "Parse", str(err)) from err
        first = file.checksum != (addon.get("spec") or {}).get("checksum")
        self._say(addon, "ApplyingManifest", f"Applying manifest at {_quoted(file)}")
        before = parse_gvks((addon["metadata"].get("annotations") or {}).get(GVKS, ""))
        now = gvks_of(objects)
        try:
            # The kinds are noted first: whatever happens after, it is known what to look for.
            addon = await self._note(addon, sorted({*before, *now}))
            await self._objects.apply(file.name, objects)
            if first:
                await self._objects.prune(file.name, before, objects)
        except (ApplyFailed, StatusError) as err:
            raise _Failed("ApplyManifestFailed", "Applying", str(err)) from err
        spec = {"source": str(file.path), "checksum": file.checksum}
        addon = await self._note(addon, now, spec)
        self._say(addon, "AppliedManifest", f"Applied manifest at {_quoted(file)}")

    async def _addon(self, file: File) -> Object | None:
        """None: the file has a name that no object can have, such as my_app.yaml."""
        try:
            return await self._client.get(ADDONS, NAMESPACE, file.name)
        except StatusError as err:
            if err.code != 404:
                raise
        body = {
            "apiVersion": "k3s.cattle.io/v1",
            "kind": "Addon",
            "metadata": {"name": file.name, "namespace": NAMESPACE},
            "spec": {"source": str(file.path)},
        }
        try:
            return await self._client.create(ADDONS, body)
        except StatusError as err:
            if err.code != 422:
                raise
            if file.path not in self._nameless:  # once a start: only another name helps
                self._nameless.add(file.path)
                log.error("manifest at %s is not applied: %s", _quoted(file), err)  # noqa: TRY400
        return None

    async def _note(
        self, addon: Object, gvks: list[tuple[str, str]], spec: Mapping[str, Any] | None = None
    ) -> Object:
        """Write what the AddOn says only where it says something else."""
        meta = addon["metadata"]
        annotations = {**(meta.get("annotations") or {}), GVKS: format_gvks(gvks)}
        made = {
            **addon,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**(addon.get("spec") or {}), **(spec or {})},
        }
        if made == addon:
            return addon
        return await self._client.update(ADDONS, made)

    # -- disabled components

    async def _remove_disabled(self, listing: Listing) -> bool:
        if not self._disable:
            return True
        named: dict[str, set[tuple[str, str]]] = {}
        for file in listing.files:
            if is_disabled(file.path, self._root, self._disable):
                named.setdefault(file.name, set()).update(self._kinds_in(file))
                await asyncio.to_thread(self._unlink, file.path)
        listed = await self._client.list(ADDONS, Selection(namespace=NAMESPACE))
        done = True
        for addon in listed.items:
            source = Path((addon.get("spec") or {}).get("source") or "")
            name = addon["metadata"]["name"]
            if name in named or is_disabled(source, self._root, self._disable):
                done = await self._remove(addon, named.get(name, set())) and done
        return done

    def _kinds_in(self, file: File) -> set[tuple[str, str]]:
        try:
            return set(gvks_of(parse(file.data)))
        except ParseError:
            return set()

    def _unlink(self, path: Path) -> None:
        """Files behind a link belong to somebody else."""
        if path.resolve().is_relative_to(self._root.resolve()):
            path.unlink(missing_ok=True)

    async def _remove(self, addon: Object, kinds: set[tuple[str, str]]) -> bool:
        meta = addon["metadata"]
        source = (addon.get("spec") or {}).get("source") or meta["name"]
        self._say(addon, "DeletingManifest", f'Deleting manifest at "{source}"')
        known = parse_gvks((meta.get("annotations") or {}).get(GVKS, ""))
        try:
            await self._objects.prune(meta["name"], sorted({*known, *kinds}))
            await self._client.delete(ADDONS, NAMESPACE, meta["name"])
        except StatusError as err:
            self._warn(addon, "ApplyManifestFailed", f'Deleting "{source}" failed: {err}')
            return False
        return True

    # -- events

    def _say(self, addon: Object, reason: str, text: str) -> None:
        self._recorder.record("deploy", Record(addon, "Normal", reason, text))

    def _warn(self, addon: Object, reason: str, text: str) -> None:
        log.info("%s: %s", reason, text)
        self._recorder.record("deploy", Record(addon, "Warning", reason, text))


class _Failed(Exception):
    """One file was not applied; the event's reason and verb come along."""

    def __init__(self, reason: str, doing: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.doing = reason, doing


def _quoted(file: File) -> str:
    return f'"{file.path}"'
