"""
/livez, /readyz and /healthz: named checks, each of them askable by itself.

``?verbose`` lists them and ``?exclude=<name>`` leaves one out, as kube-apiserver
does; a failure says its name but not its reason to whoever asks.
"""

from collections.abc import Callable, Mapping, Sequence

Check = Callable[[], bool]


class Health:
    """``ready`` are checks beyond those of ``live``. Its mutable state is :attr:`stopping`."""

    def __init__(self, live: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        self.stopping = False
        self._live: dict[str, Check] = {"ping": lambda: True, **live}
        self._ready: dict[str, Check] = {
            **self._live,
            **ready,
            "shutdown": lambda: not self.stopping,
        }

    def answer(
        self, path: str, query: Mapping[str, str], excluded: Sequence[str]
    ) -> tuple[int, str]:
        """The status code and the text of /livez, /readyz/etcd, …; 404: no such check."""
        probe, *rest = path.strip("/").split("/")
        checks = self._ready if probe == "readyz" else self._live
        if rest:
            check = checks.get("/".join(rest))
            if check is None:
                return 404, "404 page not found\n"
            return (200, "ok") if check() else (500, "internal server error: failed\n")
        results = {name: check() for name, check in checks.items() if name not in excluded}
        good = all(results.values())
        if good and "verbose" not in query:
            return 200, "ok"
        lines = [
            f"[+]{name} ok" if ok else f"[-]{name} failed: reason withheld"
            for name, ok in results.items()
        ]
        lines += [f"[+]{name} excluded: ok" for name in excluded if name in checks]
        lines.append(f"{probe} check {'passed' if good else 'failed'}")
        return (200 if good else 500), "\n".join(lines) + "\n"
