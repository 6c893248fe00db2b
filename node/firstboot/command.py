"""``pinnace status``: what the screen shows, for who came by SSH; and telling the screen so."""

from collections.abc import Callable, Sequence

from node.firstboot import publish, status
from node.firstboot.places import Places
from node.settings import UsageError

HELP = """\
usage: pinnace status [--publish]

Prints how this machine is reached and what is wrong with it.

  --publish  also write it to the consoles and to status.txt on the card's first partition"""


def main(arguments: Sequence[str], say: Callable[[str], None], warn: Callable[[str], None]) -> int:
    places = Places()
    match list(arguments):
        case []:
            say(status.as_screen(publish.gather(places)).rstrip())
        case ["--publish"]:
            publish.publish(places, warn)
        case ["-h" | "--help"]:
            say(HELP)
        case _:
            raise UsageError("usage: pinnace status [--publish]")
    return 0
