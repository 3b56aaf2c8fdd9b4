"""The kernels on a real GPU, at the sizes of real networks: no further from float64 than PyTorch.

    pytest -m gpu

Each error is judged beside that of the twin in the same dtype on the same GPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gpu import DEVICE
from strategies import randomised
from torch import Tensor

from minibert import Embedder, ops, pooling
from minibert.config import BertConfig
from minibert.gpu_engine import GpuEngine
from minibert.kernels.gpu import attention, gelu, norm
from minibert.kernels.gpu.adamw import adamw_
from minibert.kernels.gpu.attention import blocks_of
from minibert.kernels.gpu.pool import pool
from minibert.layout import Packed
from minibert.model import BertModel
from minibert.training.optim import AdamW, ParameterGroup

pytestmark = pytest.mark.gpu

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)
# Real sentences, and texts as long as a network takes them.
LENGTHS = [*range(3, 60, 2), 64, 65, 127, 128, 200, 511, 512, 1]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype).requires_grad_()


def judge(
    kernel: Callable[..., Tensor], twin: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> None:
    """Result and gradients err at most twice as far as the twin's, and are the same each time."""
    wide = [each.detach().double().requires_grad_() for each in inputs]
    exact = twin(*wide)
    weights = torch.randn_like(exact)
    runs = []
    for function, arguments in ((kernel, inputs), (kernel, inputs), (twin, inputs), (twin, wide)):
        out = function(*arguments)
        runs.append([out, *torch.autograd.grad(out, arguments, weights.to(out))])
    for got, again, plain, expected in zip(*runs, strict=True):
        assert got.equal(again)
        scale = expected.abs().max()
        room = 2 * (plain.double() - expected).abs().max() + torch.finfo(got.dtype).eps * scale
        assert (got.double() - expected).abs().max() <= room


@DTYPES
@pytest.mark.parametrize(("heads", "dim"), [(12, 32), (12, 64), (2, 128), (3, 48), (1, 24)])
def test_attention(dtype: torch.dtype, heads: int, dim: int) -> None:
    qkv = numbers(sum(LENGTHS), 3, heads, dim, dtype=dtype)
    blocks, layout = blocks_of(LENGTHS, qkv), Packed.from_lengths(LENGTHS, DEVICE)
    judge(
        lambda qkv: attention.attention(*qkv.unbind(1), *blocks)[0],
        lambda qkv: ops.attention(*qkv.unbind(1), layout),
        [qkv],
    )


@DTYPES
def test_attention_of_first_tokens(dtype: torch.dtype) -> None:
    q = numbers(len(LENGTHS), 12, 64, dtype=dtype)
    kv = numbers(sum(LENGTHS), 2, 12, 64, dtype=dtype)
    blocks = blocks_of(LENGTHS, q, asking=True)
    layout = Packed.from_lengths(LENGTHS, DEVICE)
    judge(
        lambda q, kv: attention.attention(q, *kv.unbind(1), *blocks)[0],
        lambda q, kv: ops.attention(q, *kv.unbind(1), layout),
        [q, kv],
    )


@DTYPES
@pytest.mark.parametrize("width", [384, 768, 1000, 1024])
def test_a_norm_of_two_terms(dtype: torch.dtype, width: int) -> None:
    judge(
        lambda x, y, weight, bias: norm.add_norm(x, y, weight, bias, 1e-12)[0],
        lambda x, y, weight, bias: ops.add_norm((x, y), weight, bias, 1e-12),
        [*(numbers(4097, width, dtype=dtype) for _ in range(2)),
         *(numbers(width, dtype=dtype) for _ in range(2))],
    )  # fmt: skip


@DTYPES
def test_embeddings(dtype: torch.dtype) -> None:
    sizes = (30522, 2, 512)
    rows = [torch.randint(size, (4097,), device=DEVICE) for size in sizes]
    judge(
        lambda *tables: norm.embed_norm(*rows, *tables, 1e-12)[0],
        lambda *tables: ops.add_norm(
            [F.embedding(row, table) for row, table in zip(rows, tables[:3], strict=True)],
            *tables[3:],
            1e-12,
        ),
        [*(numbers(size, 384, dtype=dtype) for size in sizes),
         *(numbers(384, dtype=dtype) for _ in range(2))],
    )  # fmt: skip


@DTYPES
@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
def test_gelu(dtype: torch.dtype, name: str) -> None:
    judge(
        lambda x, bias: gelu.bias_gelu(x, bias, name != "gelu"),
        lambda x, bias: ops.bias_gelu(x, bias, name),
        [numbers(4097, 1536, dtype=dtype), numbers(1536, dtype=dtype)],
    )


@DTYPES
def test_pooling(dtype: torch.dtype) -> None:
    hidden = numbers(sum(LENGTHS), 768, dtype=dtype).detach()
    layout = Packed.from_lengths(LENGTHS, DEVICE)
    skips = torch.zeros(len(LENGTHS), dtype=torch.int32, device=DEVICE)
    got = pool(hidden, layout.cu_seqlens, skips, True, pooling.NORM_EPS)
    expected = pooling.normalise(pooling.pool(hidden.double(), layout))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)


@DTYPES
def test_adamw(dtype: torch.dtype) -> None:
    value, gradient = (numbers(1000, 999, dtype=dtype).detach() for _ in range(2))
    parameter = torch.nn.Parameter(value.clone())
    parameter.grad = gradient
    AdamW([ParameterGroup(("p",), (parameter,), 1e-2, 0.1)]).step()
    moments = [torch.zeros(1000, 999, device=DEVICE) for _ in range(2)]
    adamw_([value], [gradient], *([each] for each in moments), 1, 1e-2, 0.9, 0.999, 1e-8, 0.1, True)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(value, parameter.detach(), rtol=2 * eps, atol=1e-6)


@DTYPES
def test_a_network_embeds(dtype: torch.dtype) -> None:
    config = BertConfig(num_hidden_layers=4, hidden_size=384, intermediate_size=1536)
    model = randomised(BertModel(config)).to(DEVICE, dtype).eval()
    ids = np.random.default_rng(0).integers(0, config.vocab_size, sum(LENGTHS), dtype=np.int32)
    lengths = np.array(LENGTHS, dtype=np.int32)
    layout = Packed.from_lengths(LENGTHS, DEVICE)

    def plain() -> Tensor:
        hidden = model(torch.from_numpy(ids).to(DEVICE), layout=layout).last_hidden_state
        return pooling.pool(hidden, layout).cpu()

    with torch.no_grad():
        got, twin = GpuEngine(model).mean(ids, lengths, None), plain()
        model.double()
        exact = plain()
    error = (got - exact).abs().max()
    assert error <= 2 * (twin - exact).abs().max() + 1e-6


def test_operations_are_compiled_among_others() -> None:
    def network(qkv: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context, _ = attention.attention(*qkv.unbind(1), *blocks)
        wide = gelu.bias_gelu(context.flatten(1) * 2, bias, False)
        return norm.add_norm(wide + 1, qkv[:, 0].flatten(1), weight, bias, 1e-12)[0].sin()

    inputs = [numbers(sum(LENGTHS), 3, 12, 64, dtype=torch.float32)]
    inputs += [numbers(768, dtype=torch.float32) for _ in range(2)]
    blocks = blocks_of(LENGTHS, inputs[0])
    runs = []
    for function in (network, torch.compile(network, fullgraph=True)):
        out = function(*inputs)
        runs.append([out, *torch.autograd.grad(out.sum(), inputs)])
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-4, atol=1e-4)


def test_an_embedder_says_that_it_runs_on_the_gpu() -> None:
    fast = Embedder.from_pretrained("all-MiniLM-L6-v2", device="cuda", engine="kernels")
    plain = Embedder.from_pretrained("all-MiniLM-L6-v2", engine="pytorch")
    texts = ["cats purr", "many words " * 100]
    assert np.abs(fast.encode(texts) - plain.encode(texts)).max() < 1e-5
    assert fast.computes == f"float32 by kernels for {torch.cuda.get_device_name()}"
