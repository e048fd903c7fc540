"""YAML into a plain tree that knows the line and column of every key and value.

Stricter than YAML, where YAML surprises: a repeated key is refused, so are aliases and tags, a key
without a value, and numbers that are not plain decimals (``010`` is 8, ``1:30`` is 90). Looser in one
place: ``3e-4`` is a number, which YAML 1.1 reads as text.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, cast

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from trimtab.errors import EnvelopeError

MAX_CHARACTERS: Final = 200_000

TreePath = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
_TRUE: Final = ("yes", "true", "on")
_DECIMAL: Final = re.compile(r"[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


class YamlTree:
    """A parsed YAML text, and the problems found with it so far.

    Args:
        text: The text.
        source: Its path, for messages.

    Attributes:
        tree: Mappings, lists, text, numbers and booleans.
    """

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._keys: dict[TreePath, tuple[int, int]] = {}
        self._values: dict[TreePath, tuple[int, int]] = {(): (1, 1)}
        self._booleans: dict[TreePath, str] = {}
        self._problems: dict[TreePath, tuple[tuple[int, int], EnvelopeError]] = {}
        root = self._compose(text)
        self.tree: Any = None if root is None else self._plain(root, ())

    def report(
        self,
        path: TreePath,
        what: str,
        *,
        received: str | None = None,
        allowed: str | None = None,
        next_step: str | None = None,
        at_key: bool = False,
    ) -> None:
        """Note a problem at a place; only the first one of each place is kept."""
        place = path
        while place not in self._values:
            place = place[:-1]
        mark = self._keys[place] if at_key and place in self._keys else self._values[place]
        where = f"{self._source}:{mark[0]}:{mark[1]}"
        problem = EnvelopeError(f"{where}: {what}", received=received, allowed=allowed, next_step=next_step)
        self._problems.setdefault(path, (mark, problem))

    def boolean(self, path: TreePath) -> str | None:
        """Return in words what was written for the boolean at a place, since that may be ``yes``; None for another value."""
        text = self._booleans.get(path)
        return text if text in (None, "true", "false") else f"{text}, which is {'true' if _is_true(text) else 'false'} in YAML"

    def position(self, path: TreePath) -> tuple[int, int]:
        """Return line and column, both from 1, of the value at a place of the tree."""
        return self._values[path]

    def raise_problems(self) -> None:
        """Raise what was noted.

        Raises:
            EnvelopeError: Go to the lines it names; one problem a line.
        """
        problems = [problem for _, problem in sorted(self._problems.values(), key=lambda noted: noted[0])]
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise EnvelopeError("\n".join(str(problem) for problem in problems))

    def _compose(self, text: str) -> yaml.Node | None:
        if len(text) > MAX_CHARACTERS:
            self.report((), "the file is too long", received=f"{len(text)} characters", allowed=f"at most {MAX_CHARACTERS}")
            return None
        try:
            root: yaml.Node | None = cast("Any", yaml).compose(text, Loader=_NoAliases)
        except yaml.MarkedYAMLError as error:
            if error.problem_mark is not None:
                self._values[()] = _position(error.problem_mark)
            self.report((), f"not valid YAML: {error.problem}", next_step="correct the file here, or just before")
        except ReaderError as error:
            before = text[: error.position]
            self._values[()] = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            self.report((), f"not valid YAML: {error.reason}", received=repr(text[error.position : error.position + 1]))
        except RecursionError:
            self.report((), "the file is nested too deeply", allowed="mappings and lists of a few levels")
        else:
            if root is not None:
                return root
            self.report((), "the file is empty", next_step="begin with its schema")
        return None

    def _plain(self, node: yaml.Node, path: TreePath) -> Any:
        self._values[path] = _position(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _TAG + "seq":
                self._refuse_tag(node, path)
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: TreePath) -> dict[str, Any]:
        if node.tag != _TAG + "map":
            self._refuse_tag(node, path)
        tree: dict[str, Any] = {}
        for key, value in node.value:
            place = (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
            if place in self._keys or not isinstance(key, yaml.ScalarNode):
                # Its own place, so that the first of the two keys keeps its mark.
                again = (*path, "repeated", key.start_mark.line, key.start_mark.column)
                self._values[again] = _position(key.start_mark)
                if isinstance(key, yaml.ScalarNode):
                    self.report(again, "a key is given twice", received=repr(place[-1])[:60], next_step="keep one of them")
                else:
                    self.report(again, "a key is not a name", received=str(key.id), allowed="a name, then a colon")
                continue
            self._keys[place] = _position(key.start_mark)
            plain = self._plain(value, place)
            if plain is None:
                name = ".".join(str(part) for part in place)
                self.report(place, f"{name} has no value", next_step="give it one, or delete the line", at_key=True)
            else:
                tree[key.value] = plain
        return tree

    def _scalar(self, node: yaml.Node, path: TreePath) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        if kind not in ("null", "bool", "int", "float", "str", "timestamp", "merge", "value"):
            self._refuse_tag(node, path)
            return text
        if kind == "null":
            return None
        if kind == "bool":
            self._booleans[path] = text
            return _is_true(text)
        is_quoted = isinstance(node, yaml.ScalarNode) and bool(node.style)
        if kind not in ("int", "float") and (is_quoted or not is_number(text)):
            return text
        number = _number(text)
        if number is None:
            self.report(path, "not a plain number", received=text[:60], allowed="finite decimals such as 20, 0.1 or 3e-4")
        return text if number is None else number

    def _refuse_tag(self, node: yaml.Node, path: TreePath) -> None:
        self.report(path, "tags are not supported", received=str(node.tag)[:60], next_step="write the plain value")


class _NoAliases(yaml.SafeLoader):
    """Refuses aliases: a few of them can stand for more values than fit in memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        events = cast("Any", self)
        if events.check_event(yaml.AliasEvent):
            mark = events.peek_event().start_mark
            raise ComposerError(None, None, "aliases are not supported, write the value out", mark)
        return super().compose_node(parent, index)


def _position(mark: yaml.Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _is_true(text: str) -> bool:
    return text.lower() in _TRUE


def is_number(text: str) -> bool:
    """Return whether the text is a plain decimal, which may be too large for a number."""
    return len(text) <= 60 and _DECIMAL.fullmatch(text) is not None


def _number(text: str) -> int | float | None:
    """Return the finite number that a plain decimal stands for, or None."""
    if not is_number(text):
        return None
    digits = text.replace("_", "")
    if digits.lstrip("+-").isdecimal():
        return int(digits)
    value = float(digits)
    return value if math.isfinite(value) else None
