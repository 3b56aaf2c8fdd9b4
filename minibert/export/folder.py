"""A model's folder in, a folder out that runs without minibert: `export`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

import minibert
from minibert.checkpoint import config_text
from minibert.errors import ExportError, in_one_line
from minibert.export.agreement import Checked, check
from minibert.export.network import Exportable, Opened, open_model
from minibert.export.onnx_file import DEFAULT_OPSET, OPSETS, check_extra, opened, write_onnx
from minibert.export.program import (
    Axes,
    axes_of,
    outputs_of,
    run_program,
    tensors_of,
    traced,
    write_program,
)
from minibert.files import replacing_folder
from minibert.model import explicit_attention
from minibert.parity.compare import check_inputs, differing_weights
from minibert.parity.recording import Recording
from minibert.parity.result import FACTOR

FILE = "export.json"
PLACES = {"onnx": "onnx/model.onnx", "torch": "model.pt2"}

# What each can be computed in: onnxruntime's CPU provider has no kernels for bfloat16.
KINDS = {"onnx": ("float32", "float16"), "torch": ("float32", "float16", "bfloat16", "float64")}


class DifferingExportError(ExportError):
    """What was exported gives other numbers than the network; `checked` says which."""

    def __init__(self, message: str, checked: Checked) -> None:
        super().__init__(message)
        self.checked = checked


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was found to agree; None where it was not checked."""

    path: Path
    bytes: int
    checked: Checked | None


def export(
    name: str | Path,
    folder: str | Path,
    *,
    to: str,
    dtype: str = "float32",
    max_length: int | None = None,
    opset: int | None = None,
    checked: bool = True,
    reference: Recording | None = None,
    overwrite: bool = False,
    offline: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a model as a program that runs without minibert, with all that its users need.

    The folder gets the program (`onnx/model.onnx`, or `model.pt2`), the tokenizer, `config.json`,
    and `export.json`, which says what goes in and what comes out.  A model of sentence-transformers
    keeps its recipe, so that its ONNX back end opens the folder; a run's model its `minibert.json`.

    Args:
        name: what to export: a folder, that of a run, a name of the manifest, or a hub id.
        folder: where to; it appears once it is whole and was found to agree.
        to: "onnx", or "torch" for a program of `torch.export`.
        dtype: of weights and computation: "float32", "float16", for torch also "bfloat16" and
            "float64".
        max_length: the most tokens of a text, in place of what the model says.
        opset: the version of ONNX's operators.
        checked: run what was exported, and compare it with the network.
        reference: a recording of these weights to compare it with too; where None, that which
            comes with minibert, for weights that have one.
        overwrite: replace a folder that holds an export.
        offline: open no connection.
        say: told what is being done.

    Raises: ExportError for what cannot be done as asked, or with an extra that is missing;
        DifferingExportError where it does not agree; the errors of finding and reading the model.
    """
    folder = Path(folder)
    _check_asked(to, dtype, opset, run=checked)
    _check_place(folder, overwrite=overwrite)
    say(f"opening {name}")
    model = open_model(name, max_length=max_length, offline=offline)
    if reference is not None:
        _check_reference(model, reference)
    found = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as part:
            path = part / PLACES[to]
            path.parent.mkdir(exist_ok=True)
            written = _write(model, path, to, dtype, opset, say=say)
            if checked:
                say("running it beside the network")
                run = opened(path) if to == "onnx" else partial(run_program, written.program)
                known = model.reference if reference is None else reference
                found = check(run, model, axes=written.axes, dtype=dtype, reference=known)
                if not found.holds:
                    raise DifferingExportError(_differing(folder, found), found)
            _write_companions(model, part, written, found)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be written: {in_one_line(error)}; free space or choose another "
            "folder"
        ) from None
    path = folder / PLACES[to]
    return Exported(path, path.stat().st_size, found)


def _check_asked(to: str, dtype: str, opset: int | None, *, run: bool) -> None:
    """Refuse what no format can do, before anything is loaded."""
    if to not in PLACES:
        raise ExportError(f"got the format {to!r}, expected one of {', '.join(PLACES)}")
    if dtype not in KINDS[to]:
        raise ExportError(
            f"got dtype {dtype!r} for {to}, expected one of {', '.join(KINDS[to])}; what runs ONNX "
            "on a CPU has no others"
        )
    if opset is not None and to != "onnx":
        raise ExportError(f"got opset {opset} for {to}, expected none: it is a version of ONNX's")
    if opset is not None and not OPSETS[0] <= opset <= OPSETS[1]:
        raise ExportError(f"got opset {opset}, expected {OPSETS[0]} to {OPSETS[1]}")
    if to == "onnx":
        check_extra(run=run)


def _check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write where something lies that is no export, or one that is to stay."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder}: is a file, expected a folder; choose another output")
    if not any(folder.iterdir()):
        return
    if not (folder / FILE).is_file():
        raise ExportError(
            f"{folder}: holds files of another kind, expected an empty folder or an earlier "
            "export; choose another output"
        )
    if not overwrite:
        raise ExportError(f"{folder}: holds an export already; --overwrite replaces it")


def _check_reference(model: Opened, reference: Recording) -> None:
    """Refuse a recording of another checkpoint."""
    network = model.network.network
    check_inputs(network, reference)
    if differing := differing_weights(network, reference):
        raise ExportError(
            f"{model.name}: {len(differing)} tensors are not those of {reference.origin}, "
            f"{differing[0]} first: a pack for another checkpoint; record one for this"
        )


@dataclass(frozen=True, eq=False)
class _Written:
    """What became of a network."""

    network: Exportable  # in the dtype of the export
    program: ExportedProgram
    axes: Mapping[str, Axes]
    facts: dict[str, Any]


def _write(
    model: Opened,
    path: Path,
    to: str,
    dtype: str,
    opset: int | None,
    *,
    say: Callable[[str], None],
) -> _Written:
    """Trace a network and write it."""
    network = model.network.cast(dtype)
    say(f"tracing {type(network.network).__name__} for up to {model.max_length} tokens")
    # Written out, for an operator of attention says less surely what a row without tokens gives:
    # onnxruntime attends to all of them, others give NaN, and explicit attention zeros.
    attend = explicit_attention if to == "onnx" else None
    program = traced(network, max_length=model.max_length, attend=attend)
    axes = axes_of(program, network)
    named = {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "axes": list(axes[name])}
        for name, tensor in tensors_of(program).items()
    }
    outputs = outputs_of(program)
    facts: dict[str, Any] = {"format": to, "file": PLACES[to], "dtype": dtype}
    say(f"writing {PLACES[to]}")
    if to == "onnx":
        facts["opset"] = opset or DEFAULT_OPSET
        name = type(network.network).__name__
        write_onnx(program, path, axes=axes, opset=facts["opset"], name=name)
    else:
        write_program(program, path)
    facts["inputs"] = {name: each for name, each in named.items() if name not in outputs}
    facts["outputs"] = {name: named[name] for name in outputs}
    return _Written(network, program, axes, facts)


def _write_companions(
    model: Opened, folder: Path, written: _Written, found: Checked | None
) -> None:
    """What stands beside the program: tokenizer, configuration, recipe, `export.json`."""
    network = written.network.network
    if model.embedder is not None:
        model.embedder.save_companions(folder)
    else:
        model.tokenizer.save_pretrained(folder)
    if model.settings is not None:
        model.settings.save(folder)
    (folder / "config.json").write_text(config_text(network), encoding="utf-8")
    values = {
        **written.facts,
        "model": model.name,
        "network": type(network).__name__,
        "max_length": model.max_length,
        "labels": list(network.config.labels) if hasattr(network, "classifier") else None,
        "recipe": None if model.embedder is None else model.embedder.recipe.to_dict(),
        "check": None if found is None else found.to_dict(),
        "versions": {"minibert": minibert.__version__, "torch": torch.__version__},
    }
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def _differing(folder: Path, found: Checked) -> str:
    worst = found.worst
    return (
        f"{folder}: {worst.output} of what was exported is off by {worst.error:.2g}, "
        f"{worst.times:.3g} times the noise, expected at most {FACTOR:g} times ({worst.inputs}); "
        "nothing was written: take another opset or dtype"
    )
