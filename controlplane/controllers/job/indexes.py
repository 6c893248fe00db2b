"""
Sets of completion indexes as the status writes them: ``1,3-5,7``.

Source: the API reference of Job, ``status.completedIndexes``.
"""

from collections.abc import Iterable

from controlplane.client.base import Object

INDEX = "batch.kubernetes.io/job-completion-index"  # annotation and label of a pod


def parse(text: str | None, most: int) -> set[int]:
    """Indexes below ``most``: a Job that shrank forgets the others."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return {index for index in found if index < most}


def text_of(indexes: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def of_pod(pod: Object) -> int | None:
    found = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(found) if found.isdigit() else None


def completed(pods: Iterable[Object]) -> set[int]:
    """Indexes of these pods."""
    return {index for pod in pods if (index := of_pod(pod)) is not None}
