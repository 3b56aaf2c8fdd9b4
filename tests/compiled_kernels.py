"""Compiles every kernel for GPUs, which takes none; prints name, dtype and bytes of shared memory.

    python tests/compiled_kernels.py COMPUTE_CAPABILITY

A process of its own: Triton either compiles or interprets.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from minibert.kernels.gpu import adamw, attention, gelu, norm, pool

INTEGERS = {
    "n_queries", "q_token", "q_head", "k_token", "k_head", "v_token", "v_head", "n_rows",
    "part_rows", "width", "n_elements",
}  # fmt: skip
FLOATS = {
    "decay", "step_size", "mean_share", "square_kept", "square_share", "root_divisor", "eps",
}  # fmt: skip
POINTERS = {
    **dict.fromkeys(("blocks", "starts", "skips"), "*i32"),
    **dict.fromkeys(("ids", "types", "positions"), "*i64"),
    **dict.fromkeys(("log_sums", "levels", "inverses", "squares", "means"), "*fp32"),
    **dict.fromkeys(("weight_parts", "bias_parts"), "*fp32"),
}


def compiled(kernel: Any, dtype: str, capability: int, sizes: Mapping[str, Any]) -> int:
    """The bytes of shared memory that a kernel takes."""

    def kind(name: str) -> str:
        if name in sizes:
            return "constexpr"
        if name in INTEGERS:
            return "i32"
        return "fp32" if name in FLOATS else POINTERS.get(name, f"*{dtype}")

    signature = {name: kind(name) for name in kernel.arg_names}
    constants = {
        (kernel.arg_names.index(name),): value for name, value in sizes.items() if name in signature
    }
    options = {name: sizes[name] for name in ("num_warps", "num_stages") if name in sizes}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return made.metadata.shared


def main() -> None:
    rows = {"WIDE": tl.float32, "ROWS": 2, "PADDED": 1024, "WIDTH": 768, "EPS": 1e-12}
    columns = {"WIDE": tl.float32, "ROWS": 16, "COLUMNS": 128}
    pooled = {**rows, "NORMALISED": True, "SMALLEST": 1e-12}
    kernels = [
        (norm._add_norm, rows), (norm._add_norm_backward, rows), (norm._embed_norm, rows),
        (gelu._gelu, {**columns, "TANH": True}), (gelu._gelu, {**columns, "TANH": False}),
        (gelu._gelu_backward, {**columns, "TANH": True}),
        (gelu._gelu_backward, {**columns, "TANH": False}),
        (pool._pool, pooled), (adamw._adamw, {"BLOCK": 2048}),
    ]  # fmt: skip
    for kernel, sizes in kernels:
        report(kernel, "bf16", sizes)
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        for dim in (32, 64, 128):
            heads = torch.empty(1, 1, dim, dtype=dtype)
            blocks = attention.blocks_of([512], heads)
            sizes = attention._sizes(heads, blocks.n_queries, blocks.n_keys)
            report(attention._forward, name, sizes)
            report(attention._backward_queries, name, sizes)
            report(attention._backward_keys, name, sizes)


def report(kernel: Any, dtype: str, sizes: Mapping[str, Any]) -> None:
    print(kernel.__name__, dtype, compiled(kernel, dtype, int(sys.argv[1]), sizes))


main()
