"""What a person does with HelmCharts, through kubectl, in one namespace of a booted node."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.charts import packing, program
from tests.e2e.conftest import Space
from tests.e2e.node import Timeout

PATIENCE = 60.0  # seconds; a small board that does much else is slow
Object = Mapping[str, Any]
FINALIZER = "wrangler.cattle.io/on-helm-chart-remove"


def condition(thing: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((thing or {}).get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})


def manifest(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": dict(spec),
    }


def _objects(watch: "subprocess.Popen[str]") -> Iterator[Object]:
    """Of what kubectl prints, indented; an object ends where its brace is the whole line."""
    assert watch.stdout is not None
    lines: list[str] = []
    for line in watch.stdout:
        lines.append(line)
        if line == "}\n":
            yield json.loads("".join(lines))
            lines.clear()


@dataclass(frozen=True)
class Person:
    space: Space

    def apply(self, name: str, of: str = "told", at: str = "", **spec: Any) -> None:
        """A HelmChart with this chart, at this version, within it; ``of=""``: as the spec says."""
        within = {"chartContent": packing.content(of, at)} if of else {}
        self.put(manifest("HelmChart", name, within | spec))

    def configure(self, name: str, **spec: Any) -> None:
        self.put(manifest("HelmChartConfig", name, spec))

    def put(self, *things: Mapping[str, Any]) -> None:
        """Server-side, since an annotation has no room for a chart."""
        text = "\n".join(json.dumps(thing) for thing in things)
        self.space.apply(text, "--server-side", "--force-conflicts")

    def change(self, name: str, **spec: Any) -> None:
        patch = json.dumps({"spec": spec})
        self.space.kubectl("patch", "helmchart", name, "--type=merge", "-p", patch)

    def chart(self, name: str) -> dict[str, Any] | None:
        done = self.space.run("get", "helmchart", name, "-o", "json", check=False)
        found: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
        return found

    def deployed(self, name: str, revision: int, **where: Any) -> dict[str, Any]:
        """Once this revision is deployed, the HelmChart says so of what it is now, and only it."""

        def holds(chart: Object) -> Any:
            ready = condition(chart, "Ready")
            current = ready.get("observedGeneration") == chart["metadata"]["generation"]
            if ready.get("status") != "True" or not current:
                return None
            return chart if self.last(name, **where) == (revision, "deployed") else None

        found: dict[str, Any] = self._until(name, holds)
        assert condition(found, "Failed")["status"] == "False"
        deployed = [v for v, s in self.revisions(name, **where).items() if s == "deployed"]
        assert deployed == [revision]
        return found

    def failed(self, name: str, reason: str = "") -> Mapping[str, Any]:
        """Its condition, once it says of what the HelmChart is now that this failed."""

        def holds(chart: Object) -> Any:
            found = condition(chart, "Failed")
            current = found.get("observedGeneration") == chart["metadata"]["generation"]
            said = found.get("status") == "True" and reason in {"", found.get("reason")}
            return found if said and current else None

        failed: Mapping[str, Any] = self._until(name, holds)
        return failed

    def says(self, name: str, kind: str, **expected: str) -> Mapping[str, Any]:
        def holds(chart: Object) -> Any:
            found = condition(chart, kind)
            return found if expected.items() <= found.items() else None

        said: Mapping[str, Any] = self._until(name, holds)
        return said

    def _until(self, name: str, holds: Callable[[Object], Any]) -> Any:
        """The first true answer; asked with each state that a watch tells, and not in between."""
        chart: Object = {}
        with self.space.background("get", "helmchart", name, "-o", "json", "--watch") as watch:
            timer = threading.Timer(PATIENCE, watch.kill)
            timer.start()
            try:
                for chart in _objects(watch):
                    if value := holds(chart):
                        return value
            finally:
                timer.cancel()
        raise Timeout(f"{json.dumps(chart.get('status'))} {self.revisions(name)}")

    def revisions(
        self, release: str, *, namespace: str = "", driver: str = "secrets"
    ) -> dict[int, str]:
        found = self.space.node.get(
            driver, f"--namespace={namespace or self.space.name}", f"-lowner=helm,name={release}"
        )
        labels = (item["metadata"]["labels"] for item in found["items"])
        return dict(sorted((int(label["version"]), label["status"]) for label in labels))

    def last(self, release: str, **where: Any) -> tuple[int, str]:
        return max(self.revisions(release, **where).items(), default=(0, ""))

    def told(self, name: str) -> Any:
        """The values that the chart ``told`` got."""
        return json.loads(self.space.value("configmap", name, path="{.data.values}"))

    def data(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.space.get("configmap", name).get("data", {})
        return found

    def events(self, name: str) -> list[str]:
        """The reasons, in the order in which they came."""
        selector = f"--field-selector=involvedObject.kind=HelmChart,involvedObject.name={name}"
        items = self.space.get("events", selector)["items"]
        items.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [item["reason"] for item in items]

    def delete(self, name: str) -> None:
        """Until it is gone, and with it what belonged to it."""
        self.space.kubectl("delete", "helmchart", name, f"--timeout={PATIENCE:.0f}s")
        assert self.revisions(name) == {}

    def left(self, release: str) -> list[str]:
        """Objects of any kind, in any namespace, that bear the name of the release."""
        label = f"-lapp.kubernetes.io/instance={release}"
        kinds = self._kinds()
        found = self.space.node.kubectl("get", ",".join(kinds), "-A", "-o", "json", label)
        return sorted(
            f"{item['kind']}/{item['metadata']['name']}"
            for item in json.loads(found.stdout)["items"]
            if item["metadata"].get("namespace", self.space.name) == self.space.name
        )

    def _kinds(self) -> list[str]:
        listed = self.space.node.kubectl("api-resources", "--verbs=list", "-o", "name").stdout
        # Of these the API makes copies, which follow.
        made = {"events", "events.events.k8s.io", "endpoints", "pods.metrics.k8s.io"}
        return [kind for kind in listed.split() if kind not in made and "metrics" not in kind]

    def helm(self, *arguments: str, check: bool = True, driver: str = "secret") -> str:
        """The ``helm`` program, beside the node. Raises :class:`program.NoHelm`."""
        done = self.space.node.namespace.exec(
            "env",
            f"KUBECONFIG={self.space.node.kubeconfig}",
            f"HELM_DRIVER={driver}",
            program.find(),
            f"--namespace={self.space.name}",
            *arguments,
            check=check,
        )
        return done.stdout if check else done.stdout + done.stderr
