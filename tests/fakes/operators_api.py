"""An API and a Helm in memory: what operators write is written down in order."""

from collections.abc import Mapping, Sequence
from typing import Any

from operators.client import ApiError
from operators.helm.base import HelmError, Job, Release, Target

Object = dict[str, Any]


class FakeApi:
    """Objects by their path; ``writes`` are (verb, path) without events, ``events`` reasons."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[str] = []

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        found = self.objects[path]
        return {**found, "metadata": dict(found["metadata"])}

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[Object]:
        return [
            found["metadata"]
            for place, found in self.objects.items()
            if place.rpartition("/")[0] == path
        ]

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        if body["kind"] == "Event":
            self.events.append(body["reason"])
        else:
            self.writes.append(("create", path))
        return dict(body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        self.writes.append(("replace", path))
        self.objects[path] = dict(body)
        return dict(body)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        self.writes.append(("merge", path))
        found = self.objects[path.removesuffix("/status")]
        for part, change in patch.items():
            found[part] = {**found.get(part, {}), **change}
        return await self.get(path.removesuffix("/status"))

    async def delete(self, path: str) -> None:
        self.writes.append(("delete", path))
        self.objects.pop(path, None)


class FakeHelm:
    """Keeps its records in ``api`` as Helm does; ``failures`` are raised first, in order."""

    def __init__(self, api: FakeApi) -> None:
        self.calls: list[str] = []
        self.failures: list[HelmError] = []
        self._api = api

    async def install(self, job: Job) -> Release:
        return self._write("install", job)

    async def upgrade(self, job: Job) -> Release:
        return self._write("upgrade", job)

    async def uninstall(self, target: Target) -> None:
        self.calls.append("uninstall")
        for path in [path for path in self._api.objects if f".v1.{target.name}.v" in path]:
            del self._api.objects[path]

    async def history(self, target: Target) -> Sequence[Release]:
        raise NotImplementedError

    async def status(self, target: Target) -> Release | None:
        raise NotImplementedError

    async def template(self, job: Job) -> str:
        raise NotImplementedError

    def _write(self, action: str, job: Job) -> Release:
        self.calls.append(action)
        failed = self.failures.pop(0) if self.failures else None
        revision = int(dict(job.labels)["pinnace.dev/helm-revision"])
        status = "failed" if failed else "deployed"
        path = f"/api/v1/namespaces/{job.target.namespace}/secrets"
        label = {"owner": "helm", "version": str(revision), "status": status, **dict(job.labels)}
        self._api.objects[f"{path}/sh.helm.release.v1.{job.target.name}.v{revision}"] = {
            "metadata": {"labels": label}
        }
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
