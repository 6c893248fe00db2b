"""
From the bytes of a file that people write on any system to one YAML document.

Editors of Windows put byte order marks and UTF-16 into files, word processors put curly
quotes, and a card that was pulled out too early has zeros: each is understood or named.
"""

import re
from collections.abc import Sequence

import yaml

from node.firstboot.base import ConfigError, Problem
from node.firstboot.fields import CURLY, At

MOST = 4 << 20  # bytes; many manifests fit
DEEPEST = 40  # values within values
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CURLY = re.compile(f"[{CURLY}]")
_HINTS = (
    (r"character '\\t'", "a tab: YAML is indented with spaces"),
    ("mapping values are not allowed", "a ':' too many, or a line that is indented too far"),
    (
        "could not find expected ':'",
        "a line without ':', or a space that is missing behind the ':'",
    ),
    ("expected <block end>", "a line that is not indented as those above it"),
    ("found unexpected end of stream", "a quote that is not closed"),
    ("special characters are not allowed", "a character that no text has; is the file damaged?"),
    (
        "character '@'|character '`'|character '%'",
        "put quotes around a value that begins with this character",
    ),
)


def decode(data: bytes) -> str:
    """The text of a file in UTF-8 or UTF-16. Raises :class:`ConfigError`."""
    if len(data) > MOST:
        raise _error(f"is larger than {MOST >> 20} MiB: put manifests into the folder manifests/")
    encoding, skip = "utf-8", 0
    for mark, name in _MARKS:
        if data.startswith(mark):
            encoding, skip = name, len(mark)
            break
    else:
        encoding = _guess(data)
    try:
        text = data[skip:].decode(encoding)
    except UnicodeDecodeError as err:
        line = data[: skip + err.start].count(b"\n") + 1
        raise _error("is not in UTF-8: save it again as UTF-8", line) from err
    if "\0" in text:
        if not text.strip("\0"):
            raise _error("holds nothing but zeros: the card was removed before it was written")
        raise _error("has zeros in it: it is damaged", text[: text.index("\0")].count("\n") + 1)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _guess(data: bytes) -> str:
    """UTF-16 without its mark has a zero beside every letter; text in UTF-8 has none."""
    start = data[:64]
    if len(start) >= 4 and not any(start[1::2]) and all(start[0::2]):
        return "utf-16-le"
    if len(start) >= 4 and not any(start[0::2]) and all(start[1::2]):
        return "utf-16-be"
    return "utf-8"


def compose(text: str, found: list[Problem]) -> At | None:
    """
    The one document, or None where it is empty. What is no YAML raises :class:`ConfigError`.

    ``found`` collects what the readers of the values blame.
    """
    tabs = _tabs(text)
    try:
        _refuse_aliases(text)
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as err:
        problem = _syntax(text, err)
        others = [tab for tab in tabs if tab.line != problem.line]
        raise ConfigError([problem, *others]) from err
    if len(nodes) > 1:
        raise _error("begins a second document with '---': the file is one document", _line(nodes))
    if not nodes or nodes[0] is None:
        return None
    top = At(nodes[0], "", found)
    return None if top.empty else top


def _line(nodes: Sequence[yaml.Node]) -> int:
    return int(nodes[1].start_mark.line) + 1


def _refuse_aliases(text: str) -> None:
    """A few bytes of them can stand for gigabytes, and depth for a stack that ends."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise _error("anchors and aliases (& and *) are not understood here", line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _error(f"has more than {DEEPEST} values within each other", line)


def _syntax(text: str, err: yaml.YAMLError) -> Problem:
    mark = getattr(err, "problem_mark", None) or getattr(err, "context_mark", None)
    said = str(getattr(err, "problem", None) or getattr(err, "reason", None) or err)
    hint = next((words for pattern, words in _HINTS if re.search(pattern, said)), "")
    if mark is not None:
        line = mark.line + 1
    else:
        position = getattr(err, "position", 0)
        line = text[: position if isinstance(position, int) else 0].count("\n") + 1
    lines = text.split("\n")
    curly = _CURLY.search(lines[line - 1]) if line <= len(lines) else None
    if curly:
        hint = f'curly quotes ({curly[0]}): use plain ones (")'
    return Problem(line, "", f"is not YAML: {hint or ' '.join(said.split())}")


def _tabs(text: str) -> list[Problem]:
    return [
        Problem(number, "", "begins with a tab: YAML is indented with spaces")
        for number, line in enumerate(text.split("\n"), 1)
        if re.match(r" *\t\s*\S", line)
    ]


def _error(message: str, line: int = 0) -> ConfigError:
    return ConfigError([Problem(line, "", message)])
