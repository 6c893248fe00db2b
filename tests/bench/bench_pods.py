"""
How long a pod takes from the API to running, and how many at once: a real containerd.

Run as root: ``python -m tests.bench.bench_pods [pods]``. Prints milliseconds and writes.
"""

import asyncio
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from node.kubelet.base import PODS
from tests.host.cri.containerd import Containerd
from tests.host.kubelet.conftest import Node, config, pod


async def _measure(containerd: Containerd, folder: Path, count: int) -> None:
    node = Node(containerd, config(folder, containerd))
    await node.start()
    node.api.put(PODS, pod("warm"))
    await node.ready("warm")
    spans = []
    for number in range(5):
        began = time.perf_counter()
        node.api.put(PODS, pod(f"one-{number}"))
        await node.ready(f"one-{number}")
        spans.append((time.perf_counter() - began) * 1000)
    _say(f"one pod: {min(spans):.0f} ms best, {sorted(spans)[2]:.0f} ms median")
    before, began, cpu = len(node.api.writes), time.perf_counter(), time.process_time()
    for number in range(count):
        node.api.put(PODS, pod(f"many-{number}"))
    await asyncio.gather(*(node.ready(f"many-{n}", 300) for n in range(count)))
    took = time.perf_counter() - began
    writes = len(node.api.writes) - before
    _say(f"{count} pods at once: {took:.1f} s, {(time.process_time() - cpu) / count * 1000:.1f} ms")
    _say(f"  of our CPU and {writes / count:.1f} writes a pod, events included")
    idle = time.process_time()
    await asyncio.sleep(10)
    _say(f"idle with {count + 6} pods: {(time.process_time() - idle) * 10:.2f} % of a core")
    began = time.perf_counter()
    for (kind, _, name), _obj in list(node.api._objects.items()):
        if kind == PODS:
            node.api.ask_to_delete(name, 0)
    await node.idle(300)
    _say(f"deleted all: {time.perf_counter() - began:.1f} s")
    _say(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    await node.stop()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    containerd = Containerd(folder / "c")
    containerd.prepare()
    try:
        containerd.start()
        containerd.import_images()
        asyncio.run(_measure(containerd, folder, count))
    finally:
        containerd.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
