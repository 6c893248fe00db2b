"""One server for the examples of a module, on its own loop: hypothesis calls plain functions."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.unit.api_fuzz.server import Fuzzed, fuzzed

settings.register_profile("api_fuzz", derandomize=True, deadline=None, database=None)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fuzzed, Run]]:
    with asyncio.Runner() as runner:
        serving = fuzzed(tmp_path_factory.mktemp("server"))
        served = runner.run(serving.__aenter__())
        try:
            yield served, runner.run
        finally:
            runner.run(serving.__aexit__(None, None, None))
