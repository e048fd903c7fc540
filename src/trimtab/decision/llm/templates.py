"""The prompt's templates: text files with ``$names``, one folder per version."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

TEMPLATE: Final = "v1"


def fill(name: str, **texts: str) -> str:
    """Return a template's text with every ``$name`` in it replaced; a text that is put in is not looked at again.

    Args:
        name: The template's file without its suffix.
        texts: What to put in.
    """
    return _template(name).substitute(texts)


@cache
def _template(name: str) -> Template:
    folder = files("trimtab.decision.llm") / "prompts" / TEMPLATE
    return Template((folder / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n"))
