"""`torch.export`: a network traced once, as a graph for any batch and any length.

Writing a `.pt2` file is all that is done with it here. `torch.export.load` unpickles what it does
not expect, so such a file is to be trusted like code, and minibert does not read one.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from minibert.export.network import INPUTS, Exportable
from minibert.model import AttentionFunction, SelfAttention

Axes = tuple[str | int, ...]


def traced(
    network: Exportable, *, max_length: int, attend: AttentionFunction | None = None
) -> ExportedProgram:
    """The graph of a network, for 1 to `max_length` tokens and any number of texts.

    It holds nothing of this machine: where in which file an operation stood is left out.

    Args:
        max_length: the most tokens; at most the network's positions.
        attend: the attention to trace, in place of the network's own.
    """
    dims = [Dim(name, min=1) for name in network.axes[:-1]]
    dims.append(Dim(network.axes[-1], min=1, max=max_length))
    # Sizes that differ from each other, and from 1, which a trace would take for a constant.
    sizes = {"batch_size": 2, "num_choices": max_length + 1, "sequence_length": max_length}
    example = torch.zeros([sizes[name] for name in network.axes], dtype=torch.long)
    inputs = {name: example + (name == "attention_mask") for name in INPUTS}
    with torch.no_grad(), _attending(network, attend):
        program = torch.export.export(
            network,
            args=(),
            kwargs=inputs,
            dynamic_shapes={name: dict(enumerate(dims)) for name in INPUTS},
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


@contextmanager
def _attending(network: nn.Module, attend: AttentionFunction | None) -> Iterator[None]:
    """Let every attention run `attend` for as long as the block lasts."""
    modules = [each for each in network.modules() if isinstance(each, SelfAttention)]
    own = [each.attend for each in modules]
    try:
        for module in modules:
            module.attend = module.attend if attend is None else attend
        yield
    finally:
        for module, earlier in zip(modules, own, strict=True):
            module.attend = earlier


def axes_of(program: ExportedProgram, network: Exportable) -> dict[str, Axes]:
    """The axes of each input and output: a name where any size may be, else the size."""
    found = tensors_of(program)
    sizes = zip(found["input_ids"].shape, network.axes, strict=True)
    names = {str(size): name for size, name in sizes}
    return {
        name: tuple(names.get(str(size)) or int(size) for size in tensor.shape)
        for name, tensor in found.items()
    }


def tensors_of(program: ExportedProgram) -> dict[str, Tensor]:
    """What stands in the graph for each input and output: a dtype, and a shape of symbols."""
    found = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    signature = program.graph_signature
    inputs = zip(INPUTS, signature.user_inputs, strict=True)
    outputs = zip(outputs_of(program), signature.user_outputs, strict=True)
    return {ours: found[str(theirs)] for ours, theirs in (*inputs, *outputs)}


def outputs_of(program: ExportedProgram) -> list[str]:
    """The names of the outputs, in order."""
    assert program.call_spec.out_spec is not None
    return [str(name) for name in program.call_spec.out_spec.context]


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a `.pt2` file, which `torch.export.load` reads.

    By way of memory: on a full disk torch's own writer ends the process.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def run_program(program: ExportedProgram, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of the program itself, for one batch."""
    with torch.no_grad():
        found: dict[str, Tensor] = program.module()(**{name: inputs[name] for name in INPUTS})
    return found
