"""Checkpoints: safetensors in and out, and the one table between our names and the ecosystem's.

In memory the project uses its own short names and one fused `qkv`.  On disk it always writes, and
reads, the names that BERT checkpoints have everywhere.  A `LoadReport` accounts for every tensor of
the file and every parameter of the model; nothing is left out in silence.
"""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert import tensor_files
from minibert.config import BertConfig
from minibert.errors import CheckpointError
from minibert.files import replacing, replacing_all
from minibert.quantise import BITS, quantise
from minibert.tensor_files import FLOATS, INTEGERS, Entry
from minibert.weights import resolve

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

# Ours -> the ecosystem's, read in both directions. `{i}` is a layer's number; both names end in
# the same ".weight" or ".bias". Where three names stand, ours is their rows one below the other.
NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("embeddings.token", ("embeddings.word_embeddings",)),
    ("embeddings.token_type", ("embeddings.token_type_embeddings",)),
    ("embeddings.position", ("embeddings.position_embeddings",)),
    ("embeddings.norm", ("embeddings.LayerNorm",)),
    (
        "layers.{i}.attention.qkv",
        (
            "encoder.layer.{i}.attention.self.query",
            "encoder.layer.{i}.attention.self.key",
            "encoder.layer.{i}.attention.self.value",
        ),
    ),
    ("layers.{i}.attention.output", ("encoder.layer.{i}.attention.output.dense",)),
    ("layers.{i}.attention_norm", ("encoder.layer.{i}.attention.output.LayerNorm",)),
    ("layers.{i}.feed_forward.up", ("encoder.layer.{i}.intermediate.dense",)),
    ("layers.{i}.feed_forward.down", ("encoder.layer.{i}.output.dense",)),
    ("layers.{i}.feed_forward_norm", ("encoder.layer.{i}.output.LayerNorm",)),
    ("pooler.dense", ("pooler.dense",)),
    ("predictions.dense", ("cls.predictions.transform.dense",)),
    ("predictions.norm", ("cls.predictions.transform.LayerNorm",)),
    ("predictions.decoder", ("cls.predictions.decoder",)),
    ("predictions", ("cls.predictions",)),  # its bias
    ("next_sentence", ("cls.seq_relationship",)),
    ("classifier", ("classifier",)),
    ("classifier.hidden", ("classifier.hidden",)),  # of minibert alone, see OWN
    ("classifier.output", ("classifier.output",)),
    ("spans", ("qa_outputs",)),
)

# Tensors that a file may hold without the model having a place for them, and why that is harmless.
HARMLESS = (
    (r"embeddings\.position_ids", "buffer of old files: the column numbers"),
    (r"embeddings\.token_type_ids", "buffer of old files: zeros"),
    (
        r"cls\.predictions\.(bias|(decoder|transform\.(dense|LayerNorm))\.(weight|bias))"
        r"|(cls\.seq_relationship|classifier(\.hidden|\.output)?|qa_outputs)\.(weight|bias)",
        "head of another task",
    ),
    (r"pooler\.dense\.(weight|bias)", "this model has no pooler"),
)

# Names that the ecosystem has not. None of them is another one's name there, so that whoever reads
# them elsewhere is told that they are left over and a classifier is missing.
OWN = ("classifier.hidden.", "classifier.output.")

# Two names of one tensor: either, or both, may be in a file. With a tied decoder we write the
# second; an untied one has a bias of its own, the first.
ALIASES = (("cls.predictions.decoder.bias", "cls.predictions.bias"),)
# With a tied decoder, the first is the second.
TIED = (("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),)

_PREFIX = "bert."  # before the encoder's names in a head's file; a bare encoder's has none
_LEGACY = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))
_log = logging.getLogger("minibert")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint and every parameter of the model."""

    folder: Path
    loaded: tuple[str, ...] = ()  # tensors of the file that the model now holds
    legacy: Mapping[str, str] = field(default_factory=dict)  # among them, old names: to new ones
    ignored: Mapping[str, str] = field(default_factory=dict)  # tensors not taken: why
    tied: Mapping[str, str] = field(default_factory=dict)  # names that are one tensor with another
    absent: tuple[str, ...] = ()  # optional modules that the file lacks and the model now too
    initialised: tuple[str, ...] = ()  # parameters that the file lacks, or a new head: fresh values
    dtype: str = "float32"

    def __str__(self) -> str:
        lines = [f"{self.folder}: {len(self.loaded)} tensors loaded as {self.dtype}"]
        lines += [
            f"  read under its old name: {name} -> {new}" for name, new in self.legacy.items()
        ]
        lines += [f"  ignored: {name} ({why})" for name, why in self.ignored.items()]
        lines += [f"  tied: {name} is {other}" for name, other in self.tied.items()]
        lines += [f"  without {name}: the file has none" for name in self.absent]
        lines += [f"  initialised afresh: {name}" for name in self.initialised]
        return "\n".join(lines)


P = TypeVar("P", bound="Pretrained")


class Pretrained(nn.Module):
    """A network that loads from, and saves to, the checkpoints of the ecosystem.

    The only base class here beside `nn.Module`: it holds no behaviour but loading and saving.
    """

    optional: ClassVar[tuple[str, ...]] = ()  # modules that leave the model when a file lacks them
    fresh: ClassVar[tuple[str, ...]] = ()  # modules that are initialised when a file lacks them
    config: BertConfig
    load_report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls: type[P],
        name: str | Path,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        labels: Sequence[str] | int | None = None,
        new_head: bool = False,
        check_finite: bool = True,
        revision: str | None = None,
        sha256: str | None = None,
        offline: bool = False,
    ) -> P:
        """The network with the weights of a checkpoint, in evaluation mode.

        Weights are memory-mapped: on the CPU, in the file's own dtype, they are not copied, but for
        the attention projections, which are joined. `load_report` tells what became of each tensor.

        Args:
            name: a folder, a name of the manifest, or a hub id "owner/name".
            dtype: of the parameters: "float32", "bfloat16", "float16" or "float64"; "int16" or
                "int8" makes the layers' linear maps such of integers, for inference.
            device: where they go.
            labels: names or number of a classifier's labels, in place of the checkpoint's.
            new_head: initialise the head afresh, whatever the file holds.
            check_finite: refuse NaN and infinite weights.
            revision: the commit of a hub id.
            sha256: the expected SHA-256 of `model.safetensors`.
            offline: open no connection.

        Raises: WeightsError, ConfigError or CheckpointError, in one line that says what to do.
        """
        folder = resolve(name, revision=revision, sha256=sha256, offline=offline)
        config = BertConfig.from_file(folder / "config.json")
        if labels is not None:
            config = config.with_labels(labels)
        return load(
            cls,
            folder,
            config,
            dtype=dtype,
            device=device,
            new_head=new_head,
            check_finite=check_finite,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` as `transformers` reads them.

        Both are written beside their places and flushed to the disk before either is renamed: a
        full disk leaves what stood there, a crash each file in its earlier or its new form.

        Raises: CheckpointError when the folder cannot be written to; what stood there stays whole.
        """
        save(self, Path(folder))


def disk_names(name: str) -> tuple[str, ...]:
    """The ecosystem's names of our parameter `name`: one, or three for a fused `qkv`.

    >>> disk_names("bert.layers.0.attention_norm.weight")
    ('bert.encoder.layer.0.attention.output.LayerNorm.weight',)
    """
    prefix = _PREFIX if name.startswith(_PREFIX) else ""
    stem, kind = name.removeprefix(prefix).rsplit(".", 1)
    number = re.match(r"layers\.(\d+)\.", stem)
    i = number[1] if number else ""
    for ours, theirs in NAMES:
        if ours.format(i=i) == stem:
            return tuple(f"{prefix}{their.format(i=i)}.{kind}" for their in theirs)
    raise KeyError(f"the name table has no row for {name}")


def to_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the ecosystem's names; a fused `qkv` comes out as its three parts."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = disk_names(name)
        out.update(zip(names, tensor.chunk(len(names)), strict=True))
    return out


def from_disk(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The inverse of `to_disk`: the parameters `names` out of a dict with the ecosystem's names."""
    out = {}
    for name in names:
        parts = [state[part] for part in disk_names(name)]
        out[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out


def initialise(model: nn.Module, *, std: float, only: Sequence[str] | None = None) -> None:
    """Set parameters to a new BERT's values: weights normal(0, std), biases 0, LayerNorm 1 and 0.

    Differs: google-research/bert truncates the normal at 2 std; transformers does not either.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_meta or (only is not None and name not in only):
                continue
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, std)


def load(
    cls: type[P],
    folder: Path,
    config: BertConfig,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    new_head: bool = False,
    whole: bool = False,
    check_finite: bool = True,
) -> P:
    """`cls(config)` filled from the safetensors of `folder`; see `Pretrained.from_pretrained`.

    With `whole`, a file that lacks the head is refused: there would be chance in its place.
    """
    if dtype not in (*DTYPES, *BITS):
        raise CheckpointError(f"got dtype {dtype!r}, expected one of {[*DTYPES, *BITS]}")
    floats = DTYPES.get(dtype, torch.float32)
    with contextlib.ExitStack() as stack:
        entries = tensor_files.open_tensors(folder, stack)
        stored = _stored_integers(entries, folder)
        if stored and dtype not in ("float32", stored):
            raise CheckpointError(
                f"{folder}: its weights are {stored}, got dtype {dtype!r}; load it as {stored}, or "
                "take the checkpoint that it was made of"
            )
        with torch.device("meta"):
            model = cls(config)
            if stored:
                quantise(model, stored)
        plan = _plan(model, entries, folder, new_head=new_head)
        if whole and plan.new:
            lacking = [part for name in plan.new for part in disk_names(name)]
            raise CheckpointError(
                f"{folder}: lacks {_listed(lacking)}, so that the head of {cls.__name__} is "
                "untrained and what it predicts is chance; train it first, as minibert train does"
            )
        if check_finite:
            tensor_files.check_finite(
                [
                    entries[name]
                    for parts in plan.old.values()
                    for name in parts
                    if entries[name].kind in FLOATS
                ]
            )
        report = _fill(model, plan, entries, floats, device, check_finite=check_finite)
    if dtype in BITS and not stored:
        quantise(model, dtype)
    if dtype in BITS or stored:
        report = replace(report, dtype=stored or dtype)
    model.load_report = report
    if report.initialised:
        _log.warning("%s: initialised afresh: %s", folder, ", ".join(report.initialised))
    return model.eval()


def save(model: Pretrained, folder: Path) -> None:
    """Write a network's two files; see `Pretrained.save_pretrained`."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.contiguous() for name, tensor in to_disk(state).items()}
    text = config_text(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = (folder / "config.json", folder / "model.safetensors")
        with replacing_all(*paths) as (config_part, weights_part):
            # One key of metadata: several would come out in random order.
            save_file(tensors, weights_part, metadata={"format": "pt"})
            config_part.write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error}; what stood there is unchanged, so free space "
            "or choose another folder, and save again"
        ) from None
    if any(name.startswith(OWN) for name in tensors):
        _log.warning(
            "%s: the classifier has a hidden layer, for which transformers has no place: opened "
            "there, its head is untrained; minibert opens it whole",
            folder,
        )


def config_text(model: Pretrained) -> str:
    """What stands in the `config.json` of a network."""
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in model.state_dict().values()}
    values = {
        **model.config.to_dict(),
        "architectures": [type(model).__name__],
        "dtype": dtypes.pop() if len(dtypes) == 1 else "float32",
    }
    if integers := dtypes & BITS.keys():
        # What transformers does not know of, so that it refuses the file in place of misreading it.
        values["quantization_config"] = {"quant_method": "minibert", "weights": integers.pop()}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by themselves, whole or not at all."""
    try:
        with replacing(path) as part:
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, part, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be written: {error}; free space or choose another folder"
        ) from None


def hash_tensors(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    """Feed a digest with names, dtypes, shapes and values, in the order of the names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)


def _current(name: str) -> str:
    """A file's name as the table has it: without prefix, LayerNorm's old names made new."""
    name = name.removeprefix(_PREFIX)
    for old, new in _LEGACY:
        name = name.replace(old, new)
    return name


def _found(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The file's tensors by their current names: to the names they have in the file."""
    found: dict[str, str] = {}
    for name in entries:
        earlier = found.setdefault(_current(name), name)
        if earlier != name:
            raise CheckpointError(
                f"{entries[name].path}: holds both {earlier} and {name}, two names of one "
                "parameter; expected one, so remove the other"
            )
    for name, other in (*ALIASES, *map(reversed, ALIASES)):
        if name in found:
            found.setdefault(other, found[name])
    return found


@dataclass(frozen=True)
class _Plan:
    """Where each tensor of a file goes, settled before any is read."""

    folder: Path
    old: dict[str, list[str]]  # our parameters: the names of their parts in the file
    new: list[str]  # our parameters that the file does not fill
    absent: tuple[str, ...]
    legacy: dict[str, str]
    ignored: dict[str, str]
    tied: dict[str, str]


def _plan(
    model: Pretrained, entries: Mapping[str, Entry], folder: Path, *, new_head: bool
) -> _Plan:
    """Account for every tensor of the file and every parameter of the model, or say what is wrong.

    Optional modules of which the file has nothing leave the model here.
    """
    found = _found(entries)
    absent = _drop_absent(model, found)
    state = model.state_dict()
    wanted = {name: [_current(part) for part in disk_names(name)] for name in state}
    new, heads = [], []
    for module in model.fresh:
        names = [name for name in wanted if name.startswith(module + ".")]
        # A head that is there in part is not taken for one that is absent.
        is_absent = not any(part in found for name in names for part in wanted[name])
        is_encoder = module.startswith(_PREFIX)
        new += names if is_absent or (new_head and not is_encoder) else []
        heads += [] if is_encoder else names
    old = {name: parts for name, parts in wanted.items() if name not in new}

    missing = [part for parts in old.values() for part in parts if part not in found]
    if missing:
        raise CheckpointError(
            f"{folder}: lacks {_listed(missing)}; expected every tensor of "
            f"{type(model).__name__}, so the file is incomplete or of another network"
        )
    taken = {found[part]: part for parts in old.values() for part in parts}
    ignored: dict[str, str] = {}
    has_decoder = any(name.startswith("predictions.") for name in old)
    tied = _tied(entries, found, taken, ignored) if has_decoder else {}
    replaced = _heads_of(new)
    unexpected = []
    for name in sorted(entries.keys() - taken.keys() - tied.keys() - ignored.keys()):
        current = _current(name)
        why = _why_harmless(current)
        if why is not None and current.startswith(replaced):
            why = "initialised afresh, as asked" if new_head else "of a head of another form"
        if why is None:
            unexpected.append(name)
        else:
            ignored[name] = why
    if unexpected:
        raise CheckpointError(
            f"{folder}: holds {_listed(unexpected)}, for which {type(model).__name__} has no "
            "place; the file is of another network, or one that was changed"
        )
    for name, parts in old.items():
        rows, *rest = state[name].shape
        for part in parts:
            expected = (rows // len(parts), *rest)
            _check_entry(entries[found[part]], expected, state[name].dtype, is_head=name in heads)
    return _Plan(
        folder=folder,
        old={name: [found[part] for part in parts] for name, parts in old.items()},
        new=new,
        absent=absent,
        legacy={n: current for n, current in taken.items() if n.removeprefix(_PREFIX) != current},
        ignored=ignored,
        tied=tied,
    )


def _fill(
    model: Pretrained,
    plan: _Plan,
    entries: Mapping[str, Entry],
    dtype: torch.dtype,
    device: str,
    *,
    check_finite: bool,
) -> LoadReport:
    """Put the planned tensors into a model on the meta device."""
    state = model.state_dict()
    tensors = {}
    for name, parts in plan.old.items():
        read = [entries[part].read() for part in parts]
        joined = read[0] if len(read) == 1 else torch.cat(read)
        tensors[name] = joined.to(device, dtype if joined.is_floating_point() else joined.dtype)
        if check_finite and dtype == torch.float16 and not tensors[name].isfinite().all():
            raise CheckpointError(
                f"{plan.folder}: {parts[0]} reaches {joined.abs().max().item():.4g}, expected at "
                "most 65504 for float16; load it as bfloat16"
            )
    for name in plan.new:
        tensors[name] = torch.empty(state[name].shape, dtype=dtype, device=device)
    model.load_state_dict(tensors, assign=True)
    initialise(model, std=model.config.initializer_range, only=plan.new)
    return LoadReport(
        folder=plan.folder,
        loaded=tuple(sorted(part for parts in plan.old.values() for part in parts)),
        legacy=plan.legacy,
        ignored=plan.ignored,
        tied=plan.tied,
        absent=plan.absent,
        initialised=tuple(plan.new),
        dtype=str(dtype).removeprefix("torch."),
    )


def _drop_absent(model: Pretrained, found: Mapping[str, str]) -> tuple[str, ...]:
    """Take the optional modules of which the file has nothing out of the model."""
    absent = []
    for module in model.optional:
        names = [name for name in model.state_dict() if name.startswith(module + ".")]
        if not any(_current(part) in found for name in names for part in disk_names(name)):
            setattr(model, module, None)
            absent.append(module)
    return tuple(absent)


def _heads_of(parameters: Sequence[str]) -> tuple[str, ...]:
    """How the file's names begin for the heads, or the pooler, that have these parameters."""
    modules = {name.removeprefix(_PREFIX).split(".")[0] for name in parameters}
    return tuple(f"{theirs[0]}." for ours, theirs in NAMES if ours in modules)


def _why_harmless(name: str) -> str | None:
    """Why a tensor without a place may be left out; None where it may not."""
    return next((why for pattern, why in HARMLESS if re.fullmatch(pattern, name)), None)


def _stored_integers(entries: Mapping[str, Entry], folder: Path) -> str:
    """What the file's linear maps hold, of `quantise.BITS`; "" where they hold floats."""
    kinds = {
        entry.kind
        for name, entry in entries.items()
        if f"{name.removesuffix('weight')}scale" in entries
    }
    names = {str(INTEGERS[kind]).removeprefix("torch.") for kind in kinds & INTEGERS.keys()}
    if len(names) > 1:
        raise CheckpointError(
            f"{folder}: holds weights of {' and '.join(sorted(names))}, expected one of them; save "
            "the checkpoint again"
        )
    return names.pop() if names else ""


def _check_entry(
    entry: Entry, expected: tuple[int, ...], dtype: torch.dtype, *, is_head: bool
) -> None:
    kinds = FLOATS if dtype.is_floating_point else {k for k, v in INTEGERS.items() if v == dtype}
    if entry.kind not in kinds:
        raise CheckpointError(
            f"{entry.path}: {entry.name} is {entry.kind}, expected one of {sorted(kinds)}; "
            "integer weights are read where minibert wrote them, each with its scale"
        )
    if entry.shape != expected:
        mend = (
            "give new_head=True to initialise the head afresh, or leave labels out"
            if is_head
            else "config.json and weights are of different networks"
        )
        raise CheckpointError(
            f"{entry.path}: {entry.name} has shape {entry.shape}, expected {expected}; {mend}"
        )


def _tied(
    entries: Mapping[str, Entry],
    found: Mapping[str, str],
    taken: Mapping[str, str],
    ignored: dict[str, str],
) -> dict[str, str]:
    """The tensors that are another one again; those that should be, and differ, are ignored."""
    tied = {}
    for name, other in (*ALIASES, *map(reversed, ALIASES), *TIED):
        if name not in found or found[name] in taken or other not in found:
            continue
        if torch.equal(entries[found[name]].read(), entries[found[other]].read()):
            tied[found[name]] = found[other]
        else:
            ignored[found[name]] = f"differs from {found[other]}, which is used in its place"
    return tied


def _listed(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
