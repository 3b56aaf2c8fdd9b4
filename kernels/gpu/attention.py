"""Attention within packed sequences, without padding and without a matrix of probabilities.

A program has a block of queries of one sequence and head, and goes over the sequence's keys, block
by block; sums and context are shrunk whenever a larger score appears.  The gradient computes the
probabilities again, from the logarithm of their sum: one kernel goes over keys for the gradient of
queries, one over queries for that of keys and values, so that no two programs add to one place.

Of a sequence of n tokens, 4 n operations for each number of q and of the context, that move once,
and for those of k and v, that a second-level cache holds: below about 100 tokens the memory's rate
bounds it, above it that of matrix products; with heads of 32 or less, exponentials.  Backward 14 n,
in seven products, of which two are made a second time.

Source: Dao 2023, https://arxiv.org/abs/2307.08691; the online softmax of Milakov & Gimelshein 2018,
https://arxiv.org/abs/1805.02867.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minibert.kernels.gpu.shapes import padded, wide, wide_dtype

LARGEST_DIM = 128  # of a head: wider ones do not fit the registers of a program

# Tokens of a block: matrix units take no fewer than 16, and more than 64 would not fit the
# registers of four warps beside the scores.
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 64

# Of a tile of q, k, v or a gradient. Backward needs four, two of them twice, since the next ones
# are fetched meanwhile: with the scores, what shared memory holds on any GPU with matrix units.
_TILE_BYTES = 8192


class Blocks(NamedTuple):
    """Queries and keys of packed sequences, dealt out to programs.

    The tables, `(programs, 4)` of int32, say for each block where it begins and where its sequence
    ends, and where what it is paired with begins and ends; all counted in tokens.
    """

    queries: Tensor
    keys: Tensor
    n_queries: int  # of a block, at most
    n_keys: int


def blocks_of(lengths: Sequence[int], like: Tensor, *, asking: bool = False) -> Blocks:
    """The blocks of sequences of these lengths; to be made once for all layers, by the CPU.

    Args:
        like: heads of the dtype, width and device that will be attended, `(…, dim)`.
        asking: one query a sequence, in place of all its tokens.
    """
    keys = torch.tensor(lengths)
    queries = torch.ones_like(keys) if asking else keys
    n_queries, n_keys = (_block(int(each.max()), like) for each in (queries, keys))
    query_table = _table(queries, keys, n_queries).to(like.device)
    key_table = _table(keys, queries, n_keys).to(like.device) if asking else query_table
    return Blocks(query_table, key_table, n_queries, n_keys)


def _block(longest: int, like: Tensor) -> int:
    """How many tokens a block has, where the longest sequence has so many."""
    fitting = _TILE_BYTES // (padded(like.shape[-1]) * like.element_size())
    return max(min(padded(longest), fitting, _LARGEST_BLOCK), _SMALLEST_BLOCK)


def _table(lengths: Tensor, partners: Tensor, block: int) -> Tensor:
    """A row for each block of the sequences: its first token, their end; begin and end of the
    partner's."""
    ends, partner_ends = lengths.cumsum(0), partners.cumsum(0)
    counts = (lengths + block - 1) // block
    sequence = torch.repeat_interleave(counts)
    number = torch.arange(len(sequence)) - (counts.cumsum(0) - counts)[sequence]
    first = (ends - lengths)[sequence] + number * block
    columns = (first, ends[sequence], (partner_ends - partners)[sequence], partner_ends[sequence])
    return torch.stack(columns, dim=1).to(torch.int32)


@triton.jit
def _rows(x, rows, end, head, token_stride, head_stride, DIM: tl.constexpr, PADDED: tl.constexpr):
    """These tokens of one head, `(rows, PADDED)`; 0 beyond the sequence's end and the head's."""
    dims = tl.arange(0, PADDED)
    places = rows.to(tl.int64)[:, None] * token_stride + head * head_stride + dims[None]
    return tl.load(x + places, mask=(rows < end)[:, None] & (dims < DIM)[None], other=0.0)


@triton.jit
def _keep(x, tile, rows, end, head, heads, DIM: tl.constexpr, PADDED: tl.constexpr):
    """Put rows of one head where they belong in `(tokens, heads, DIM)`."""
    dims = tl.arange(0, PADDED)
    places = (rows.to(tl.int64)[:, None] * heads + head) * DIM + dims[None]
    tl.store(x + places, tile, mask=(rows < end)[:, None] & (dims < DIM)[None])


# Not compiled anew where a batch's number of tokens is divisible by 16, or is 1.
@triton.jit(do_not_specialize=["n_queries"])
def _forward(
    q, k, v, out, log_sums, blocks, n_queries, q_token, q_head, k_token, k_head, v_token, v_head,
    SCALE: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    block, head, heads = blocks + 4 * tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    queries, query_end = tl.load(block) + tl.arange(0, QUERIES), tl.load(block + 1)
    first_key, key_end = tl.load(block + 2), tl.load(block + 3)
    q_tile = _rows(q, queries, query_end, head, q_token, q_head, DIM, PADDED)
    largest = tl.full([QUERIES], float("-inf"), WIDE)
    total = tl.zeros([QUERIES], WIDE)
    context = tl.zeros([QUERIES, PADDED], WIDE)
    for key in range(first_key, key_end, KEYS):
        keys = key + tl.arange(0, KEYS)
        k_tile = _rows(k, keys, key_end, head, k_token, k_head, DIM, PADDED)
        v_tile = _rows(v, keys, key_end, head, v_token, v_head, DIM, PADDED)
        scores = SCALE * tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee", out_dtype=WIDE)
        scores = tl.where((keys < key_end)[None], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shrunk = tl.exp2(largest - larger)
        weights = tl.exp2(scores - larger[:, None])
        total = total * shrunk + tl.sum(weights, 1)
        context = context * shrunk[:, None] + tl.dot(
            weights.to(v_tile.dtype), v_tile, input_precision="ieee", out_dtype=WIDE
        )
        largest = larger
    _keep(out, context / total[:, None], queries, query_end, head, heads, DIM, PADDED)
    # Of base 2, as the scores are.
    places = head * n_queries + queries
    tl.store(log_sums + places, largest + tl.log2(total), mask=queries < query_end)


@triton.jit(do_not_specialize=["n_queries"])
def _backward_queries(
    gradient, q, k, v, out, log_sums, levels, q_gradient, blocks, n_queries,
    q_token, q_head, k_token, k_head, v_token, v_head,
    SCALE: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """With p the probabilities and g what arrives: ds = p (g vᵀ - level), level = Σ g · out."""
    block, head, heads = blocks + 4 * tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    queries, query_end = tl.load(block) + tl.arange(0, QUERIES), tl.load(block + 1)
    first_key, key_end = tl.load(block + 2), tl.load(block + 3)
    q_tile = _rows(q, queries, query_end, head, q_token, q_head, DIM, PADDED)
    arrived = _rows(gradient, queries, query_end, head, heads * DIM, DIM, DIM, PADDED)
    context = _rows(out, queries, query_end, head, heads * DIM, DIM, DIM, PADDED)
    level = tl.sum(arrived.to(WIDE) * context.to(WIDE), 1)
    places = head * n_queries + queries
    tl.store(levels + places, level, mask=queries < query_end)
    log_sum = tl.load(log_sums + places, mask=queries < query_end, other=0.0)
    of_q = tl.zeros([QUERIES, PADDED], WIDE)
    for key in range(first_key, key_end, KEYS):
        keys = key + tl.arange(0, KEYS)
        k_tile = _rows(k, keys, key_end, head, k_token, k_head, DIM, PADDED)
        v_tile = _rows(v, keys, key_end, head, v_token, v_head, DIM, PADDED)
        scores = SCALE * tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee", out_dtype=WIDE)
        scores = tl.where((keys < key_end)[None], scores, float("-inf"))
        p = tl.exp2(scores - log_sum[:, None])
        of_p = tl.dot(arrived, tl.trans(v_tile), input_precision="ieee", out_dtype=WIDE)
        of_scores = p * (of_p - level[:, None])
        of_q += tl.dot(of_scores.to(k_tile.dtype), k_tile, input_precision="ieee", out_dtype=WIDE)
    of_q = of_q * (SCALE * 0.6931471805599453)  # ln 2: the scores were of base 2
    _keep(q_gradient, of_q, queries, query_end, head, heads, DIM, PADDED)


@triton.jit(do_not_specialize=["n_queries"])
def _backward_keys(
    gradient, q, k, v, log_sums, levels, k_gradient, v_gradient, blocks, n_queries,
    q_token, q_head, k_token, k_head, v_token, v_head,
    SCALE: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """As `_backward_queries`, transposed: a block of keys, over all queries that see it."""
    block, head, heads = blocks + 4 * tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    keys, key_end = tl.load(block) + tl.arange(0, KEYS), tl.load(block + 1)
    first_query, query_end = tl.load(block + 2), tl.load(block + 3)
    k_tile = _rows(k, keys, key_end, head, k_token, k_head, DIM, PADDED)
    v_tile = _rows(v, keys, key_end, head, v_token, v_head, DIM, PADDED)
    of_k = tl.zeros([KEYS, PADDED], WIDE)
    of_v = tl.zeros([KEYS, PADDED], WIDE)
    for query in range(first_query, query_end, QUERIES):
        queries = query + tl.arange(0, QUERIES)
        places = head * n_queries + queries
        q_tile = _rows(q, queries, query_end, head, q_token, q_head, DIM, PADDED)
        arrived = _rows(gradient, queries, query_end, head, heads * DIM, DIM, DIM, PADDED)
        log_sum = tl.load(log_sums + places, mask=queries < query_end, other=0.0)
        level = tl.load(levels + places, mask=queries < query_end, other=0.0)
        scores = SCALE * tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee", out_dtype=WIDE)
        scores = tl.where((keys < key_end)[:, None], scores, float("-inf"))
        p = tl.exp2(scores - log_sum[None])  # 1 for queries beyond the end, where all else is 0
        of_v += tl.dot(p.to(arrived.dtype), arrived, input_precision="ieee", out_dtype=WIDE)
        of_p = tl.dot(v_tile, tl.trans(arrived), input_precision="ieee", out_dtype=WIDE)
        of_scores = p * (of_p - level[None])
        of_k += tl.dot(of_scores.to(q_tile.dtype), q_tile, input_precision="ieee", out_dtype=WIDE)
    of_k = of_k * (SCALE * 0.6931471805599453)
    _keep(k_gradient, of_k, keys, key_end, head, heads, DIM, PADDED)
    _keep(v_gradient, of_v, keys, key_end, head, heads, DIM, PADDED)


def _sizes(q: Tensor, n_queries: int, n_keys: int) -> dict[str, Any]:
    """What the kernels are compiled for."""
    dim = q.shape[2]
    return {
        "SCALE": math.log2(math.e) / math.sqrt(dim),
        "DIM": dim,
        "PADDED": max(padded(dim), 16),
        "QUERIES": n_queries,
        "KEYS": n_keys,
        "WIDE": wide(q),
        "num_stages": 2,  # what is computed with, and what is fetched
        # Products of float32 are no work for matrix units: what they gather fills the registers of
        # four warps, and is spilled.
        "num_warps": 4 if q.element_size() == 2 else 8,
    }


def _with_strides(*tensors: Tensor) -> tuple[list[Tensor], list[int]]:
    """The tensors, copied only where a head is not contiguous, and their strides but the last."""
    kept = [each if each.stride(-1) == 1 else each.contiguous() for each in tensors]
    return kept, [stride for each in kept for stride in each.stride()[:2]]


@torch.library.custom_op("minibert_gpu::attention", mutates_args=())
def attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, n_queries: int, n_keys: int
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √dim) v of packed sequences: `ops.attention`; and what the gradient needs.

    Args:
        q, k, v: `(tokens, heads, dim)` of one dtype, dim up to 128; views of one tensor are not
            copied. q may have one token a sequence.
        queries, keys, n_queries, n_keys: `blocks_of` the sequences.

    Returns: `(queries, heads, dim)`, and `(heads, queries)` logarithms, of base 2, of the sums of
        exponentials; they have no gradient.

    Raises: ValueError for wider heads.
    """
    if q.shape[2] > LARGEST_DIM:
        raise ValueError(f"got heads of {q.shape[2]}, expected at most {LARGEST_DIM}")
    (q, k, v), strides = _with_strides(q, k, v)
    out, log_sums = _results(q)
    with torch.cuda.device_of(q):
        _forward[(len(queries), q.shape[1])](
            q, k, v, out, log_sums, queries, len(q), *strides, **_sizes(q, n_queries, n_keys)
        )
    return out, log_sums


@attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, n_queries: int, n_keys: int
) -> tuple[Tensor, Tensor]:
    return _results(q)


def _results(q: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[1], q.shape[0], dtype=wide_dtype(q))


@torch.library.custom_op("minibert_gpu::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor,
    queries: Tensor, keys: Tensor, n_queries: int, n_keys: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v; the same to the last bit for the same numbers."""
    (q, k, v), strides = _with_strides(q, k, v)
    gradient, levels = gradient.contiguous(), torch.empty_like(log_sums)
    of_q, of_k, of_v = (each.new_empty(each.shape) for each in (q, k, v))
    sizes = _sizes(q, n_queries, n_keys)
    with torch.cuda.device_of(q):
        _backward_queries[(len(queries), q.shape[1])](
            gradient, q, k, v, out, log_sums, levels, of_q, queries, len(q), *strides, **sizes
        )
        _backward_keys[(len(keys), q.shape[1])](
            gradient, q, k, v, log_sums, levels, of_k, of_v, keys, len(q), *strides, **sizes
        )
    return of_q, of_k, of_v


@attention_backward.register_fake
def _(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor,
    queries: Tensor, keys: Tensor, n_queries: int, n_keys: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, queries, keys, *ctx.block_sizes = inputs
    ctx.save_for_backward(q, k, v, *output, queries, keys)


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = attention_backward(gradient, *ctx.saved_tensors, *ctx.block_sizes)
    return *gradients, None, None, None, None


attention.register_autograd(_backward, setup_context=_save)
