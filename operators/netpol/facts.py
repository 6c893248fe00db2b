"""
What watches tell becomes facts of the compiler.

What was deleted while nobody watched is missing from the next listing: hence :class:`Seen`.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from operators.netpol.apply import Enforcer
from operators.netpol.objects import labels_of, pod_of, policy_of, version_of
from operators.sweep import Sweep

Body = Mapping[str, Any]


class Seen:
    """The keys of a kind that are there; ``gone`` is called for those that a listing lacks."""

    def __init__(self, gone: Callable[[str], None]) -> None:
        self._gone = gone
        self._keys: set[str] = set()
        self._listings = Sweep(self._sweep)

    def note(self, key: str, event_type: str | None) -> None:
        """``event_type`` None: it came in a listing."""
        if event_type == "DELETED":
            self._keys.discard(key)
            return
        self._keys.add(key)
        self._listings.seen(key, listed=event_type is None)

    def _sweep(self, found: set[str]) -> None:
        for key in self._keys - found:
            self._gone(key)
        self._keys &= found


class Facts:
    """Tells the enforcer. ``closed``: unknown addresses of this node get nowhere."""

    def __init__(self, enforcer: Enforcer, *, closed: bool) -> None:
        self._enforcer = enforcer
        self._closed = closed
        self.pods = Seen(self._pod_missing)
        self.policies = Seen(self._policy_gone)
        self.namespaces = Seen(lambda name: self._namespace(name, None))

    def pod(self, body: Body) -> None:
        compiler = self._enforcer.compiler
        pod, metadata = pod_of(body), body["metadata"]
        if pod is None:
            key, uid = key_of(body), metadata["uid"]
            changes = compiler.pods.gone(key, uid, version_of(metadata))
        else:
            changes = compiler.pods.told(pod)
        if changes:
            compiler.change_pods(changes)
            self._enforcer.change()

    def pod_deleted(self, body: Body) -> None:
        pods, metadata = self._enforcer.compiler.pods, body["metadata"]
        changes = pods.gone(key_of(body), metadata["uid"], version_of(metadata))
        self._enforcer.compiler.change_pods(changes)
        self._enforcer.change()

    def _pod_missing(self, key: str) -> None:
        compiler = self._enforcer.compiler
        compiler.change_pods(compiler.pods.gone(key))
        self._enforcer.change()

    def policy(self, body: Body) -> None:
        policy = policy_of(body)
        known = self._enforcer.compiler.policy(policy.namespace, policy.name)
        if known is None or known.version <= policy.version:
            self._enforcer.compiler.put_policy(policy.namespace, policy.name, policy)
            self._enforcer.change()

    def policy_deleted(self, body: Body) -> None:
        metadata = body["metadata"]
        known = self._enforcer.compiler.policy(metadata["namespace"], metadata["name"])
        if known and known.version <= version_of(metadata):
            self._policy_gone(key_of(body))

    def _policy_gone(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        self._enforcer.compiler.put_policy(namespace, name, None)
        self._enforcer.change()

    def namespace(self, body: Body) -> None:
        self._namespace(body["metadata"]["name"], labels_of(body["metadata"].get("labels")))

    def namespace_deleted(self, body: Body) -> None:
        self._namespace(body["metadata"]["name"], None)

    def _namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        self._enforcer.compiler.put_namespace(name, labels)
        self._enforcer.change()

    def node(self, body: Body) -> None:
        if self._closed and body["metadata"]["name"] == self._enforcer.compiler.node:
            spec = body.get("spec") or {}
            networks = spec.get("podCIDRs") or [spec.get("podCIDR")]
            self._enforcer.close_networks(str(ip_network(text)) for text in networks if text)

    def listed(self) -> None:
        self._enforcer.begin()


def key_of(body: Body) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
