"""Two recordings side by side: which stage differs first, by itself or by inheritance, and why."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minibert.checkpoint import load
from minibert.config import BertConfig
from minibert.errors import MinibertError, ParityError
from minibert.parity.folders import named_class, record_folder
from minibert.parity.judge import Judge, dtype_name
from minibert.parity.pack import read_arrays, read_pack
from minibert.parity.recording import (
    TEXTS,
    Recording,
    digests,
    record,
)
from minibert.parity.result import Comparison
from minibert.parity.stages import encoder_of
from minibert.weights import resolve

HALVES = {torch.float16, torch.bfloat16}

Source = str | Path | Recording | nn.Module | Mapping[str, Any]


def compare(
    candidate: Source,
    reference: Source,
    *,
    model: Source | None = None,
    mapping: str | Path | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    texts: Iterable[tuple[str, str | None]] | None = None,
) -> Comparison:
    """Compare a candidate with a reference, stage by stage, at the attended positions.

    Each is a model folder (or a name of the manifest, or a hub id), a parity pack, a numpy archive
    (`.npz`), a mapping of arrays, a network of minibert, or what `capture` recorded.  A folder or a
    network as candidate is run on the reference's inputs.

    Args:
        model: where the reference's weights are, for local errors and causes, when the reference
            is a pack or arrays; the candidate's own where they are the same.
        mapping: how the names and axes of the candidate's arrays translate; see `read_arrays`.
        dtype: what a folder is computed in: the reference's own, or float32.
        texts: what a reference folder is run on, pairs with their second text.

    Raises: ParityError where the two cannot be compared: another checkpoint, other inputs, another
        sequence length, stages that the network lacks.
    """
    ours = _reference(reference, dtype, list(TEXTS if texts is None else texts))
    theirs, its_network, its_folder = _candidate(candidate, ours, mapping, dtype)
    network = None if model is None else _network_of(model, ours)
    notes = _notes(theirs, ours)
    if network is None and its_folder is not None and not _differing(theirs, ours):
        network = _load(its_folder, ours)
    if network is None and its_network is not None and theirs.parameters == ours.parameters:
        network = its_network
    if network is None and ours.model_name is not None:
        network = _by_name(ours)
    if network is None:
        notes.append(
            "no weights of the reference at hand: no local errors, no causes; give --model"
        )
    else:
        check_inputs(network, ours)
    return Judge(theirs, ours, network, notes).comparison()


# ---- where the two come from


def _reference(source: Source, dtype: str | None, texts: list[tuple[str, str | None]]) -> Recording:
    if isinstance(source, Recording):
        return source
    if isinstance(source, nn.Module):
        raise ParityError(
            f"the reference is a {type(source).__name__}, expected a recording of it; give "
            "minibert.record(model, inputs)"
        )
    if isinstance(source, Mapping) or str(source).endswith(".npz"):
        return read_arrays(source)
    if _is_pack(source):
        return read_pack(source)
    recording = record_folder(source, dtype=dtype or "float32", texts=texts)
    recording.origin = f"{source} ({recording.origin})"
    return recording


def _candidate(
    source: Source,
    reference: Recording,
    mapping: str | Path | Mapping[str, Any] | None,
    dtype: str | None,
) -> tuple[Recording, nn.Module | None, Path | None]:
    folder, network = None, None
    if isinstance(source, Recording):
        found = source
    elif isinstance(source, nn.Module):
        network = source
        found = _run(network, reference)
    elif isinstance(source, Mapping) or str(source).endswith(".npz"):
        found = read_arrays(source, mapping)
    elif _is_pack(source):
        found = read_pack(source)
    else:
        folder = resolve(source)
        name = dtype or dtype_name(reference.dtype)
        check_network(BertConfig.from_file(folder / "config.json"), reference, str(source))
        network = named_class(reference.network).from_pretrained(folder, dtype=name)
        found = _run(network, reference)
        found.origin = f"{source} ({found.origin})"
    return found, network, folder


def _is_pack(source: str | Path) -> bool:
    """Is it a file, or named like one that should be there?"""
    path = Path(source)
    return path.is_file() or (path.suffix == ".safetensors" and not path.is_dir())


def _run(network: nn.Module, reference: Recording) -> Recording:
    """A network of minibert on the reference's inputs."""
    if "input_ids" not in reference.inputs:
        raise ParityError(
            f"{reference.origin}: has no input_ids, expected them, to run the candidate on"
        )
    check_inputs(network, reference)
    return record(network, reference.inputs, noise=False)


def check_inputs(network: nn.Module, reference: Recording) -> None:
    """Refuse inputs that a network cannot take: they were another's."""
    config = encoder_of(network).config
    bounds = {"input_ids": config.vocab_size, "token_type_ids": config.type_vocab_size}
    for name, tensor in reference.inputs.items():
        if tensor.shape[1] > config.max_position_embeddings:
            raise ParityError(
                f"{reference.origin}: has sequences of {tensor.shape[1]} tokens, expected at most "
                f"{config.max_position_embeddings}, the network's positions"
            )
        low, high = int(tensor.min()), int(tensor.max())
        if name in bounds and not 0 <= low <= high < bounds[name]:
            raise ParityError(
                f"{reference.origin}: {name} hold {low if low < 0 else high}, expected 0 to "
                f"{bounds[name] - 1}: it was recorded from another network"
            )


def _network_of(source: Source, reference: Recording) -> nn.Module:
    """The network with the reference's weights, as the caller names it."""
    if isinstance(source, nn.Module):
        return source
    if not isinstance(source, str | Path):
        raise ParityError(f"model is {type(source).__name__}, expected a folder or a network")
    network = _load(resolve(source), reference)
    if differing := differing_weights(network, reference):
        raise ParityError(
            f"{source}: is not the checkpoint of {reference.origin}: {len(differing)} tensors "
            f"differ, {differing[0]} first; give --model the folder that was recorded"
        )
    return network


def differing_weights(network: nn.Module, reference: Recording) -> list[str]:
    """The tensors of a network that are not those that the reference was recorded from."""
    return [
        name
        for name, value in digests(network).items()
        if reference.parameters.get(name, value) != value
    ]


def _load(folder: Path, reference: Recording) -> nn.Module:
    """The weights of a folder under the reference's own configuration."""
    config = BertConfig.from_file(folder / "config.json")
    if reference.config is not None:
        config = BertConfig.from_dict(reference.config)
    return load(named_class(reference.network), folder, config)


def _by_name(reference: Recording) -> nn.Module | None:
    """The reference's network, where the name that it was recorded from leads to it here."""
    try:
        return _network_of(resolve(str(reference.model_name), offline=True), reference)
    except MinibertError:  # it is not here: a comparison goes without
        return None


def check_network(config: BertConfig, reference: Recording, label: str) -> None:
    if reference.config is None:
        return
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if getattr(config, key) != reference.config.get(key):
            raise ParityError(
                f"{label}: has {key} {getattr(config, key)}, but {reference.origin} was recorded "
                f"with {reference.config.get(key)}: a pack for another checkpoint"
            )


def _differing(candidate: Recording, reference: Recording) -> list[str]:
    """The parameters that are in both, and not the same."""
    if candidate.dtype != reference.dtype and {candidate.dtype, reference.dtype} & HALVES:
        return []  # one of them is rounded
    return [
        name
        for name, value in candidate.parameters.items()
        if reference.parameters.get(name, value) != value
    ]


def _notes(candidate: Recording, reference: Recording) -> list[str]:
    """What can be said before any figure is compared."""
    notes = []
    if candidate.config is not None and reference.config is not None:
        for key, value in reference.config.items():
            other = candidate.config.get(key)
            if other != value and key not in ("architectures", "dtype", "torch_dtype"):
                notes.append(f"config.json differs: {key} is {other!r}, the reference's {value!r}")
    differing, shared = _differing(candidate, reference), len(candidate.parameters)
    if differing and len(differing) > shared / 2:
        raise ParityError(
            f"{candidate.origin}: {len(differing)} of {shared} tensors differ from those of "
            f"{reference.origin}: a pack for another checkpoint; record one for this"
        )
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        notes.append(f"weights differ: {', '.join(differing[:4])}{more}")
    if candidate.dropout:
        notes.append("dropout was active while the candidate was recorded: call eval()")
    if candidate.dtype != reference.dtype:
        notes.append(
            f"the candidate is {dtype_name(candidate.dtype)}, the reference "
            f"{dtype_name(reference.dtype)}: judged by the noise of the coarser"
        )
    for name, tensor in candidate.inputs.items():
        expected = reference.inputs.get(name)
        if expected is None:
            continue
        if tensor.shape != expected.shape:
            raise ParityError(
                f"{candidate.origin}: {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected.shape)}, that of {reference.origin}; run both on one batch"
            )
        if not torch.equal(tensor.long(), expected.long()):
            raise ParityError(
                f"{candidate.origin}: {name} are not those of {reference.origin}; run the "
                "candidate on the reference's inputs"
            )
    return notes
