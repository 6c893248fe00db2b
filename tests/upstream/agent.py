"""``python -m tests.upstream.agent FLAGS``: containerd and the agent, without a control plane."""

import logging
import shutil
import sys
import time
from pathlib import Path

from node import settings
from node.config import from_settings
from node.supervise import containerd
from node.supervise.apply import Supervisor
from node.supervise.base import Forked, Service


def main() -> int:
    logging.basicConfig(level=logging.INFO)
    read = settings.read("server", sys.argv[1:], {})
    program = shutil.which("containerd") or "containerd"
    services: list[Service] = [
        containerd.service(from_settings(read), program),
        Forked(name="agent", module="node.run", settings=read, after=("containerd",)),
    ]

    def ready() -> None:
        sys.stdout.write("the agent is ready\n")
        sys.stdout.flush()

    run_dir = Path(read["run-dir"])
    run_dir.mkdir(parents=True, exist_ok=True)
    Supervisor(services, run_dir=run_dir, clock=time.monotonic, on_ready=ready).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
