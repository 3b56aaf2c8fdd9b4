"""The contenders of `benchmark.py`: how each is loaded, and what its best settings are chosen from.

A contender is a line of CONTENDERS.  It is loaded in a process of its own, with the Python of its
own environment, so a loader imports what it needs itself.  What a library has to be given in a form
of its own (OpenVINO, ONNX Runtime, CTranslate2) is converted once, by a process of its own.

The settings of a contender are lists to choose from: `benchmark.py` tries them on a sample of the
workload's texts, one after the other, and keeps the fastest.

Left out is what cannot be had beside the others: the ONNX and OpenVINO back ends of
sentence-transformers, whose optimum-onnx asks for transformers below 4.58, and whose optimum-intel
for a module that OpenVINO has no longer; and CTranslate2 in bfloat16, which its wheels refuse to
compute on a CPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]
Infer = Callable[[list[list[int]]], Vectors]  # token ids of a batch -> a vector each
Settings = Mapping[str, Any]


class Model(NamedTuple):
    """What a contender loads."""

    folder: Path  # of sentence-transformers
    converted: Path | None  # what the contender's converter made of it
    max_length: int
    threads: int


Load = Callable[[Model, str, Settings], Encode]
Convert = Callable[[Path, Path, list[str], int], None]


# Ours, and those that load the folder itself.


def load_minibert(engine: str) -> Load:
    """By the kernels, or by PyTorch."""

    def load(model: Model, precision: str, settings: Settings) -> Encode:
        from minibert import Embedder

        embedder = Embedder.from_pretrained(model.folder, dtype=precision, engine=engine)
        return lambda texts: embedder.encode(texts, show_progress_bar=False)

    return load


def load_sentence_transformers(model: Model, precision: str, settings: Settings) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(
        str(model.folder), device="cpu", model_kwargs={"dtype": getattr(torch, precision)}
    )
    size = settings["batch_size"]
    return lambda texts: peer.encode(texts, batch_size=size, show_progress_bar=False)


def load_transformers(model: Model, precision: str, settings: Settings) -> Encode:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    network = AutoModel.from_pretrained(model.folder, dtype=getattr(torch, precision)).eval()
    size = settings["batch_size"]

    def encode(texts: list[str]) -> Vectors:
        found = []
        for start in range(0, len(texts), size):
            batch = tokenizer(
                texts[start : start + size],
                padding=True,
                truncation=True,
                max_length=model.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = network(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][..., None]
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                found.append(torch.nn.functional.normalize(pooled, dim=-1))
        return torch.cat(found).numpy()

    return encode


# Those that are given batches: sorted by length, of a budget of tokens, in several streams.


def batched(model: Model, settings: Settings, infer: Infer) -> Encode:
    """Texts to vectors by what embeds a batch of token ids.

    Args:
        settings: `budget`, the tokens of a batch with its padding, and `streams`, the batches that
            are computed at once.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_length)
    streams = ThreadPoolExecutor(settings["streams"])

    def encode(texts: list[str]) -> Vectors:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        batches = list(_batches(ids, settings["budget"]))
        sequences = [[ids[row] for row in batch] for batch in batches]
        if settings["streams"] == 1:
            found = [infer(each) for each in sequences]
        else:
            found = list(streams.map(infer, sequences))
        out = np.empty((len(texts), found[0].shape[1]), np.float32)
        for batch, vectors in zip(batches, found, strict=True):
            out[batch] = vectors
        return out

    return encode


def _batches(ids: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Rows by length, the longest first, as many at once as fit the budget when padded."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]), reverse=True)
    start = 0
    while start < len(order):
        size = max(1, budget // len(ids[order[start]]))
        yield order[start : start + size]
        start += size


def padded(ids: list[list[int]], multiple: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and their mask as rows of one width, a multiple of `multiple`."""
    width = -(-max(map(len, ids)) // multiple) * multiple
    tokens, mask = np.zeros((2, len(ids), width), np.int64)
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return tokens, mask


def load_openvino(model: Model, precision: str, settings: Settings) -> Encode:
    import threading

    import openvino

    assert model.converted is not None
    compiled = openvino.Core().compile_model(
        model.converted / "model.xml",
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": settings.get("precision", precision),  # of what is not int8
            "PERFORMANCE_HINT": "LATENCY" if settings["streams"] == 1 else "THROUGHPUT",
            "NUM_STREAMS": settings["streams"],
            "INFERENCE_NUM_THREADS": settings.get("threads", model.threads),
        },
    )
    own = threading.local()

    def infer(ids: list[list[int]]) -> Vectors:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        tokens, mask = padded(ids, settings["multiple"])
        own.request.infer({0: tokens, 1: mask}, share_inputs=True)
        return own.request.get_output_tensor().data.copy()

    return batched(model, settings, infer)


def load_onnxruntime(model: Model, precision: str, settings: Settings) -> Encode:
    import onnxruntime

    assert model.converted is not None
    options = onnxruntime.SessionOptions()
    threads = settings.get("threads", model.threads)
    options.intra_op_num_threads = max(1, threads // settings["streams"])
    session = onnxruntime.InferenceSession(
        model.converted / "model.onnx", options, providers=["CPUExecutionProvider"]
    )

    def infer(ids: list[list[int]]) -> Vectors:
        tokens, mask = padded(ids)
        return session.run(None, {"input_ids": tokens, "attention_mask": mask})[0]

    return batched(model, settings, infer)


def load_ctranslate2(model: Model, precision: str, settings: Settings) -> Encode:
    import ctranslate2

    threads = settings.get("threads", model.threads)
    encoder = ctranslate2.Encoder(
        str(model.converted),
        compute_type=precision,
        inter_threads=settings["streams"],
        intra_threads=max(1, threads // settings["streams"]),
    )

    def infer(ids: list[list[int]]) -> Vectors:
        hidden = encoder.forward_batch(ids).last_hidden_state
        states = np.asarray(hidden.to(ctranslate2.DataType.float32))
        lengths = np.array([len(sequence) for sequence in ids])
        mask = np.arange(states.shape[1]) < lengths[:, None]
        pooled = np.einsum("bsh,bs->bh", states, mask.astype(np.float32)) / lengths[:, None]
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    return batched(model, settings, infer)


# What converts a folder, once. Each is given the folder, where to write, texts, and their limit.


def _pooled_network(folder: Path, attention: str) -> tuple[Any, dict[str, Any]]:
    """The network of transformers, pooled and normalised, and inputs to trace it with."""
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(folder, attn_implementation=attention)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]
            mask = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled, dim=-1)

    ones = torch.ones(2, 8, dtype=torch.long)
    return Pooled().eval(), {"input_ids": ones, "attention_mask": ones}


def convert_openvino(folder: Path, target: Path, texts: list[str], max_length: int) -> None:
    """OpenVINO's own form of the network, in float32."""
    import openvino
    import torch

    network, inputs = _pooled_network(folder, "sdpa")
    with torch.no_grad():
        converted = openvino.convert_model(network, example_input=inputs)
    openvino.save_model(converted, target / "model.xml", compress_to_fp16=False)


def convert_openvino_int8(folder: Path, target: Path, texts: list[str], max_length: int) -> None:
    """The same with activations and weights of 8 bits, calibrated on the texts by NNCF."""
    import nncf
    import openvino
    from tokenizers import Tokenizer

    convert_openvino(folder, target, texts, max_length)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    inputs = [padded([encoding.ids]) for encoding in tokenizer.encode_batch_fast(texts)]
    quantised = nncf.quantize(
        openvino.Core().read_model(target / "model.xml"),
        nncf.Dataset([{"input_ids": ids, "attention_mask": mask} for ids, mask in inputs]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(inputs),
    )
    # Not over the file that is mapped: read_model has not copied its weights.
    openvino.save_model(quantised, target / "int8.xml", compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        (target / f"int8{suffix}").replace(target / f"model{suffix}")


def convert_onnx(folder: Path, target: Path, texts: list[str], max_length: int) -> None:
    """An ONNX graph, whose attention, GELU and norms ONNX Runtime has fused."""
    import json

    import torch
    from onnxruntime.transformers import optimizer

    network, inputs = _pooled_network(folder, "eager")
    names = {"input_ids": {0: "batch", 1: "seq"}, "attention_mask": {0: "batch", 1: "seq"}}
    plain = target / "plain.onnx"
    with torch.no_grad():
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            plain,
            input_names=list(names),
            output_names=["vectors"],
            dynamic_axes={**names, "vectors": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    config = json.loads((folder / "config.json").read_text())
    fused = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
    )
    fused.save_model_to_file(str(target / "model.onnx"))
    plain.unlink()


def convert_onnx_int8(folder: Path, target: Path, texts: list[str], max_length: int) -> None:
    """The same with weights of 8 bits, and activations that are quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    convert_onnx(folder, target, texts, max_length)
    wide = (target / "model.onnx").rename(target / "wide.onnx")
    quantize_dynamic(
        wide,
        target / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        # What the fused operations give has no type that the quantiser could look up.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    wide.unlink()


def convert_ctranslate2(folder: Path, target: Path, texts: list[str], max_length: int) -> None:
    """CTranslate2's own form of the encoder; it is quantised when it is loaded."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder)).convert(str(target), force=True)


class Contender(NamedTuple):
    """A library, a precision, and how they are loaded."""

    name: str
    library: str  # --python LIBRARY=PATH names its interpreter
    bits: int  # of the numbers that are multiplied: what it is compared with
    precision: str  # by the library's own name
    load: Load
    settings: dict[str, tuple[Any, ...]]  # of each the one to begin with, and the others
    convert: Convert | None = None
    engine: str = ""  # of minibert, what computes

    @property
    def ours(self) -> bool:
        """Whether it is minibert's."""
        return self.library == "minibert"


def _minibert(name: str, bits: int, precision: str, engine: str) -> Contender:
    return Contender(name, "minibert", bits, precision, load_minibert(engine), {}, engine=engine)


# The packages whose versions stand beside the figures of a library.
PACKAGES = {
    "minibert": ("minibert", "torch", "tokenizers"),
    "sentence-transformers": ("sentence-transformers", "transformers", "torch", "tokenizers"),
    "transformers": ("transformers", "torch", "tokenizers"),
    "openvino": ("openvino", "nncf", "tokenizers"),
    "onnxruntime": ("onnxruntime", "onnx", "tokenizers"),
    "ctranslate2": ("ctranslate2", "tokenizers"),
}

_BATCH_SIZES = {"batch_size": (32, 16, 64, 128)}
_STREAMS = {"streams": (2, 1), "budget": (512, 256, 1024, 2048)}
_OPENVINO = {**_STREAMS, "multiple": (1, 4, 16)}

CONTENDERS = (
    _minibert("minibert fp32", 32, "float32", "kernels"),
    _minibert("minibert int16", 16, "int16", "kernels"),
    _minibert("minibert int8", 8, "int8", "kernels"),
    _minibert("minibert fp32 by PyTorch", 32, "float32", "pytorch"),
    _minibert("minibert bf16 by PyTorch", 16, "bfloat16", "pytorch"),
    # As it comes, which is how most people run it.
    Contender(
        "sentence-transformers", "sentence-transformers", 32, "float32",
        load_sentence_transformers, {"batch_size": (32,)},
    ),
    Contender(
        "sentence-transformers bf16", "sentence-transformers", 16, "bfloat16",
        load_sentence_transformers, _BATCH_SIZES,
    ),
    Contender(
        "transformers", "transformers", 32, "float32", load_transformers, {"batch_size": (32,)}
    ),
    Contender(
        "transformers bf16", "transformers", 16, "bfloat16", load_transformers,
        {"batch_size": (32,)},
    ),
    Contender(
        "ONNX Runtime fp32", "onnxruntime", 32, "float32", load_onnxruntime, _STREAMS, convert_onnx
    ),
    Contender(
        "ONNX Runtime int8", "onnxruntime", 8, "int8", load_onnxruntime, _STREAMS,
        convert_onnx_int8,
    ),
    Contender(
        "OpenVINO fp32", "openvino", 32, "f32", load_openvino, _OPENVINO, convert_openvino
    ),
    Contender(
        "OpenVINO bf16", "openvino", 16, "bf16", load_openvino, _OPENVINO, convert_openvino
    ),
    Contender("OpenVINO fp16", "openvino", 16, "f16", load_openvino, _OPENVINO, convert_openvino),
    Contender(
        "OpenVINO int8", "openvino", 8, "int8", load_openvino,
        # Not f16, by which a sentence takes seconds on a CPU without units for it.
        {**_OPENVINO, "precision": ("f32", "bf16")}, convert_openvino_int8,
    ),
    Contender(
        "CTranslate2 fp32", "ctranslate2", 32, "float32", load_ctranslate2, _STREAMS,
        convert_ctranslate2,
    ),
    Contender(
        "CTranslate2 int8", "ctranslate2", 8, "int8_float32", load_ctranslate2, _STREAMS,
        convert_ctranslate2,
    ),
)  # fmt: skip


def named(name: str) -> Contender:
    """The contender of a name.

    Raises: ValueError where there is none.
    """
    for contender in CONTENDERS:
        if contender.name == name:
            return contender
    raise ValueError(f"no contender {name!r}; there are {[each.name for each in CONTENDERS]}")
