"""
/metrics: what the server counts, as Prometheus text.

Names are kube-apiserver's where the meaning is the same, so that dashboards
work. Counting is a dictionary update; the text is made when asked for.
"""

from collections.abc import Iterator, Mapping

from controlplane.api.call import Parts

_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0)
Labels = tuple[str, str, str, int]  # verb, resource, subresource, status code
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Its mutable state: counts and sums by label values."""

    def __init__(self) -> None:
        self._requests: dict[Labels, int] = {}
        self._seconds: dict[tuple[str, str], list[float]] = {}  # buckets…, count, sum
        self.running = 0

    def observe(self, labels: Labels, seconds: float) -> None:
        self._requests[labels] = self._requests.get(labels, 0) + 1
        verb, resource, _, _ = labels
        if verb in ("WATCH", "CONNECT"):
            return
        row = self._seconds.get((verb, resource))
        if row is None:
            row = self._seconds[verb, resource] = [0.0] * (len(_BUCKETS) + 2)
        for at, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                row[at] += 1
        row[-2] += 1
        row[-1] += seconds

    def text(self, parts: Parts) -> bytes:
        return ("\n".join(self._lines(parts)) + "\n").encode()

    def _lines(self, parts: Parts) -> Iterator[str]:
        yield "# TYPE apiserver_request_total counter"
        for (verb, resource, subresource, code), count in sorted(self._requests.items()):
            labels = {"verb": verb, "resource": resource, "subresource": subresource, "code": code}
            yield f"apiserver_request_total{{{_labels(labels)}}} {count}"
        yield "# TYPE apiserver_request_duration_seconds histogram"
        for (verb, resource), row in sorted(self._seconds.items()):
            yield from _histogram({"verb": verb, "resource": resource}, row)
        yield "# TYPE apiserver_current_inflight_requests gauge"
        yield f"apiserver_current_inflight_requests {self.running}"
        yield "# TYPE apiserver_storage_objects gauge"
        for key, count in sorted(parts.cache.counts().items()):
            _, group, plural = key.split("/")
            resource = plural if group == "core" else f"{plural}.{group}"
            yield f'apiserver_storage_objects{{resource="{resource}"}} {count}'
        yield from _gauges("pinnace_cache_", parts.cache.statistics())
        statistics = parts.store.statistics()
        names = ("revision", "compact_revision", "keys", "transactions", "writes", "file_bytes")
        yield from _gauges("pinnace_store_", {name: getattr(statistics, name) for name in names})


def _histogram(labels: Mapping[str, object], row: list[float]) -> Iterator[str]:
    name, shown = "apiserver_request_duration_seconds", _labels(labels)
    for at, bound in enumerate(_BUCKETS):
        yield f'{name}_bucket{{{shown},le="{bound:g}"}} {row[at]:g}'
    yield f'{name}_bucket{{{shown},le="+Inf"}} {row[-2]:g}'
    yield f"{name}_count{{{shown}}} {row[-2]:g}"
    yield f"{name}_sum{{{shown}}} {row[-1]:.6f}"


def _gauges(prefix: str, values: Mapping[str, int]) -> Iterator[str]:
    for name, value in values.items():
        yield f"# TYPE {prefix}{name} gauge"
        yield f"{prefix}{name} {value}"


def _labels(labels: Mapping[str, object]) -> str:
    return ",".join(f'{key}="{value}"' for key, value in labels.items())
