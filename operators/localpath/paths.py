"""
The ConfigMap ``local-path-config``: which paths each node has. Pure.

K3s's keys and rules. Of the helper pod and the scripts only other Kubernetes make
use. Source: local-path-provisioner, README, "Configuration".
"""

import json
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from operators.localpath.base import Object, Refused, Unfit

NAME = "local-path-config"
DEFAULT_NODE = "DEFAULT_PATH_FOR_NON_LISTED_NODES"
PATIENCE = 120  # seconds for a helper pod
_SHARED = ("sharedFileSystemPath", "sharedFilesystemPath")  # the README has both
# What a node of Pinnace does itself, line by line; another script is told to be ignored.
_KNOWN_LINES = frozenset(
    {
        "#!/bin/sh",
        "set -eu",
        'mkdir -m 0777 -p "${VOL_DIR}"',
        'mkdir -m 0777 -p "$VOL_DIR"',
        'chmod 700 "${VOL_DIR}/.."',
        'chmod 701 "${VOL_DIR}/.."',
        'chown "${VOL_USER}:${VOL_GROUP}" "$VOL_DIR"',
        'chmod "${VOL_PERM}" "$VOL_DIR"',
        'rm -rf "${VOL_DIR}"',
        'rm -rf "$VOL_DIR"',
        "",
    }
)


class Invalid(Exception):
    """The ConfigMap cannot be used; what was in force before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Either a map from nodes to paths or one shared path."""

    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared: str = ""

    def of(self, node: str) -> tuple[str, ...]:
        """Of a node; () where nothing may be made there."""
        if self.shared:
            return (self.shared,)
        return self.nodes.get(node, self.nodes.get(DEFAULT_NODE, ()))

    def choose(self, node: str, wanted: str, seed: int) -> Path:
        """``wanted``: the class's nodePath. Raises :class:`Unfit` in upstream's words."""
        if self.shared:
            return Path(self.shared)
        if node not in self.nodes and DEFAULT_NODE not in self.nodes:
            raise Unfit(f"config doesn't contain node {node}, and no {DEFAULT_NODE} available")
        found = self.of(node)
        if not found:
            raise Unfit(f"no local path available on node {node}")
        if wanted:
            if wanted not in found:
                raise Unfit(f"config doesn't contain path {wanted} on node {node}")
            return Path(wanted)
        return Path(found[seed % len(found)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    paths: Paths
    classes: Mapping[str, Paths] = field(default_factory=dict)
    patience: int = PATIENCE
    setup_command: str = ""
    teardown_command: str = ""
    helper_pod: Object | None = None
    ignored: tuple[str, ...] = ()  # scripts that ask for more than a node does by itself

    def of_class(self, name: str) -> Paths:
        if not self.classes:
            return self.paths
        if name not in self.classes:
            raise Refused(f"BUG: Got request for unexpected storage class {name}")
        return self.classes[name]

    def is_shared(self, name: str) -> bool:
        """Also of a class that is configured no more: of its volumes nobody else will see."""
        return bool((self.classes.get(name) or self.paths).shared)

    def bases(self, node: str) -> list[Path]:
        """Every path that a volume on this node may lie in."""
        every = [*self.classes.values()] if self.classes else [self.paths]
        return sorted({Path(path) for paths in every for path in paths.of(node)})


def default(storage_dir: Path) -> Configuration:
    return Configuration(paths=Paths(nodes={DEFAULT_NODE: (str(storage_dir),)}))


def parse(data: Mapping[str, str]) -> Configuration:
    """The data of the ConfigMap. Raises :class:`Invalid` in upstream's words."""
    try:
        told = json.loads(data.get("config.json", ""))
    except ValueError as err:
        raise Invalid(f"fail to load config file config.json: {err}") from err
    if not isinstance(told, dict):
        raise Invalid("fail to load config file config.json: it is no JSON object")
    try:
        classes = {
            name: _class_paths(name, entry)
            for name, entry in (told.get("storageClassConfigs") or {}).items()
        }
        paths = Paths() if classes else _paths(told)
    except (AttributeError, TypeError, KeyError) as err:
        raise Invalid(f"config canonicalization failed: {err}") from err
    seconds = told.get("cmdTimeoutSeconds") or 0
    return Configuration(
        paths=paths,
        classes=classes,
        patience=int(seconds) if seconds > 0 else PATIENCE,
        setup_command=told.get("setupCommand") or "",
        teardown_command=told.get("teardownCommand") or "",
        helper_pod=_helper_pod(data.get("helperPod.yaml", "")),
        ignored=_ignored(told, data),
    )


def _class_paths(name: str, entry: Mapping[str, Any]) -> Paths:
    try:
        return _paths(entry)
    except Invalid as err:
        raise Invalid(f"config for class {name} is invalid: {err}") from err


def _paths(told: Mapping[str, Any]) -> Paths:
    shared = next((told[name] for name in _SHARED if told.get(name)), "")
    nodes: dict[str, tuple[str, ...]] = {}
    for entry in told.get("nodePathMap") or ():
        name = entry["node"]
        if name in nodes:
            raise Invalid(f"duplicate node {name}")
        nodes[name] = _checked(name, entry.get("paths") or ())
    if shared and nodes:
        raise Invalid(
            "both nodePathMap and sharedFileSystemPath are defined."
            " Please make sure only one is in use"
        )
    if not shared and not nodes:
        raise Invalid("both nodePathMap and sharedFileSystemPath are unconfigured")
    return Paths(nodes=nodes, shared=_checked("*", [shared])[0] if shared else "")


def _checked(node: str, told: Any) -> tuple[str, ...]:
    found: list[str] = []
    for path in told:
        if not str(path).startswith("/"):
            raise Invalid(f"path must start with / for path {path} on node {node}")
        clean = "/" + os.path.normpath(path).lstrip("/")
        if clean == "/":
            raise Invalid(f"cannot use root ('/') as path on node {node}")
        if clean in found:
            raise Invalid(f"duplicate path {path} on node {node}")
        found.append(clean)
    return tuple(found)


def _ignored(told: Mapping[str, Any], data: Mapping[str, str]) -> tuple[str, ...]:
    found = [name for name in ("setupCommand", "teardownCommand") if told.get(name)]
    for name in ("setup", "teardown"):
        lines = {line.strip() for line in data.get(name, "").splitlines()}
        if lines - _KNOWN_LINES:
            found.append(name)
    return tuple(found)


def _helper_pod(text: str) -> Object | None:
    """The template, checked: it runs as root with the volumes' folder. Raises :class:`Invalid`."""
    if not text.strip():
        return None
    try:
        pod = yaml.safe_load(text)
        spec = pod["spec"]
        containers = spec["containers"]
    except (yaml.YAMLError, KeyError, TypeError) as err:
        raise Invalid(f"invalid helper pod template: {err}") from err
    if len(containers) != 1:
        raise Invalid("helper pod template must specify exactly one container")
    for reason, found in _forbidden(spec, containers[0]):
        if found:
            raise Invalid(f"helper pod template must not {reason}")
    checked: Object = pod
    return checked


def _forbidden(spec: Mapping[str, Any], container: Mapping[str, Any]) -> list[tuple[str, bool]]:
    pod_context = spec.get("securityContext") or {}
    context = container.get("securityContext") or {}
    probes = ("livenessProbe", "readinessProbe", "startupProbe")
    return [
        ("define initContainers", bool(spec.get("initContainers"))),
        ("define ephemeralContainers", bool(spec.get("ephemeralContainers"))),
        ("define custom volumes", bool(spec.get("volumes"))),
        (
            "enable host namespaces",
            any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
        ),
        ("set spec.nodeName", bool(spec.get("nodeName"))),
        ("set spec.serviceAccountName", bool(spec.get("serviceAccountName"))),
        ("define custom volumeMounts", bool(container.get("volumeMounts"))),
        ("define envFrom", bool(container.get("envFrom"))),
        ("define env.valueFrom", any(e.get("valueFrom") for e in container.get("env") or ())),
        ("define container lifecycle hooks", bool(container.get("lifecycle"))),
        *[(f"define container {name}", bool(container.get(name))) for name in probes],
        ("set pod runAsUser to 0 (root)", pod_context.get("runAsUser") == 0),
        ("set pod runAsGroup to 0 (root)", pod_context.get("runAsGroup") == 0),
        ("define sysctls", bool(pod_context.get("sysctls"))),
        ("set privileged: true", bool(context.get("privileged"))),
        ("add capabilities", bool((context.get("capabilities") or {}).get("add"))),
        ("set allowPrivilegeEscalation: true", bool(context.get("allowPrivilegeEscalation"))),
    ]
