"""`minibert info`: what a checkpoint is, and what its network costs."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from minibert.cli.models import ModelChoice, model_options

if TYPE_CHECKING:
    import minibert.config
    import minibert.embed


@click.command(short_help="Show what a model is, and what its network costs.")
@model_options
@click.option("--tree", is_flag=True, help="The modules: shapes, parameters, FLOPs and memory.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Texts, for --tree."
)
@click.option(
    "--seq",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Tokens of each text, for --tree.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(
    name: str,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    tree: bool,
    batch: int,
    seq: int,
    as_json: bool,
) -> None:
    """Show what a model is: configuration, what was loaded, recipe, vector width, fingerprint.

    With --tree also what a padded batch costs, module by module, without computing it:

    \b
    output       the shape of what a module returns
    parameters   its numbers to learn, and the memory that they take
    FLOPs        of matrix products, 2·m·n·k for (m,k) by (k,n): the linear layers, and attention's
                 scores and context, 2·batch·heads·seq·seq·head_dim each; nothing else is counted
    activations  the memory of what the steps within it return; the sums in front of a norm, and
                 the attention scores, which the fused form never holds, are not counted
    """
    choice = ModelChoice(name=name, dtype=dtype, revision=revision, sha256=sha256, offline=offline)
    embedder = choice.load()
    config = embedder.model.config
    rows: list[Row] | None = None
    if tree:
        if seq > config.max_position_embeddings:
            raise click.UsageError(
                f"--seq is {seq}, expected at most {config.max_position_embeddings}, the model's "
                "positions"
            )
        pooler = embedder.model.pooler is not None
        dtype = str(embedder.model.load_report.dtype) if embedder.model.load_report else dtype
        rows = module_tree(config, batch=batch, seq=seq, pooler=pooler, dtype=dtype)
    facts = _facts(choice, embedder)
    if as_json:
        if rows is not None:
            facts["tree"] = {"batch": batch, "seq": seq, "modules": [asdict(row) for row in rows]}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    _print_facts(facts, str(embedder.model.load_report))
    if rows is not None:
        click.echo(f"\nmodules, for {batch} texts of {seq} tokens in {dtype}")
        _print_tree(rows)


@dataclass
class Row:
    """A module of the network, or a step without parameters, and what it costs."""

    name: str  # "" is the network itself
    kind: str
    output: tuple[int, ...] | None  # None for a list of modules, which is never called
    parameters: int = 0
    parameter_bytes: int = 0
    flops: int = 0
    activation_bytes: int = 0

    def add(self, part: "Row") -> None:
        """Count what a step within it costs."""
        self.parameters += part.parameters
        self.parameter_bytes += part.parameter_bytes
        self.flops += part.flops
        self.activation_bytes += part.activation_bytes


def module_tree(
    config: "minibert.config.BertConfig", *, batch: int, seq: int, pooler: bool, dtype: str
) -> list[Row]:
    """The modules of a BERT in the order in which they run, each behind the one that holds it.

    Costs are of one padded batch, computed from shapes alone: on torch's meta device.
    """
    import torch
    from torch import Tensor, nn

    from minibert.checkpoint import DTYPES
    from minibert.layout import Layout
    from minibert.model import BertModel, FeedForward, SelfAttention
    from minibert.ops import QuantisedLinear
    from minibert.quantise import BITS, quantise

    with torch.device("meta"):
        model = BertModel(config).eval().to(DTYPES.get(dtype, torch.float32))
        if dtype in BITS:
            quantise(model, dtype)
        input_ids = torch.zeros(batch, seq, dtype=torch.long)
    if not pooler:
        model.pooler = None
    steps: dict[str, Row] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, kind: str, out: Tensor, flops: int = 0) -> None:
        steps[name] = Row(
            name, kind, tuple(out.shape), flops=flops, activation_bytes=out.numel() * out.itemsize
        )

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, _: object, out: Any) -> None:
            tensor = out if isinstance(out, Tensor) else out[0]
            shapes[name] = tuple(tensor.shape)
            if list(module.children()) or isinstance(module, nn.Dropout):
                return
            flops = 0
            if isinstance(module, nn.Linear | QuantisedLinear):
                flops = 2 * tensor.numel() * module.weight.shape[1]
            note(name, type(module).__name__, tensor, flops)
            own = [*module.parameters(), *module.buffers()]
            steps[name].parameters = sum(each.numel() for each in own)
            steps[name].parameter_bytes = sum(each.numel() * each.itemsize for each in own)

        module.register_forward_hook(hook)

    def attend(name: str) -> Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor]:
        def run(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
            context = torch.empty_like(v)
            note(name, "attention", context, 2 * 2 * q.numel() * k.shape[-3])
            return context

        return run

    def activate(name: str) -> Callable[[Tensor], Tensor]:
        def run(hidden: Tensor) -> Tensor:
            note(name, config.hidden_act, hidden)
            return hidden

        return run

    kinds = {}
    for name, module in model.named_modules():
        kinds[name] = type(module).__name__
        watch(name, module)
        if isinstance(module, SelfAttention):
            module.attend = attend(f"{name}.attend")
        elif isinstance(module, FeedForward):
            module.activation = activate(f"{name}.activation")
    model(input_ids)
    rows: dict[str, Row] = {}
    for name, step in steps.items():
        path = name.split(".")
        for holder in [""] + [".".join(path[:depth]) for depth in range(1, len(path))]:
            rows.setdefault(holder, Row(holder, kinds[holder], shapes.get(holder))).add(step)
        rows[name] = step
    return list(rows.values())


def _facts(choice: ModelChoice, embedder: "minibert.embed.Embedder") -> dict[str, Any]:
    report = embedder.model.load_report
    loaded = {field.name: getattr(report, field.name) for field in fields(report)} if report else {}
    return {
        "model": choice.name,
        "folder": str(embedder.folder),
        "fingerprint": embedder.fingerprint,
        "dim": embedder.dim,
        "recipe": {"origin": embedder.recipe.origin, **embedder.recipe.to_dict()},
        "config": embedder.model.config.to_dict(),
        "load_report": {
            key: str(value) if key == "folder" else value for key, value in loaded.items()
        },
    }


def _print_facts(facts: dict[str, Any], report: str) -> None:
    click.echo(f"model         {facts['model']}")
    click.echo(f"folder        {facts['folder']}")
    click.echo(f"fingerprint   {facts['fingerprint']}")
    click.echo(f"vector width  {facts['dim']}")
    for section in ("recipe", "config"):
        click.echo(f"\n{section}")
        width = max(map(len, facts[section]))
        for key, value in facts[section].items():
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"  {key:<{width}}  {said}")
    _, _, rest = report.partition(": ")
    click.echo(f"\nweights\n  {rest}")


def _print_tree(rows: Sequence[Row]) -> None:
    total = rows[0]
    table: list[tuple[str, ...]] = [
        ("module", "output", "parameters", "memory", "FLOPs", "activations")
    ]
    for row in rows:
        depth = row.name.count(".") + 1 if row.name else 0
        table.append((f"{'  ' * depth}{row.name.rsplit('.', 1)[-1] or row.kind}", *_cells(row)))
    table.append(("total", *_cells(total)))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for number, line in enumerate(table):
        if number in (1, len(table) - 1):
            click.echo("  ".join("-" * width for width in widths))
        left = "  ".join(cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False))
        right = "  ".join(
            cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)
        )
        click.echo(f"{left}  {right}".rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    output = "" if row.output is None else "×".join(map(str, row.output))
    return (
        output,
        f"{row.parameters:,}",
        _scaled(row.parameter_bytes, "B"),
        _scaled(row.flops, ""),
        _scaled(row.activation_bytes, "B"),
    )


def _scaled(number: int, unit: str) -> str:
    """A number to four digits with its power of a thousand: 90.87 MB."""
    power = min(4, int(math.log10(number) // 3)) if number else 0
    shown = str(number) if power == 0 else f"{number / 1000**power:.4g}"
    return f"{shown} {('', 'k', 'M', 'G', 'T')[power]}{unit}".rstrip()
