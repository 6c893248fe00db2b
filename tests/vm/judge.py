"""
Runs within a machine: what its slots say of bundles, and what becomes of them.

Usage: ``python3 judge.py check|install|force BUNDLE…``; a line of JSON for each. ``force`` installs
what the check would refuse, so that RAUC and the kernel have to find it out.
"""

import asyncio
import json
import sys
from pathlib import Path

from node.update import rauc, version
from node.update.base import Bundle, InstallError, RefusedError


async def judge(slots: rauc.RaucSlots, verb: str, path: Path) -> dict[str, object]:
    percents: list[int] = []
    try:
        if verb == "force":
            found = Bundle(
                version=version.parse("v9.9.9+pinnace9"),
                board=slots.board,
                size=0,
                path=path,
            )
        else:
            found = await slots.check(path)
        if verb != "check":
            await slots.install(found, percents.append)
    except RefusedError as err:
        return {"reason": err.reason, "message": str(err)}
    except InstallError as err:
        return {"reason": "InstallError", "message": str(err)}
    return {"reason": "", "version": str(found.version), "percents": percents}


async def main(verb: str, paths: list[str]) -> None:
    slots = rauc.of_machine()
    if slots is None:
        raise SystemExit("no slots")
    for path in paths:
        said = {"file": Path(path).name, **await judge(slots, verb, Path(path))}
        other = await slots.other()
        said |= {"other": str(other.version or ""), "bad": other.bad}
        print(json.dumps(said), flush=True)  # noqa: T201 - what the other side reads


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
