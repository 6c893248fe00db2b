"""Small programs, run to their end without holding up the loop."""

import asyncio
from collections.abc import Collection, Sequence

from operators.localpath.base import StorageError

PATIENCE = 600.0  # seconds: a slow card and a large file system


class Programs:
    """``path``: where they are looked for."""

    def __init__(self, path: str, more: dict[str, str] | None = None) -> None:
        self._environment = {"PATH": path, "LC_ALL": "C", **(more or {})}

    async def run(
        self,
        argv: Sequence[str],
        *,
        told: str = "",
        patience: float = PATIENCE,
        codes: Collection[int] = (0,),
    ) -> str:
        """
        What the program printed; ``told`` is its standard input.

        Raises :class:`StorageError` with its last words where it ends with none of ``codes``.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
        except FileNotFoundError as err:
            raise StorageError(f"{argv[0]} is not installed") from err
        try:
            async with asyncio.timeout(patience):
                out, err_out = await process.communicate(told.encode())
        except TimeoutError as err:
            raise StorageError(f"{argv[0]} did not end within {patience:.0f} s") from err
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode not in codes:
            said = (err_out.decode(errors="replace") or out.decode(errors="replace")).strip()
            last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
            own = argv[1:2] == ["-m"]  # a program of ours says itself what it was about
            raise StorageError(last if own else f"{argv[0]}: {last.removeprefix(f'{argv[0]}: ')}")
        return out.decode(errors="replace") + err_out.decode(errors="replace")
