"""`trimtab init`: write an envelope file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from trimtab.cli.new_file import write_new
from trimtab.cli.terminal import clean, make_console
from trimtab.controls.catalogue import base_name, part_name
from trimtab.controls.control import Control
from trimtab.controls.entries import (
    BATCH_SIZE,
    BETA2,
    DROPOUT,
    GRADIENT_ACCUMULATION,
    GRADIENT_CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    LOSS_WEIGHT,
    MIXTURE_WEIGHT,
    MOMENTUM,
    WEIGHT_DECAY,
)
from trimtab.controls.envelope import Envelope
from trimtab.controls.preset import load_preset, preset_names

DEFAULT_PRESET: Final = "small_transformer"
DEFAULT_FILE: Final = Path("trimtab.yaml")

_FOUND: Final = (LEARNING_RATE, WEIGHT_DECAY, MOMENTUM, BETA2, DROPOUT)  # in the optimizer or the model
_LOADERS: Final = {
    BATCH_SIZE: "trimtab.ResumableLoader(dataset, batch_size=..., seed=0)",
    MIXTURE_WEIGHT: "trimtab.MixtureLoader(datasets, weights, batch_size=..., seed=0)",
}
_PARTS: Final = {
    LABEL_SMOOTHING: "loss_module",
    GRADIENT_CLIP_NORM: "trimtab.GradientClip(model.parameters(), max_norm=1.0)",
    LOSS_WEIGHT: "trimtab.LossWeights(NAME=1.0, ...)",
}


def init(
    preset: Annotated[str, typer.Option(help="What to start from; see --list.")] = DEFAULT_PRESET,
    out: Annotated[Path, typer.Option(help="The file to write.")] = DEFAULT_FILE,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
    as_list: Annotated[bool, typer.Option("--list", help="List the presets and write nothing.")] = False,
) -> None:
    """Write a documented envelope file to start from."""
    if as_list:
        _print_presets()
        return
    chosen = load_preset(preset)
    write_new(out, chosen.text, force=force, option="--out")
    console = make_console()
    console.print(Text.assemble(("wrote ", "bold green"), f"{clean(str(out))}: {chosen.summary}"))
    console.print(Text("\nNext: read it, delete what you cannot give, narrow the rest, and attach:\n"))
    for line in supervise_call(chosen.envelope(), out):
        console.print(Text(f"    {line}"), soft_wrap=True)
    console.print(
        Text(f"\ntrimtab envelope check {clean(str(out))} explains it; trimtab calibrate measures the learning rate.")
    )


def supervise_call(envelope: Envelope, path: Path) -> list[str]:
    """Return the lines of the call that attaches with this envelope, with the parts its controls need."""
    names = [base_name(control.name) for control in envelope.controls]
    loader = next((_LOADERS[name] for name in names if name in _LOADERS), "loader")
    if GRADIENT_ACCUMULATION in names:
        loader = f"trimtab.GradientAccumulation({loader}, num_batches=1)"
    parts = list(dict.fromkeys(part for control in envelope.controls if (part := _part(control)) is not None))
    lines = [
        *([f"loader = {loader}"] if loader != "loader" else []),
        "supervisor = trimtab.supervise(",
        "    model, optimizer, scheduler=scheduler, loader=loader,",
        f'    envelope={str(path)!r}, manager="rules",'.replace("'", '"'),
        *(["    parts=[", *(f"        {part}," for part in parts), "    ],"] if parts else []),
        ")",
    ]
    return [clean(line) if not line.startswith(" ") else line for line in lines]


def _part(control: Control) -> str | None:
    """Return what the parts need for a control, or None if the control is found without."""
    name = base_name(control.name)
    if name in _FOUND or name in _LOADERS or name == GRADIENT_ACCUMULATION:
        return None
    if name == LOSS_WEIGHT:
        return _PARTS[name].replace("NAME", part_name(control.name) or "NAME")
    return _PARTS.get(name, f'trimtab.handle("{control.name}", OBJECT, "ATTRIBUTE")')


def _print_presets() -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name in preset_names():
        table.add_row(name, Text(load_preset(name).summary))
    make_console().print(table)
