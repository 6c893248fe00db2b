"""``MODULE DATA-DIR PORT [FLAG …]``: one child of the node daemon, alone, ready when it says so."""

import importlib
import sys

from node import settings


def main(module: str, data: str, port: str, *flags: str) -> int:
    given = settings.read(
        "server",
        [
            f"--data-dir={data}",
            f"--run-dir={data}/run",
            f"--write-kubeconfig={data}/admin.yaml",
            f"--https-listen-port={port}",
            "--bind-address=127.0.0.1",
            "--node-ip=127.0.0.1",
            "--node-name=n1",
            "--disable=traefik",
            *flags,
        ],
        {},
    )

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    code: int = importlib.import_module(module).main(given, ready)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
