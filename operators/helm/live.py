"""
The program that compares a release with what is there: one request on stdin, one answer on stdout.

``{"kubeconfig", "target", "revision", "ignore"}`` gives ``{"drift": [[name, [place, …]], …]}``
or ``{"error": …}``. It reads Helm's record of the release, and for each object in it asks
the API what applying it would give. Nothing is changed.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from operators.helm import drift, records, removed
from operators.helm.base import Target
from operators.writer import perform

MANAGER = "helm"  # the field manager that Helm applies with
Object = dict[str, Any]
Ask = Callable[..., tuple[int, Any]]


class Unknown(Exception):
    """The API gave no answer that says anything."""


def main() -> int:
    # Here, so that importing this module costs nothing.
    from kubernetes import config

    request = json.load(sys.stdin)
    new_client: Callable[[str], Any] = config.new_client_from_config
    api = new_client(request["kubeconfig"])

    def ask(method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": kind}
        question = {
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "headers": headers,
        }
        answer = perform(api, question)
        return answer["code"], answer["body"]

    try:
        answer: dict[str, Any] = {"drift": check(ask, request)}
    except (Unknown, records.Unreadable) as err:
        answer = {"error": str(err)}
    json.dump(answer, sys.stdout)
    return 0


def check(ask: Ask, request: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Raises :class:`Unknown` where the API does not answer."""
    target = Target(**request["target"])
    code, record = ask("GET", records.path(target, request["revision"]))
    if code != 200:
        raise Unknown(f"the record of revision {request['revision']}: {_why(record)}")
    manifest = removed.convert(str(records.decode(record, target.driver).get("manifest") or ""))
    resources = _Resources(ask)
    found = []
    for thing in yaml.load_all(manifest, Loader=_loader()):
        if isinstance(thing, dict) and thing.get("kind"):
            places = _drift_of(ask, resources, thing, target)
            name = {"kind": thing["kind"], "name": thing["metadata"]["name"]}
            if left := drift.left_over(name, places, request["ignore"]):
                found.append((f"{thing['kind']} {thing['metadata']['name']}", left))
    return found


def _drift_of(ask: Ask, resources: "_Resources", thing: Object, target: Target) -> list[str]:
    folder = resources.folder(thing, target.namespace)
    if folder is None:
        return ["its kind is not served"]
    path = f"{folder}/{thing['metadata']['name']}"
    code, live = ask("GET", path)
    if code == 404:
        return ["missing"]
    if code != 200:
        raise Unknown(f"{path}: {_why(live)}")
    code, wanted = ask(
        "PATCH", path, _marked(thing, target), dryRun="All", fieldManager=MANAGER, force="true"
    )
    if code in {409, 422}:
        return [f"cannot be applied: {_why(wanted)}"]
    if code not in {200, 201}:
        raise Unknown(f"{path}: {_why(wanted)}")
    return drift.places(live, wanted)


def _marked(thing: Object, target: Target) -> Object:
    """With the marks that Helm gives each object, which are not in the manifest that it keeps."""
    metadata = dict(thing["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), "app.kubernetes.io/managed-by": "Helm"}
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        "meta.helm.sh/release-name": target.name,
        "meta.helm.sh/release-namespace": target.namespace,
    }
    return {**thing, "metadata": metadata}


class _Resources:
    """Where the objects of a kind are, as the API's discovery says."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, dict[str, Object]] = {}

    def folder(self, thing: Object, namespace: str) -> str | None:
        """None: no such kind is served."""
        version = str(thing["apiVersion"])
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        found = self._kinds(base).get(thing["kind"])
        if found is None:
            return None
        if not found["namespaced"]:
            return f"{base}/{found['name']}"
        place = thing["metadata"].get("namespace") or namespace
        return f"{base}/namespaces/{place}/{found['name']}"

    def _kinds(self, base: str) -> dict[str, Object]:
        if base not in self._known:
            code, listed = self._ask("GET", base)
            if code not in {200, 404}:
                raise Unknown(f"{base}: {_why(listed)}")
            served = listed.get("resources") or [] if code == 200 else []
            self._known[base] = {one["kind"]: one for one in served if "/" not in one["name"]}
        return self._known[base]


def _why(body: Any) -> str:
    return str(body.get("message") or body) if isinstance(body, dict) else str(body)


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


if __name__ == "__main__":
    sys.exit(main())
