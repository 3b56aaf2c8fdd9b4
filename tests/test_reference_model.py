"""The network against transformers: every stage of every head, over random configurations and on
the real checkpoint; files written by either library and read by the other; tasks from text.

A stage is the output of a module that has parameters of its own: `checkpoint.disk_names` says which
module of theirs is the same.  Errors are relative to max(1, the largest value of the stage).
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from strategies import randomised, scaled_error, unchanged_random
from torch import Tensor, nn

import minibert
from minibert import BertConfig, BertModel, Tokenizer, explicit_attention, ops, set_attention
from minibert.checkpoint import Pretrained, disk_names, to_disk
from minibert.config import HIDDEN_ACTS
from minibert.layout import pack

pytestmark = pytest.mark.reference

CLASSES = (
    "BertModel",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
)
# Outputs with a value for each token; "logits" is one of them in these two classes only.
TOKENWISE = ("last_hidden_state", "prediction_logits", "start_logits", "end_logits")
TOKENWISE_LOGITS = ("BertForMaskedLM", "BertForTokenClassification")
DECODER_BIASES = ("cls.predictions.decoder.bias", "cls.predictions.bias")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CONFIGURATIONS_PER_CLASS = 26  # of 8 classes: 208 in all

_log = logging.getLogger("minibert.tests")
_worst: dict[str, float] = {}


@pytest.fixture(scope="module", autouse=True)
def _report_the_largest_errors() -> Iterator[None]:
    """Shown by `pytest --log-cli-level=INFO`."""
    yield
    for check, error in sorted(_worst.items()):
        _log.info("largest error of %s: %.2e of the stage's scale", check, error)


def ours_named(name: str) -> type[Pretrained]:
    found: type[Pretrained] = getattr(minibert, name)
    return found


@cache
def theirs_named(name: str) -> Any:
    # Here: the default suite imports this file too, in an environment without transformers.
    import transformers

    return getattr(transformers, name)


@dataclass(frozen=True)
class Case:
    """A configuration, and a batch for it."""

    config: BertConfig
    seed: int
    input_ids: Tensor
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    implementation: str  # of their attention
    explicit: bool  # whether ours takes the explicit form

    @property
    def attended(self) -> Tensor:
        mask = self.attention_mask
        return torch.ones_like(self.input_ids, dtype=torch.bool) if mask is None else mask.bool()


@st.composite
def masks(draw: st.DrawFn, batch: int, seq: int) -> Tensor | None:
    """Nothing masked, or rows padded right, padded left, or with holes; one token at least."""
    if draw(st.booleans()):
        return None
    rows = []
    for _ in range(batch):
        kind = draw(st.sampled_from(["right", "left", "holes"]))
        if kind == "holes":
            row = draw(arrays(np.int64, seq, elements=st.integers(0, 1)))
            row[draw(st.integers(0, seq - 1))] = 1
        else:
            count = draw(st.integers(1, seq))
            row = np.arange(seq) < count if kind == "right" else np.arange(seq) >= seq - count
        rows.append(row.astype(np.int64))
    return torch.from_numpy(np.stack(rows))


@st.composite
def cases(draw: st.DrawFn, narrowest: float, widest: float) -> Case:
    """Any small network with weights of this spread."""
    heads = draw(st.integers(1, 5))
    head_dim = draw(st.integers(-(-8 // heads), 13))
    batch, seq = draw(st.integers(1, 4)), draw(st.integers(1, 11))
    values: dict[str, Any] = {
        "vocab_size": draw(st.integers(1, 61)),
        "hidden_size": heads * head_dim,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 67)),
        "hidden_act": draw(st.sampled_from(HIDDEN_ACTS)),
        "max_position_embeddings": seq + draw(st.integers(0, 3)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "initializer_range": draw(st.floats(narrowest, widest)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "tie_word_embeddings": draw(st.booleans()),
        "labels": tuple(f"label {index}" for index in range(draw(st.integers(1, 5)))),
    }
    with unchanged_random():
        config = BertConfig(**values)

    def table(rows: int) -> st.SearchStrategy[Any]:
        return arrays(np.int64, (batch, seq), elements=st.integers(0, rows - 1))

    ids = draw(table(config.vocab_size))
    types = draw(st.none() | table(config.type_vocab_size))
    return Case(
        config=config,
        seed=draw(st.integers(0, 2**31)),
        input_ids=torch.from_numpy(ids),
        attention_mask=draw(masks(batch, seq)),
        token_type_ids=None if types is None else torch.from_numpy(types),
        implementation=draw(st.sampled_from(["sdpa", "eager"])),
        explicit=draw(st.booleans()),
    )


def our_model(name: str, case: Case, dtype: torch.dtype) -> Pretrained:
    """Random in every parameter: a new BERT's zero biases and unit norms would hide mistakes."""
    model = randomised(ours_named(name)(case.config).to(dtype), seed=case.seed).eval()
    if case.explicit:
        set_attention(model, explicit_attention)
    return model


def their_model(model: Pretrained, implementation: str = "sdpa") -> Any:
    """Their class with the same weights, by way of the ecosystem's names."""
    name, dtype = type(model).__name__, next(model.parameters()).dtype
    values = model.config.to_dict()
    config = theirs_named("BertConfig")(**values, attn_implementation=implementation)
    theirs = theirs_named(name)(config).to(dtype).eval()
    state = to_disk(model.state_dict())
    # One parameter of theirs when tied; else the second is not used.
    for name in DECODER_BIASES:
        for other in DECODER_BIASES:
            if name in state:
                state.setdefault(other, state[name])
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    tied = {"cls.predictions.decoder.weight"} if model.config.tie_word_embeddings else set()
    assert set(missing) <= tied
    return theirs


def same_modules(ours: nn.Module, theirs: nn.Module) -> dict[str, list[str]]:
    """Our modules with parameters of their own, and theirs that are the same.

    Tables are left out: what they give is exact, and seen in the norm behind their sum.
    """
    found = {}
    for name, module in ours.named_modules():
        has_own = any(True for _ in module.parameters(recurse=False))
        if has_own and not isinstance(module, nn.Embedding):
            their_names = disk_names(f"{name}.weight")
            found[name] = [their_name.removesuffix(".weight") for their_name in their_names]
            for their_name in found[name]:
                theirs.get_submodule(their_name)
    return found


def record(model: nn.Module, modules: Mapping[str, Sequence[str]], run: Callable[[], Any]) -> Any:
    """What `run` returns, and the output of each of `modules` of `model` meanwhile."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for module in {name for names in modules.values() for name in names}:

            def keep(_module: nn.Module, _args: Any, output: Tensor, name: str = module) -> None:
                outputs[name] = output.detach()

            handle = model.get_submodule(module).register_forward_hook(keep)
            stack.callback(handle.remove)
        with torch.no_grad():
            result = run()
    stages = {
        stage: torch.cat([outputs[name] for name in names], dim=-1)
        for stage, names in modules.items()
    }
    return result, stages


def attended_rows(values: Tensor, mask: Tensor, *, tokenwise: bool) -> Tensor:
    """`(attended tokens, …)` of what there is a value for each token, the rest as it is."""
    return values[mask] if tokenwise else values


def assert_near(check: str, got: Tensor, expected: Tensor) -> None:
    """Within the tolerance of the dtype, relative to the largest value expected."""
    assert got.shape == expected.shape, check
    assert got.dtype == expected.dtype, check
    error = scaled_error(got, expected)
    kind = f"{check.split(':')[0]}, {str(expected.dtype).removeprefix('torch.')}"
    _worst[kind] = max(_worst.get(kind, 0.0), error)
    assert error <= TOLERANCE[expected.dtype], f"{check}: error {error:.2e} of its scale"


def assert_every_stage_equal(check: str, ours: Pretrained, theirs: Any, batch: Case) -> None:
    """Every stage and every output, padded, and packed where column 0 is attended."""
    name, mask = type(ours).__name__, batch.attended
    inputs = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    if name == "BertForMultipleChoice":  # a batch of one question: its rows are the choices
        inputs = tuple(None if x is None else x[None] for x in inputs)
    modules = same_modules(ours, theirs)
    # Given by name: BertModel of theirs takes its arguments in another order in some versions.
    expected, their_stages = record(
        theirs,
        modules,
        lambda: theirs(input_ids=inputs[0], attention_mask=inputs[1], token_type_ids=inputs[2]),
    )
    own = {stage: [stage] for stage in modules}
    got, stages = record(ours, own, lambda: ours(*inputs))
    assert stages
    for stage, values in stages.items():
        tokenwise = values.ndim == 3
        rows = [attended_rows(x, mask, tokenwise=tokenwise) for x in (values, their_stages[stage])]
        assert_near(f"{check}, padded: {name} {stage}", *rows)
    for field, values in got._asdict().items():
        per_token = field in TOKENWISE or (field == "logits" and name in TOKENWISE_LOGITS)
        rows = [attended_rows(x, mask, tokenwise=per_token) for x in (values, expected[field])]
        assert_near(f"{check}, padded: {name} {field}", *rows)

    if name == "BertForMultipleChoice" or not bool(mask[:, 0].all()):
        return
    ids, layout = pack(batch.input_ids, mask)
    types = None if batch.token_type_ids is None else pack(batch.token_type_ids, mask)[0]
    packed, packed_stages = record(ours, own, lambda: ours(ids, None, types, layout=layout))
    for stage, values in packed_stages.items():
        tokenwise = their_stages[stage].ndim == 3
        rows = attended_rows(their_stages[stage], mask, tokenwise=tokenwise)
        assert_near(f"{check}, packed: {name} {stage}", values, rows)
    for field, values in packed._asdict().items():
        per_token = field in TOKENWISE or (field == "logits" and name in TOKENWISE_LOGITS)
        rows = attended_rows(expected[field], mask, tokenwise=per_token)
        assert_near(f"{check}, packed: {name} {field}", values, rows)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=CONFIGURATIONS_PER_CLASS)
@given(case=cases(0.001, 0.05))
def test_every_stage_equals_transformers_in_float32(name: str, case: Case) -> None:
    ours = our_model(name, case, torch.float32)
    theirs = their_model(ours, case.implementation)
    assert_every_stage_equal("random configurations", ours, theirs, case)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=CONFIGURATIONS_PER_CLASS)
@given(case=cases(0.02, 0.5))
def test_every_stage_equals_transformers_in_float64_at_any_range(name: str, case: Case) -> None:
    ours = our_model(name, case, torch.float64)
    theirs = their_model(ours, case.implementation)
    assert_every_stage_equal("random configurations", ours, theirs, case)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("attend", [ops.attention, explicit_attention])
def test_batch_worked_in_both_forms_equals_both_of_theirs(implementation: str, attend: Any) -> None:
    """Each of their two attentions against each of ours, with all three sorts of masks."""
    case = Case(
        config=BertConfig(
            vocab_size=23, hidden_size=24, num_attention_heads=3, num_hidden_layers=3,
            intermediate_size=37, max_position_embeddings=9, initializer_range=0.05,
        ),
        seed=5,
        input_ids=torch.arange(4 * 7).reshape(4, 7) % 23,
        attention_mask=torch.tensor(
            [[1] * 7, [1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 1]]
        ),
        token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * 4),
        implementation=implementation,
        explicit=attend is explicit_attention,
    )  # fmt: skip
    for name in CLASSES:
        ours = our_model(name, case, torch.float32)
        theirs = their_model(ours, implementation)
        assert theirs.config._attn_implementation == implementation
        assert_every_stage_equal("both forms", ours, theirs, case)
        # Without the rows that begin with padding: packed too.
        right = replace(
            case,
            input_ids=case.input_ids[:2],
            attention_mask=case.attention_mask[:2],
            token_type_ids=case.token_type_ids[:2],
        )
        assert_every_stage_equal("both forms", ours, theirs, right)


# The real checkpoint.

WORDS = [
    "the", "a", "cat", "sat", "on", "mat", "quantum", "unbelievably", "Straße", "naïve", "北京",
    "مرحبا", "1984", "3.14", "don't", ",", ".", "!", "?", "antidisestablishmentarianism", "[SEP]",
    "[MASK]", "😀", "e\u0301clair", "ﬁne",
]  # fmt: skip
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(WORDS), max_size=90).map(" ".join)


@pytest.fixture(scope="module", params=["float32", "float64"])
def real(request: pytest.FixtureRequest, minilm: Path) -> tuple[BertModel, Any]:
    """The real checkpoint, read by both libraries."""
    theirs = theirs_named("BertModel").from_pretrained(minilm, dtype=request.param)
    return BertModel.from_pretrained(minilm, dtype=request.param), theirs.eval()


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[str], list[str] | None, int]:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=4))
    if draw(st.integers(0, 5)) == 5:  # a few that fill all 512 positions
        return [" ".join([*texts, *WORDS] * 20)], None, 512
    n = len(texts)
    pairs = draw(st.none() | st.lists(TEXTS, min_size=n, max_size=n))
    return texts, pairs, draw(st.sampled_from([16, 128]))


@settings(max_examples=20)
@given(drawn=batches())
def test_every_stage_of_the_real_checkpoint_equals_transformers(
    real: tuple[BertModel, Any],
    tokenizer: Tokenizer,
    drawn: tuple[list[str], list[str] | None, int],
) -> None:
    texts, pairs, max_length = drawn
    batch = tokenizer.pad(tokenizer.encode(texts, pairs, max_length=max_length))
    ours, theirs = real
    case = Case(ours.config, 0, **batch, implementation="sdpa", explicit=False)
    assert_every_stage_equal("real checkpoint", ours, theirs, case)


def test_hidden_states_of_the_real_checkpoint_are_the_ones_transformers_returns(
    real: tuple[BertModel, Any], tokenizer: Tokenizer
) -> None:
    """Their own `output_hidden_states`, so that the hooks above are seen to hold the right ones."""
    ours, theirs = real
    batch = tokenizer.pad(tokenizer.encode(["A cat sat on the mat.", "¿Qué?", ""]))
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**batch, output_hidden_states=True)
    own = {name: [name] for name in ["embeddings", *(f"layers.{i}" for i in range(6))]}
    got, stages = record(ours, own, lambda: ours(**batch))
    assert len(expected.hidden_states) == len(stages) == 7
    for (name, values), hidden in zip(stages.items(), expected.hidden_states, strict=True):
        assert_near(f"hidden states of the real checkpoint: {name}", values[mask], hidden[mask])
    assert_near("hidden states: pooler", got.pooler_output, expected.pooler_output)


# Files of either library.


def small_case(name: str, *, tie: bool = True, seed: int = 1) -> Case:
    labels = ("yes", "no") if name == "BertForQuestionAnswering" else ("first", "second", "third")
    config = BertConfig(
        vocab_size=97, hidden_size=40, num_attention_heads=5, num_hidden_layers=2,
        intermediate_size=60, max_position_embeddings=16, initializer_range=0.05,
        hidden_act="gelu_new", layer_norm_eps=1e-7, classifier_dropout=0.3, labels=labels,
        tie_word_embeddings=tie, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.05,
    )  # fmt: skip
    return Case(
        config=config,
        seed=seed,
        input_ids=torch.arange(3 * 8).reshape(3, 8) * 5 % 97,
        attention_mask=torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] + [0] * 7]),
        token_type_ids=torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]] * 3),
        implementation="sdpa",
        explicit=False,
    )


def outputs(model: Any, case: Case) -> dict[str, Tensor]:
    """All outputs by name; ours and theirs have the same names."""
    name = type(model).__name__
    batch = {
        "input_ids": case.input_ids,
        "attention_mask": case.attention_mask,
        "token_type_ids": case.token_type_ids,
    }
    if name == "BertForMultipleChoice":
        batch = {key: values[None] for key, values in batch.items()}
    with torch.no_grad():
        out = model(**batch)
    return out._asdict() if hasattr(out, "_asdict") else dict(out.items())


def assert_identical(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(got[name], values), name


def assert_same_outputs(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Of one class with equal weights: only where these lie in memory may show, in the last bit."""
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(got[name], values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_opens_what_save_pretrained_writes(name: str, tmp_path: Path) -> None:
    case = small_case(name)
    ours = our_model(name, case, torch.float32)
    ours.save_pretrained(tmp_path)
    theirs, info = theirs_named(name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    expected = their_model(ours)
    assert_identical(theirs.state_dict(), expected.state_dict())
    assert_same_outputs(outputs(theirs, case), outputs(expected, case))
    assert_every_stage_equal("saved by us", ours, theirs.eval(), case)
    assert theirs.dtype == torch.float32
    assert tuple(theirs.config.id2label.values()) == ours.config.labels
    for key, value in ours.config.to_dict().items():
        if key not in ("id2label", "position_embedding_type", "model_type"):
            assert getattr(theirs.config, key) == value, key


# As wide as the labels are many and as the encoder is wide too, where shapes would fit by chance.
@pytest.mark.parametrize("width", [5, 3, 40])
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_transformers_says_that_it_has_no_hidden_layer_of_a_classifier(
    name: str,
    width: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It opens the encoder, leaves our classifier out, and makes one of its own: all three said."""
    case = small_case(name)
    case = replace(case, config=replace(case.config, classifier_hidden_size=width))
    ours = our_model(name, case, torch.float32)
    ours.save_pretrained(tmp_path)
    assert "for which transformers has no place" in caplog.text
    caplog.clear()
    theirs_class = theirs_named(name)
    logger = logging.getLogger("transformers")
    # Where the variable CI is set, transformers hands its lines to the root logger as well.
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    try:
        theirs, info = theirs_class.from_pretrained(tmp_path, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    own = {
        f"classifier.{part}.{kind}" for part in ("hidden", "output") for kind in ("weight", "bias")
    }
    assert info.pop("unexpected_keys") == own
    assert info.pop("missing_keys") == {"classifier.weight", "classifier.bias"}
    assert not any(info.values()), info
    (said,) = [record for record in caplog.records if "MISSING" in record.getMessage()]
    assert said.levelno >= logging.WARNING
    assert all(key in said.getMessage() for key in (*own, "classifier.weight", "UNEXPECTED"))
    assert_identical(
        {key: values for key, values in theirs.state_dict().items() if "classifier" not in key},
        {key: values for key, values in to_disk(ours.state_dict()).items() if key not in own},
    )


@pytest.mark.parametrize("name", CLASSES)
def test_from_pretrained_opens_what_transformers_saves(name: str, tmp_path: Path) -> None:
    case = small_case(name)
    ours = our_model(name, case, torch.float32)
    their_model(ours).save_pretrained(tmp_path)
    back = ours_named(name).from_pretrained(tmp_path)
    assert_identical(back.state_dict(), ours.state_dict())
    assert_same_outputs(outputs(back, case), outputs(ours, case))
    assert back.config == ours.config
    report = back.load_report
    assert report is not None
    assert (report.initialised, report.absent, dict(report.ignored)) == ((), (), {})


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForPreTraining"])
def test_untied_decoder_that_we_save_is_whole_in_transformers(name: str, tmp_path: Path) -> None:
    """Untied, their decoder has a bias of its own, and their `cls.predictions.bias` has no use."""
    case = small_case(name, tie=False)
    ours = our_model(name, case, torch.float32)
    ours.save_pretrained(tmp_path)
    theirs, info = theirs_named(name).from_pretrained(tmp_path, output_loading_info=True)
    assert info.pop("missing_keys") <= {"cls.predictions.bias"}
    assert not any(info.values()), info
    assert_every_stage_equal("saved by us, untied", ours, theirs.eval(), case)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForPreTraining"])
def test_untied_decoder_that_transformers_saves_is_whole_here(name: str, tmp_path: Path) -> None:
    case = small_case(name, tie=False)
    theirs = their_model(our_model(name, case, torch.float32))
    with torch.no_grad():
        theirs.cls.predictions.decoder.bias.copy_(torch.linspace(-1, 1, 97))
    theirs.save_pretrained(tmp_path)
    ours = ours_named(name).from_pretrained(tmp_path)
    assert_every_stage_equal("saved by transformers, untied", ours, theirs, case)


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
def test_from_pretrained_opens_shards_of_transformers(name: str, tmp_path: Path) -> None:
    case = small_case(name)
    ours = our_model(name, case, torch.float32)
    their_model(ours).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) >= 3
    assert not (tmp_path / "model.safetensors").exists()
    back = ours_named(name).from_pretrained(tmp_path)
    assert_identical(back.state_dict(), ours.state_dict())
    assert_same_outputs(outputs(back, case), outputs(ours, case))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM"])
def test_from_pretrained_opens_other_dtypes_of_transformers(
    name: str, dtype: str, tmp_path: Path
) -> None:
    case = small_case(name)
    theirs = their_model(our_model(name, case, torch.float64)).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    kept = ours_named(name).from_pretrained(tmp_path, dtype=dtype)
    state = theirs.state_dict()
    for key, tensor in to_disk(kept.state_dict()).items():
        assert tensor.dtype == getattr(torch, dtype)
        assert torch.equal(tensor, state[key]), key
    # Asked for nothing, ours computes in float32; theirs does when told to.
    ours = ours_named(name).from_pretrained(tmp_path)
    wide = theirs_named(name).from_pretrained(tmp_path, dtype="float32").eval()
    assert_every_stage_equal("other dtypes", ours, wide, case)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_transformers_opens_other_dtypes_of_ours(dtype: str, tmp_path: Path) -> None:
    case = small_case("BertForSequenceClassification")
    ours = our_model("BertForSequenceClassification", case, getattr(torch, dtype))
    ours.save_pretrained(tmp_path)
    theirs = theirs_named("BertForSequenceClassification").from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == getattr(torch, dtype)
    assert_identical(
        {key: theirs.state_dict()[key] for key in to_disk(ours.state_dict())},
        to_disk(ours.state_dict()),
    )


# Tasks from text, on the encoder of the real checkpoint under a random head that transformers
# saved, each library with its own tokenizer.


@pytest.fixture(scope="module")
def head_folder(minilm: Path) -> Iterator[Callable[..., Path]]:
    """Makes a folder with a head over the real encoder, written by transformers alone."""
    with tempfile.TemporaryDirectory() as place:

        def make(name: str, **settings_: Any) -> Path:
            folder = Path(place) / name
            if not folder.exists():
                with torch.random.fork_rng():
                    torch.manual_seed(7)
                    # A wide range, for logits that differ by much more than the tolerance.
                    model = theirs_named(name).from_pretrained(
                        minilm, initializer_range=0.2, **settings_
                    )
                model.save_pretrained(folder)
                theirs_named("AutoTokenizer").from_pretrained(minilm).save_pretrained(folder)
            return folder

        yield make


def load_both(name: str, folder: Path) -> tuple[Any, Tokenizer, Any, Any]:
    ours = ours_named(name).from_pretrained(folder)
    report = ours.load_report
    assert report is not None
    assert report.initialised == ()
    theirs = theirs_named(name).from_pretrained(folder).eval()
    their_tokenizer = theirs_named("AutoTokenizer").from_pretrained(folder)
    return ours, Tokenizer.from_pretrained(folder), theirs, their_tokenizer


QUESTIONS = (
    ("Where does the cat sleep?", "My cat sleeps in a cardboard box beside the warm oven."),
    (
        "Wer schrieb den Brief?",
        "Im Jahr 1905 schrieb Jürgen einen Brief an Zoë, die damals in Łódź lebte.",
    ),
    ("什么时候开门?", "博物馆每天上午九点开门,星期一休息。"),
    ("How tall is it?", "It is 324 m (1,063 ft) tall — about as high as an 81-storey building."),
    ("Who?", "Nobody 😀 knows. " * 30),
)


def best_span(start: Tensor, end: Tensor, allowed: Sequence[bool]) -> tuple[int, int, float]:
    """The best-scored start ≤ end within the context, at most 15 tokens long."""
    places = [index for index, inside in enumerate(allowed) if inside]
    spans = [(i, j) for i in places for j in places if i <= j < i + 15]
    scores = [float(start[i] + end[j]) for i, j in spans]
    best = max(range(len(spans)), key=scores.__getitem__)
    return *spans[best], scores[best]


def test_question_answering_finds_the_span_that_transformers_finds(
    head_folder: Callable[..., Path],
) -> None:
    name = "BertForQuestionAnswering"
    ours, tokenizer, theirs, their_tokenizer = load_both(name, head_folder(name))
    for question, context in QUESTIONS:
        theirs_in = their_tokenizer(
            question, context, return_offsets_mapping=True, return_tensors="pt"
        )
        their_offsets = theirs_in.pop("offset_mapping")[0].tolist()
        allowed = [number == 1 for number in theirs_in.sequence_ids(0)]
        with torch.no_grad():
            expected = theirs(**theirs_in)
        i, j, their_score = best_span(expected.start_logits[0], expected.end_logits[0], allowed)
        their_answer = context[their_offsets[i][0] : their_offsets[j][1]]

        (encoding,) = tokenizer.encode([question], [context], offsets=True)
        with torch.no_grad():
            got = ours(**tokenizer.pad([encoding]))
        allowed = [number == 1 for number in encoding.sequence_ids]
        first, last, score = best_span(got.start_logits[0], got.end_logits[0], allowed)
        answer = context[encoding.offsets[first][0] : encoding.offsets[last][1]]
        assert (first, last, answer) == (i, j, their_answer)
        assert answer
        assert score == pytest.approx(their_score, abs=1e-4)
        assert_near("tasks: question answering", got.start_logits, expected.start_logits)
        assert_near("tasks: question answering", got.end_logits, expected.end_logits)


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is [MASK].",
        "[MASK]",
        "Das [MASK] ist größer als die Straße, n'est-ce pas?",
        "北京是[MASK]国的首都 😀",
        "She could not " + "very " * 200 + "[MASK] it.",
    ],
)
def test_fill_mask_gives_the_words_and_scores_of_transformers(
    text: str, head_folder: Callable[..., Path]
) -> None:
    name = "BertForMaskedLM"
    ours, tokenizer, theirs, their_tokenizer = load_both(name, head_folder(name))
    pipeline = theirs_named("pipeline")("fill-mask", model=theirs, tokenizer=their_tokenizer)
    expected = pipeline(text, top_k=5)
    batch = tokenizer.pad(tokenizer.encode([text]))
    with torch.no_grad():
        logits = ours(**batch).logits[batch["input_ids"] == tokenizer.mask_id]
    scores, ids = logits.softmax(dim=-1)[0].topk(5)
    assert ids.tolist() == [guess["token"] for guess in expected]
    words = [tokenizer.decode([token]) for token in ids.tolist()]
    assert words == [guess["token_str"] for guess in expected]
    assert scores.tolist() == pytest.approx([guess["score"] for guess in expected], rel=1e-4)


def test_next_sentence_of_pairs_equals_transformers(head_folder: Callable[..., Path]) -> None:
    name = "BertForNextSentencePrediction"
    ours, tokenizer, theirs, their_tokenizer = load_both(name, head_folder(name))
    first, second = (list(column) for column in zip(*QUESTIONS, strict=True))
    theirs_in = their_tokenizer(first, second, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**theirs_in).logits
        got = ours(**tokenizer.pad(tokenizer.encode(first, second))).logits
    assert expected.shape == (len(QUESTIONS), 2)
    assert_near("tasks: next sentence", got, expected)
    assert got.argmax(dim=1).tolist() == expected.argmax(dim=1).tolist()


def test_multiple_choice_takes_the_choice_of_transformers(
    head_folder: Callable[..., Path],
) -> None:
    name = "BertForMultipleChoice"
    ours, tokenizer, theirs, their_tokenizer = load_both(name, head_folder(name))
    prompt = "In Italy, pizza served in formal settings is presented unsliced."
    choices = [
        "It is eaten with a fork.",
        "It is eaten in the hand.",
        "",
        "Nobody eats 披萨 there!",
    ]
    prompts = [prompt] * len(choices)
    theirs_in = their_tokenizer(prompts, choices, padding=True, return_tensors="pt")
    batch = tokenizer.pad(tokenizer.encode(prompts, choices))
    with torch.no_grad():
        expected = theirs(**{key: values[None] for key, values in theirs_in.items()}).logits
        got = ours(**{key: values[None] for key, values in batch.items()}).logits
    assert expected.shape == (1, len(choices))
    assert_near("tasks: multiple choice", got, expected)
    assert int(got.argmax()) == int(expected.argmax())


@pytest.mark.parametrize("text", [text for pair in QUESTIONS for text in pair] + [""])
def test_sequence_classification_labels_as_transformers(
    text: str, head_folder: Callable[..., Path]
) -> None:
    name = "BertForSequenceClassification"
    labels = {0: "bad", 1: "so-so", 2: "good", 3: "größer"}
    folder = head_folder(name, id2label=labels, label2id={v: k for k, v in labels.items()})
    ours, tokenizer, theirs, their_tokenizer = load_both(name, folder)
    pipeline = theirs_named("pipeline")(
        "text-classification", model=theirs, tokenizer=their_tokenizer, top_k=None
    )
    expected = {guess["label"]: guess["score"] for guess in pipeline([text])[0]}
    with torch.no_grad():
        logits = ours(**tokenizer.pad(tokenizer.encode([text]))).logits
    scores = dict(zip(ours.config.labels, logits.softmax(dim=-1)[0].tolist(), strict=True))
    assert scores == pytest.approx(expected, rel=1e-4)
    assert max(scores, key=scores.__getitem__) == max(expected, key=expected.__getitem__)


@pytest.mark.parametrize("text", [text for pair in QUESTIONS for text in pair])
def test_token_classification_labels_as_transformers(
    text: str, head_folder: Callable[..., Path]
) -> None:
    name = "BertForTokenClassification"
    labels = dict(enumerate(["PER", "LOC", "ORG", "MISC", "OTHER"]))
    folder = head_folder(name, id2label=labels, label2id={v: k for k, v in labels.items()})
    ours, tokenizer, theirs, their_tokenizer = load_both(name, folder)
    pipeline = theirs_named("pipeline")(
        "token-classification", model=theirs, tokenizer=their_tokenizer
    )
    # Not its "word": there it puts what stands in the text for [UNK].
    tags = pipeline(text)
    expected = [(tag["index"], tag["start"], tag["end"], tag["entity"]) for tag in tags]
    (encoding,) = tokenizer.encode([text], offsets=True)
    with torch.no_grad():
        scores = ours(**tokenizer.pad([encoding])).logits[0].softmax(dim=-1)
    places = [place for place, number in enumerate(encoding.sequence_ids) if number is not None]
    best, labels_at = scores[places].max(dim=-1)
    names = [ours.config.labels[label] for label in labels_at.tolist()]
    spans = [encoding.offsets[place] for place in places]
    got = [(place, *span, name) for place, span, name in zip(places, spans, names, strict=True)]
    assert got == expected
    assert best.tolist() == pytest.approx([float(tag["score"]) for tag in tags], rel=1e-4)
    assert got


def test_config_json_of_transformers_and_ours_say_the_same(tmp_path: Path) -> None:
    """What both write for one network: no key of ours contradicts theirs."""
    case = small_case("BertForTokenClassification")
    ours = our_model("BertForTokenClassification", case, torch.float32)
    ours.save_pretrained(tmp_path / "ours")
    their_model(ours).save_pretrained(tmp_path / "theirs")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    expected = json.loads((tmp_path / "theirs" / "config.json").read_text())
    both = written.keys() & expected.keys()
    assert {"hidden_size", "hidden_act", "id2label", "architectures", "dtype"} <= both
    assert {key: written[key] for key in both} == {key: expected[key] for key in both}
