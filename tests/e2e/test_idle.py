"""While nothing happens, nothing is written."""

from typing import Any

from tests.e2e.node import Node

# What is kept in memory only.
VOLATILE = frozenset({"events", "events.events.k8s.io", "leases.coordination.k8s.io"})


def versions(node: Node) -> dict[str, str]:
    """Of every object that is kept on the disk, its resourceVersion."""
    found = {}
    for kind in node.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split():
        if kind in VOLATILE or kind.endswith("metrics.k8s.io"):
            continue
        path = "{range .items[*]}{.metadata.uid} {.metadata.resourceVersion}{'\\n'}{end}"
        listed = node.kubectl("get", kind, "-A", "-o", f"jsonpath={path}", check=False)
        for line in listed.stdout.splitlines():
            uid, _, version = line.partition(" ")
            found[f"{kind} {uid}"] = version
    return found


def test_while_the_node_renews_its_lease_nothing_is_written(node: Node) -> None:
    def renewed() -> Any:
        return node.get("-n", "kube-node-lease", "lease/pi")["spec"]["renewTime"]

    def settled() -> bool:
        before = versions(node)
        began = renewed()
        node.until(lambda: renewed() != began)
        after = versions(node)
        changed = {key for key, version in after.items() if before.get(key) != version}
        seen.append(changed)
        return not changed

    seen: list[set[str]] = []
    # What the tests before have left may take a moment to go.
    node.until(settled, timeout=90, seen=lambda: str(seen))
