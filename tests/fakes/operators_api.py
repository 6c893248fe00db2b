"""An API and a Helm in memory: what operators write is written down in order."""

import base64
import gzip
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from operators.client import ApiError
from operators.helm.base import HelmError, Job, Release, Target
from operators.helm.status import Said
from operators.helm.wanted import Drift

Object = dict[str, Any]


class FakeApi:
    """
    Objects by their path; ``writes`` are (verb, path) without events, ``events`` reasons.

    ``faults`` are raised, one for each request, before or (``after``) behind what it does;
    None lets a request pass.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[str] = []
        self._told: dict[str, str] = {}  # reasons by the paths of events
        self._version = 100
        self.faults: Iterator[ApiError | None] = iter(())
        self.after: Iterator[ApiError | None] = iter(())

    def _fail(self, faults: Iterator[ApiError | None]) -> None:
        if fault := next(faults, None):
            raise fault

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        self._fail(self.faults)
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        found = self.objects[path]
        return {**found, "metadata": dict(found["metadata"])}

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[Object]:
        self._fail(self.faults)
        return [
            found["metadata"]
            for place, found in self.objects.items()
            if place.rpartition("/")[0] == path and _selected(found, query)
        ]

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        self._fail(self.faults)
        if body["kind"] == "Event":
            self.events.append(body["reason"])
            self._told[f"{path}/{body['metadata']['name']}"] = body["reason"]
        else:
            self.writes.append(("create", path))
        return dict(body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        self._fail(self.faults)
        self.writes.append(("replace", path))
        self.objects[path] = dict(body)
        return dict(body)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        self._fail(self.faults)
        if path in self._told:
            self.events.append(self._told[path])
            return {}
        found = self.objects[path.removesuffix("/status")]
        metadata = found["metadata"]
        seen = (patch.get("metadata") or {}).get("resourceVersion")
        if seen is not None and seen != metadata.get("resourceVersion"):
            raise ApiError(409, "Conflict", f"{path} was changed meanwhile")
        self.writes.append(("merge", path))
        self._version += 1
        for part, change in patch.items():
            found[part] = {**found.get(part, {}), **change}
        found["metadata"]["resourceVersion"] = str(self._version)
        self._fail(self.after)
        return {**found, "metadata": dict(found["metadata"])}

    async def delete(self, path: str) -> None:
        self._fail(self.faults)
        self.writes.append(("delete", path))
        self.objects.pop(path, None)


def _selected(found: Object, query: Mapping[str, str]) -> bool:
    labels = found["metadata"].get("labels") or {}
    wanted = [pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair]
    return all(labels.get(key) == value for key, value in wanted)


def _reason(failure: Exception) -> str:
    return failure.reason if isinstance(failure, HelmError) else type(failure).__name__


class Died(Exception):
    """The process that ran Helm, and the one that waits for it, are no more."""


class FakeHelm:
    """
    Keeps its records in ``api`` as Helm does; ``failures`` are raised first, in order.

    A failure of the reason "WorkerDied" leaves its record pending, one of "RepoError"
    or "StorageError" leaves none.
    """

    def __init__(self, api: FakeApi) -> None:
        self.calls: list[str] = []
        self.failures: list[HelmError | Died] = []
        self.jobs: list[Job] = []
        self._uids = itertools.count()
        self._api = api

    async def install(self, job: Job) -> Release:
        return self._write("install", job)

    async def upgrade(self, job: Job) -> Release:
        return self._write("upgrade", job)

    async def rollback(
        self, target: Target, revision: int, *, server_side: str, force_conflicts: bool
    ) -> None:
        self.calls.append(f"rollback {revision}")
        records = self._records(target)
        found, last = records[revision], max(records)
        failed = self.failures.pop(0) if self.failures else None
        if not failed:
            self._supersede(target)
        labels = found["metadata"]["labels"] | {"version": str(last + 1)}
        status = "failed" if failed else "deployed"
        if isinstance(failed, Died):
            status = "pending-rollback"
        self.put(target, last + 1, status, labels)
        if failed:
            raise failed

    async def uninstall(self, target: Target) -> None:
        self.calls.append("uninstall")
        if self.failures and _reason(self.failures[0]) == "UninstallError":
            raise self.failures.pop(0)
        for path in [path for path in self._api.objects if f".v1.{target.name}.v" in path]:
            del self._api.objects[path]

    async def history(self, target: Target) -> Sequence[Release]:
        raise NotImplementedError

    async def status(self, target: Target) -> Release | None:
        raise NotImplementedError

    async def template(self, job: Job) -> str:
        raise NotImplementedError

    def put(
        self, target: Target, revision: int, status: str, labels: Mapping[str, str], **more: Any
    ) -> None:
        release = {
            "info": {"status": status, "description": f"{status} it is"},
            "apply_method": "ssa",
            "chart": {"metadata": {"name": "hello", "version": "0.1.0", "appVersion": "1"}},
            **more,
        }
        data = base64.b64encode(gzip.compress(json.dumps(release).encode()))
        label = {"owner": "helm", "name": target.name, "version": str(revision)}
        label |= {**labels, "status": status}
        self._api.objects[self.path(target, revision)] = {
            "metadata": {"labels": label, "uid": str(next(self._uids))},
            "data": {
                "release": (base64.b64encode(data) if target.driver == "secret" else data).decode()
            },
        }

    def path(self, target: Target, revision: int) -> str:
        plural = "secrets" if target.driver == "secret" else "configmaps"
        folder = f"/api/v1/namespaces/{target.namespace}/{plural}"
        return f"{folder}/sh.helm.release.v1.{target.name}.v{revision}"

    def _records(self, target: Target) -> dict[int, Object]:
        return {
            int(found["metadata"]["labels"]["version"]): found
            for path, found in self._api.objects.items()
            if f".v1.{target.name}.v" in path
        }

    def _supersede(self, target: Target) -> None:
        for found in self._records(target).values():
            if found["metadata"]["labels"]["status"] == "deployed":
                found["metadata"]["labels"]["status"] = "superseded"

    def _write(self, action: str, job: Job) -> Release:
        self.calls.append(action)
        self.jobs.append(job)
        failed = self.failures.pop(0) if self.failures else None
        if failed and _reason(failed) in {"RepoError", "StorageError"}:
            raise failed
        if not failed:
            self._supersede(job.target)
        revision = int(dict(job.labels)["pinnace.dev/helm-revision"])
        status = "failed" if failed else "deployed"
        if failed and _reason(failed) in {"WorkerDied", "Died"}:
            status = f"pending-{action}"
        self.put(job.target, revision, status, dict(job.labels))
        if failed:
            raise failed
        return Release(
            name=job.target.name,
            namespace=job.target.namespace,
            revision=revision,
            status=status,
            chart="hello-0.1.0",
            app_version="1",
        )


class FakeChecker:
    """Says in turn what ``said`` holds; then that nothing drifted."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.checks = 0

    async def check(self, target: Target, revision: int, asked: Drift) -> Said:
        self.checks += 1
        return self.said.pop(0) if self.said else ("False", "InSync", "")
