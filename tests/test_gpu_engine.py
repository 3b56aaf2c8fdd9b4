"""Whole networks on the kernels for GPUs: forward, backward, and embedding by them."""

import copy
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gpu import DEVICE, mend_interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Batch, batches, configs, networks, randomised, scaled_error
from torch import Tensor, nn

from minibert import Embedder, engine_choice
from minibert.config import BertConfig
from minibert.engine_choice import TOKENS_TO_COMPILE, TOKENS_TO_LOAD, Engines
from minibert.errors import EngineError
from minibert.gpu_engine import GpuEngine, fuse
from minibert.heads import BertForSequenceClassification
from minibert.kernels.build import KernelsUnavailableError
from minibert.kernels.gpu import gelu
from minibert.layout import Packed, pack
from minibert.model import BertModel, explicit_attention, set_attention
from minibert.quantise import quantise
from minibert.training.optim import parameter_groups

mend_interpreter()

FEW = settings(max_examples=6)
TEXTS = ["cats purr", "dogs bark, and loudly"]


def network(dtype: torch.dtype = torch.float32, **values: object) -> BertModel:
    """A small random one."""
    sizes = {
        "vocab_size": 30, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 40, "max_position_embeddings": 40, "initializer_range": 0.2,
    }  # fmt: skip
    config = BertConfig(**{**sizes, **values})
    return randomised(BertModel(config)).to(DEVICE, dtype).eval()


def fused(model: nn.Module) -> nn.Module:
    """A copy, on the kernels."""
    copied = copy.deepcopy(model)
    fuse(copied)
    return copied


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter that has one."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: each for n, each in zip(names, found, strict=True) if each is not None}


@FEW
@given(drawn=networks(), weights=st.integers(0, 2**16))
def test_a_packed_network_gives_what_pytorch_gives(
    drawn: tuple[BertModel, Batch], weights: int
) -> None:
    """In float64: every hidden state, and the gradient of every parameter."""
    plain, batch = drawn
    plain = plain.double().to(DEVICE)
    ids, layout = pack(batch.input_ids.to(DEVICE), batch.mask.to(DEVICE))
    types, _ = pack(batch.token_type_ids.to(DEVICE), batch.mask.to(DEVICE))
    network = fused(plain)
    losses = []
    for model in (plain, network):
        hidden, pooled = model(ids, token_type_ids=types, layout=layout)
        torch.manual_seed(weights)
        losses.append((hidden * torch.randn_like(hidden)).sum() + (pooled**3).sum())
        if model is plain:
            expected = hidden
    assert scaled_error(hidden, expected) < 1e-12
    got, twins = gradients(network, losses[1]), gradients(plain, losses[0])
    assert got.keys() == twins.keys() == dict(plain.named_parameters()).keys()
    for name, gradient in got.items():
        assert scaled_error(gradient, twins[name]) < 1e-11, name


@FEW
@given(data=st.data())
def test_a_padded_network_gives_what_pytorch_gives(data: st.DataObject) -> None:
    config = data.draw(configs())
    batch = Batch(*(each.to(DEVICE) for each in data.draw(batches(config, "first"))))
    plain = randomised(BertModel(config)).double().eval().to(DEVICE)
    expected = plain(*batch).last_hidden_state
    assert scaled_error(fused(plain)(*batch).last_hidden_state, expected) < 1e-12


def test_a_network_keeps_its_names_and_what_is_not_decayed() -> None:
    plain = network()
    made = fused(plain)
    assert list(made.state_dict()) == list(plain.state_dict())
    named = [
        [group.names for group in parameter_groups(m, learning_rate=1.0)] for m in (plain, made)
    ]
    assert named[0] == named[1]


def test_a_classifier_learns_on_the_kernels_under_autocast() -> None:
    """As in training: dropout of hidden states, bfloat16, an update that takes the loss down."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=48, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=40, max_position_embeddings=40, attention_probs_dropout_prob=0.0,
        labels=("no", "yes"),
    )  # fmt: skip
    model = BertForSequenceClassification(config).to(DEVICE).train()
    fuse(model)
    layout = Packed.from_lengths([4, 9, 3], DEVICE)
    ids, labels = torch.arange(16, device=DEVICE), torch.tensor([0, 1, 1], device=DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            logits = model(ids, layout=layout).logits
        losses.append(torch.nn.functional.cross_entropy(logits.float(), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_dropout_of_attention_is_left_to_pytorch() -> None:
    model = network(attention_probs_dropout_prob=0.5).train()
    fuse(model)
    ids, layout = torch.arange(9, device=DEVICE), Packed.from_lengths([4, 5], DEVICE)
    first, second = (model(ids, layout=layout).last_hidden_state for _ in range(2))
    assert not first.equal(second)


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({"hidden_act": "silu"}, lambda model: model),
        ({"num_attention_heads": 1, "hidden_size": 136}, lambda model: model),
        ({}, lambda model: quantise(model, "int8")),
    ],
    ids=["activation", "wide heads", "integers"],
)
def test_what_the_kernels_lack_is_left_to_pytorch(
    values: dict[str, object], change: Callable[[BertModel], BertModel]
) -> None:
    model = change(network(**values))
    ids, layout = torch.arange(9, device=DEVICE), Packed.from_lengths([4, 5], DEVICE)
    with torch.no_grad():
        expected = model(ids, layout=layout).last_hidden_state
        got = fused(model)(ids, layout=layout).last_hidden_state
    assert scaled_error(got, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_engine_gives_what_pytorch_gives(dtype: torch.dtype) -> None:
    model = network(dtype)
    lengths = np.array([5, 1, 20], dtype=np.int32)
    ids = np.arange(26, dtype=np.int32)
    engine, layout = GpuEngine(model), Packed.from_lengths(lengths.tolist())
    with torch.no_grad():
        exact = model.cpu().double()(torch.from_numpy(ids), layout=layout).last_hidden_state
    model.to(DEVICE, dtype)
    # Of half precision as many roundings as there are operations, of numbers up to 4.
    room = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    hidden = engine.hidden(ids, lengths)
    assert (hidden.dtype, hidden.device.type) == (dtype, "cpu")
    assert scaled_error(hidden.double(), exact) < room
    skips = np.array([2, 0, 19], dtype=np.int32)
    means = engine.mean(ids, lengths, skips)
    pieces = zip(exact.split(lengths.tolist()), skips.tolist(), strict=True)
    expected = torch.stack([piece[skip:].mean(0) for piece, skip in pieces])
    assert (means.dtype, means.device.type) == (torch.float32, "cpu")
    assert scaled_error(means.double(), expected) < room


def test_an_engine_shares_the_weights_and_knows_when_they_are_others() -> None:
    model, one = network(), np.ones(1, dtype=np.int32)
    engine = GpuEngine(model)
    before = engine.hidden(one, one)
    with torch.no_grad():
        model.layers[0].feed_forward.up.bias.add_(1)
    assert engine.is_of(model)
    assert not engine.hidden(one, one).equal(before)
    assert type(model.layers[0].feed_forward).__name__ == "FeedForward"  # it was left alone
    assert not engine.is_of(model.double())
    assert not GpuEngine(network()).is_of(network())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model.double(), "a form for float64"),
        (lambda model: model.embeddings.bfloat16(), "a form for bfloat16, float32"),
        (lambda model: quantise(model, "int8"), "a form for integers"),
        (lambda model: set_attention(model, explicit_attention), "an attention of one's own"),
        (lambda model: model.layers[1].register_forward_hook(print), "hooks"),
    ],
)
def test_what_the_kernels_lack_is_said(change: Callable[[BertModel], object], told: str) -> None:
    model = network()
    changed = change(model)
    with pytest.raises(KernelsUnavailableError, match=f"for GPUs do not have {told}"):
        GpuEngine(changed if isinstance(changed, BertModel) else model)


def test_wide_heads_are_left_to_pytorch() -> None:
    config = BertConfig(hidden_size=144, num_attention_heads=1, num_hidden_layers=1, vocab_size=9)
    with pytest.raises(KernelsUnavailableError, match="heads of 144, only to 128"):
        GpuEngine(BertModel(config).to(DEVICE))


def test_what_triton_cannot_compile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setattr(gelu, "bias_gelu", fail)
    with pytest.raises(KernelsUnavailableError, match=r"compute here: Failed to find C compiler$"):
        GpuEngine(network())


def test_what_does_not_fit_reaches_no_kernel() -> None:
    ids, lengths = np.array([3, 30], dtype=np.int32), np.array([2], dtype=np.int32)
    with pytest.raises(ValueError, match="ids outside of 0 to 29"):
        GpuEngine(network()).hidden(ids, lengths)


# ---- which computes


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are taken for such on a GPU, and Triton's interpreter for one."""
    monkeypatch.setattr(engine_choice, "_is_on_gpu", lambda model: True)


def embedder(**options: object) -> Embedder:
    return Embedder.from_pretrained("all-MiniLM-L6-v2", **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_gpu")
def test_an_embedder_runs_on_the_kernels() -> None:
    plain = embedder(engine="pytorch", device=DEVICE.type)
    fast = Embedder(plain.model, plain.tokenizer, plain.recipe, engine="kernels")
    got = fast.encode(TEXTS, prompt="query: ")
    assert np.abs(got - plain.encode(TEXTS, prompt="query: ")).max() < 1e-6
    place = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "Triton's interpreter"
    assert fast.computes == f"float32 by kernels for {place}"


@pytest.mark.usefixtures("on_gpu")
def test_auto_waits_for_a_job_that_is_worth_compiling_for() -> None:
    engines = Engines(network(), "auto", reproducible=False)
    assert engines.for_tokens(TOKENS_TO_LOAD) is None
    assert "kernels for GPUs are compiled where there is more to do" in engines.description
    made = engines.for_tokens(TOKENS_TO_COMPILE)
    assert isinstance(made, GpuEngine)
    assert engines.for_tokens(1) is made


@pytest.mark.usefixtures("on_gpu")
def test_reproducible_vectors_are_left_to_pytorch() -> None:
    engines = Engines(network(), "auto", reproducible=True)
    assert engines.for_tokens(TOKENS_TO_COMPILE) is None
    assert "on a GPU a text's last bits hang on what is embedded with it" in engines.description
    with pytest.raises(EngineError, match="last bits"):
        Engines(network(), "kernels", reproducible=True).for_tokens(1)


@pytest.mark.usefixtures("on_gpu")
def test_without_triton_pytorch_computes_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "minibert.gpu_engine")
    for name in [name for name in sys.modules if name.startswith("minibert.kernels.gpu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    engines = Engines(network(), "auto", reproducible=False)
    assert engines.for_tokens(TOKENS_TO_COMPILE) is None
    told = "float32 by PyTorch (triton is not installed: pip install 'minibert[gpu]')"
    assert engines.description == told


def test_embedding_imports_no_triton() -> None:
    code = "import sys, minibert.embed, minibert.engine, minibert.kernels.gpu; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minibert.kernels.gpu" in done.stdout.split()
    assert "triton" not in done.stdout.split()
