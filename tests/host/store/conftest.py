import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.store.judge import WriterServer

ROOT = Path(__file__).parents[3]


@pytest.fixture
def writer() -> Iterator[WriterServer]:
    command = [sys.executable, "-m", "tests.host.store.writer"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        server = WriterServer(process)
        yield server
        if server.pid:
            os.kill(server.pid, signal.SIGKILL)
