"""ONNX: the graph of `torch.export` translated, written, and run by onnxruntime.

The translation is torch's own, by way of `torch.export`; its older one, by way of TorchScript, is
deprecated.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from minibert.errors import ExportError
from minibert.export.network import INPUTS
from minibert.export.program import Axes, outputs_of

# Versions of the operators: in 18 torch's translation begins, 20 has GELU, and 23 is the last that
# torch translates to.
OPSETS = (18, 23)
DEFAULT_OPSET = 20

# A protobuf message, which an ONNX file is, cannot be larger.
_MOST_BYTES = 2**31 - 1

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def check_extra(*, run: bool) -> None:
    """Refuse, as ExportError, where what writes ONNX (and with `run` runs it) is not installed."""
    for package in ("onnx", "onnxscript", *(["onnxruntime"] if run else [])):
        if find_spec(package) is None:
            what = "run what is written" if package == "onnxruntime" else "write ONNX"
            raise ExportError(
                f"{package} is not installed, expected it to {what}: pip install 'minibert[export]'"
            )


def write_onnx(
    program: ExportedProgram, path: Path, *, axes: Mapping[str, Axes], opset: int, name: str
) -> None:
    """Translate a traced network and write it as one file, which onnx's own checker accepts.

    It holds nothing of this machine, nor of the modules that it came from.

    Args:
        axes: of each input and output, as `axes_of` gives them.
        opset: the version of the operators.
        name: what the graph is called.

    Raises: ExportError for a network that is too large for one file.
    """
    size = sum(each.numel() * each.itemsize for each in program.state_dict.values())
    if size > _MOST_BYTES:
        raise ExportError(
            f"the weights are {size:,} bytes, expected at most {_MOST_BYTES:,}, which is all that "
            "one ONNX file can hold; export it in float16, or with --to torch"
        )
    import onnx

    with _quiet():
        translated = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=INPUTS,
            output_names=outputs_of(program),
        )
    assert translated is not None
    proto = translated.model_proto
    _clean(proto, axes)
    proto.graph.name = name
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)


def _clean(proto: Any, axes: Mapping[str, Axes]) -> None:
    """Leave out where things came from, and give the axes their names."""
    graph = proto.graph
    del graph.value_info[:]  # shapes in between, of sizes that have lost their names
    for each in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""
    for value in (*graph.input, *graph.output):
        for dim, axis in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if isinstance(axis, str):
                dim.dim_param = axis


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch's translation says of torch and of packages that are not here."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def opened(path: Path) -> Run:
    """A written file, ready to be run on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; a cast that is put in is none
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = {name: inputs[name].numpy() for name in INPUTS}
        found = zip(names, session.run(names, given), strict=True)
        return {name: torch.from_numpy(array) for name, array in found}

    return run
