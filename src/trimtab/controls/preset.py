"""Presets: documented envelope files that ship with trimtab, one per architecture and task.

The first line of each says what it is for: ``# NAME: SUMMARY``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import parse_envelope
from trimtab.errors import UsageError, nearest

_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset.

    Args:
        name: Its name, such as ``small_transformer``.
        summary: What it is for, in one line.
        text: The file, with its comments.
    """

    name: str
    summary: str
    text: str

    def envelope(self) -> Envelope:
        """Return the envelope that the file describes."""
        return parse_envelope(self.text, f"{self.name}{_SUFFIX}")


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    folder = files("trimtab.controls") / "presets"
    return tuple(sorted(entry.name.removesuffix(_SUFFIX) for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        UsageError: Name one of `preset_names`.
    """
    names = preset_names()
    if name not in names:
        raise UsageError("there is no such preset", received=name, next_step=nearest(name, names))
    text = (files("trimtab.controls") / "presets" / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    return Preset(name, text.partition("\n")[0].partition(": ")[2], text)
