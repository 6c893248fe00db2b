"""``pinnace image check``: every mistake of a pinnace.yaml, before it is on a card."""

from collections.abc import Callable, Sequence
from pathlib import Path

from node.firstboot.base import ConfigError
from node.flash import config
from node.settings import UsageError

HELP = """\
usage: pinnace image check [--manifests DIR] CONFIG

Checks a pinnace.yaml as the node will when it boots, and the manifests that go with it:
those of DIR, else of the folder manifests/ beside the file."""


def main(arguments: Sequence[str], say: Callable[[str], None], warn: Callable[[str], None]) -> int:
    if {"-h", "--help"} & set(arguments):
        say(HELP)
        return 0
    match list(arguments):
        case [path] if not path.startswith("-"):
            folder = None
        case ["--manifests", name, path] | [path, "--manifests", name]:
            folder = Path(name)
        case _:
            raise UsageError("usage: pinnace image check [--manifests DIR] CONFIG")
    try:
        found = config.read(Path(path), folder)
    except ConfigError as err:
        for problem in err.problems:
            warn(str(problem))
        warn(f"{path}: {len(err.problems)} to mend")
        return 1
    more = len(found.files) - 1
    say(f"{path} is right" + (f", with {more} manifests beside it" if more else ""))
    return 0
