"""HelmCharts in an API in memory, and the operator that looks at them when it is told to."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from operators.client import ApiError
from operators.helm.apply import Charts
from operators.helm.base import Target
from tests.fakes.operators_api import FakeApi, FakeChecker, FakeHelm
from tests.fakes.operators_config import config as told

KEY = "kube-system/web"
FOLDER = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
PATH = f"{FOLDER}/web"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
TARGET = Target(name="web", namespace="kube-system")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # a Friday
KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {}}]
"""


class World:
    def __init__(self, kubeconfig: Path) -> None:
        self.api = FakeApi()
        self.helm = FakeHelm(self.api)
        self.checker = FakeChecker()
        self.waits: dict[str, str] = {}  # what each key waits for
        self.seconds = 0.0
        kubeconfig.write_text(KUBECONFIG)
        self._config = told(kubeconfig=kubeconfig)
        self.restart()
        self.api.objects["/api/v1/namespaces/kube-system"] = {"metadata": {"name": "kube-system"}}

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def restart(self) -> None:
        """Another process, which knows what the API knows."""
        began, self.began = self.seconds, self.seconds
        self.charts = Charts(
            self._config,
            self.api,
            self.helm,
            checker=self.checker,
            wait_for=self.waits.__setitem__,
            now=lambda: self.now,
            clock=lambda: self.seconds - began,
        )

    def put(self, name: str = "web", /, **spec: Any) -> dict[str, Any]:
        """Create the chart, or change its spec."""
        path = f"{FOLDER}/{name}"
        found = self.api.objects.get(path)
        if found is None:
            metadata: dict[str, Any] = {"name": name, "namespace": "kube-system", "uid": name}
            metadata |= {"resourceVersion": "1", "generation": 0}
            found = self.api.objects[path] = {
                "metadata": metadata,
                "spec": {"chartContent": "dGd6"},
            }
        found["spec"] = found["spec"] | spec
        found["metadata"]["generation"] += 1
        return found

    async def look(self, name: str = "web") -> float | None:
        return await self.charts.reconcile(f"kube-system/{name}")

    async def settle(self, name: str = "web") -> float | None:
        """Look for as long as another look is asked for at once."""
        for _ in range(20):
            again = await self.look(name)
            if again != 0.0:
                return again
        raise AssertionError("it never came to rest")

    async def queued(self, name: str = "web") -> None:
        """As the queue looks: again after a failure, and when asked to, until all is done."""
        for _ in range(50):
            try:
                again = await self.look(name)
            except ApiError:
                again = 1.0
            if again is None:
                return
            self.seconds += again
        raise AssertionError("it never came to rest")

    def condition(self, kind: str, name: str = "web") -> dict[str, Any]:
        found = (self.api.objects[f"{FOLDER}/{name}"].get("status") or {}).get("conditions") or ()
        return next((condition for condition in found if condition["type"] == kind), {})

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[PATH]["status"]
        return found

    @property
    def ready(self) -> tuple[str, str]:
        ready = self.condition("Ready")
        return ready["status"], ready["reason"]

    def revisions(self) -> dict[str, str]:
        labels = [
            found["metadata"]["labels"]
            for path, found in self.api.objects.items()
            if "sh.helm.release" in path
        ]
        return {label["version"]: label["status"] for label in labels}
