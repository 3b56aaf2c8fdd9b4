"""A text traced: its figures, the table in the terminal, the page, and every refusal."""

import base64
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies import randomised

import minibert
from minibert import BertConfig, BertModel, Tokenizer, cli, pages
from minibert.errors import ParityError, TextError, TokenizerError
from minibert.parity.trace_page import STAGES, facts, looks_of, packed, page, write_trace_page
from minibert.parity.traced_text import TracedText, summaries, trace_text

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
CONFIG = BertConfig(
    vocab_size=len(VOCAB),
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=24,
    max_position_embeddings=16,
)
HOSTILE = "</script><img src=x onerror=alert(1)> {{ 7*7 }} 🦄 שלום"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model and its tokenizer."""
    place = tmp_path_factory.mktemp("tiny")
    randomised(BertModel(CONFIG), seed=1).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> BertModel:
    return BertModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def traced(model: BertModel, tokenizer: Tokenizer) -> TracedText:
    return trace_text(model, tokenizer, "a cab", "b")


def data_of(text: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</', text)[1])


# ---- figures


def test_text_and_pair_become_tokens_with_their_columns(traced: TracedText) -> None:
    assert traced.tokens == ["[CLS]", "a", "c", "##a", "##b", "[SEP]", "b", "[SEP]"]
    assert [VOCAB[i] for i in traced.ids] == traced.tokens
    assert traced.token_type_ids == [0, 0, 0, 0, 0, 0, 1, 1]
    assert traced.separators == [5, 7]
    assert traced.n_cut == 0
    assert traced.cut_note == ""


def test_stages_are_those_of_the_trace(model: BertModel, traced: TracedText) -> None:
    ids, types = torch.tensor([traced.ids]), torch.tensor([traced.token_type_ids])
    with torch.no_grad(), minibert.trace(model) as stages:
        model(ids, None, types)
    assert list(stages) == list(traced.stages)
    for name, tensor in stages.items():
        assert torch.allclose(tensor, traced.stages[name], atol=1e-6), name


def test_tracing_leaves_training_mode_as_it_was(model: BertModel, tokenizer: Tokenizer) -> None:
    model.train()
    try:
        first = trace_text(model, tokenizer, "abc", stages="pooler").stages["pooler"]
        assert model.training
    finally:
        model.eval()
    second = trace_text(model, tokenizer, "abc", stages="pooler").stages["pooler"]
    assert torch.equal(first, second)  # without dropout


def test_summaries_are_of_whole_tokens_and_finite_values() -> None:
    values = torch.tensor([[[[3.0, 0.0], [0.0, 4.0]], [[0.0, math.inf], [math.nan, -2.0]]]])
    row, broken = summaries(
        TracedText(
            "", None, [], [], [], [], 0, {"layers.0.q": values, "x": torch.full((1, 1), math.nan)}
        )
    )
    assert row == ("layers.0.q", (1, 2, 2, 2), 3.5, -2.0, 4.0, 2)
    assert broken[3:] == (math.inf, -math.inf, 1)


def test_heads_of_known_shape_look_where_they_look() -> None:
    n = 4
    eye = torch.eye(n, dtype=torch.float64)
    before = eye.roll(-1, dims=1)  # each looks at the one before it, the first at the last
    alike = torch.full((n, n), 1 / n, dtype=torch.float64)
    looks = looks_of(torch.stack((eye, before, before.T, alike)), [n - 1])
    assert looks["self"].tolist() == pytest.approx([1, 0, 0, 0.25, 1.25 / 4])
    assert looks["before"].tolist() == pytest.approx([0, 1, 0, 0.25, 1.25 / 4])
    assert looks["after"].tolist() == pytest.approx([0, 0, 1, 0.25, 1.25 / 4])
    assert looks["first"].tolist() == pytest.approx([0.25] * 5)
    assert looks["separators"].tolist() == pytest.approx([0.25] * 5)
    assert looks["entropy"][:4].tolist() == pytest.approx([0, 0, 0, 2])
    # Together each looks at itself, its neighbours and one more: 5/16 three times, and 1/16.
    mixed = -(3 * 5 / 16 * math.log2(5 / 16) + 1 / 16 * math.log2(1 / 16))
    assert looks["entropy"][4].item() == pytest.approx(mixed)


def test_packed_probabilities_come_back(traced: TracedText) -> None:
    expected = traced.stages["layers.1.probabilities"][0].double()
    steps = np.frombuffer(base64.b64decode(packed(expected)), dtype="<u2")
    got = steps.reshape(expected.shape) / 65535
    assert np.abs(got - expected.numpy()).max() <= 0.5 / 65535 + 1e-12
    assert packed(torch.full((1, 1, 2), math.nan)) == base64.b64encode(bytes(4)).decode()
    assert packed(torch.tensor([[[1.0, 0.0]]])) == base64.b64encode(b"\xff\xff\0\0").decode()


def test_facts_are_what_the_formulas_give(traced: TracedText) -> None:
    found = facts(traced)
    stages = {name: tensor[0].double().numpy() for name, tensor in traced.stages.items()}
    norm = np.linalg.norm
    for part, values in found["norms"].items():
        assert values == pytest.approx(norm(stages[f"embeddings.{part}"], axis=-1), rel=1e-4)
    x, y = stages["layers.0.feed_forward_norm"], stages["layers.1.feed_forward_norm"]
    middle = stages["layers.1.attention_norm"]
    expected = {
        "change": norm(y - x, axis=1) / norm(x, axis=1),
        "cosine": (x * y).sum(1) / norm(x, axis=1) / norm(y, axis=1),
        "attention": norm(stages["layers.1.attention_output"], axis=1) / norm(x, axis=1),
        "feed_forward": norm(stages["layers.1.feed_forward_output"], axis=1) / norm(middle, axis=1),
        "norm": norm(y, axis=1),
    }
    assert list(found["measures"]) == list(expected)
    for kind, values in expected.items():
        assert found["measures"][kind][1] == pytest.approx(values, rel=1e-4), kind
        assert len(found["measures"][kind]) == 2
    start = stages["embeddings.norm"]
    first = norm(stages["layers.0.feed_forward_norm"] - start, axis=1) / norm(start, axis=1)
    assert found["measures"]["change"][0] == pytest.approx(first, rel=1e-4)
    shares = stages["layers.1.probabilities"]
    to_separators = shares[:, :, [5, 7]].sum(-1).mean(-1)
    assert found["looks"][1]["separators"][:3] == pytest.approx(to_separators, rel=1e-4)
    assert len(found["looks"][1]["separators"]) == 4


# ---- the page as a file


def test_page_needs_nothing_else_and_shows_hostile_text_as_text(
    model: BertModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "trace.html"
    write_trace_page(model, tokenizer, HOSTILE, "</h1>[PAD]", path, name="<b>mine</b>")
    text = path.read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; {{ 7*7 }} 🦄 שלום" in text
    assert "&lt;/h1&gt;[PAD]" in text
    assert "&lt;b&gt;mine" in text
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script") == 2
    assert not re.search(r"<[^>]+(src|href)=|https?://|@import|url[(]", text)
    assert "default-src 'none'" in text
    assert data_of(text)["tokens"][-2] == "[PAD]"


def test_long_text_is_shortened_in_the_heading_and_said_to_be_cut(
    model: BertModel, tokenizer: Tokenizer
) -> None:
    found = trace_text(model, tokenizer, "a " * 5000, max_length=9)
    assert found.cut_note == "shows the first 9 of 5,002 tokens; --max-length shows more"
    text = page(found, name="m")
    assert f"This page {found.cut_note}." in text
    assert len(re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)[1]) < 2200
    assert trace_text(model, tokenizer, "a " * 50).n_cut == 52 - 16  # the model's positions
    pair = trace_text(model, tokenizer, "a " * 50, "b", max_length=9)
    assert pair.cut_note.startswith("shows 9, cut from the longer text first, of 54 tokens")


def test_empty_text_is_a_page_like_any_other(model: BertModel, tokenizer: Tokenizer) -> None:
    text = page(trace_text(model, tokenizer, "", stages=STAGES), name="m")
    assert "(an empty text)" in text
    assert data_of(text)["tokens"] == ["[CLS]", "[SEP]"]


def test_what_is_not_finite_is_said_and_left_out(folder: Path, tokenizer: Tokenizer) -> None:
    broken = BertModel.from_pretrained(folder)
    with torch.no_grad():
        broken.layers[1].attention.output.bias[0] = math.inf
    text = page(trace_text(broken, tokenizer, "abc"), name="m")
    assert "Not finite, and left out below:" in text
    assert "layers.1.attention_output (5 values)" in text
    data = data_of(text)
    assert data["measures"]["attention"][1] == [None] * 5
    assert None not in data["measures"]["attention"][0]


def test_page_that_cannot_be_written_is_one_line(
    model: BertModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match=r"cannot be written.*choose another place"):
        write_trace_page(model, tokenizer, "a", None, tmp_path / "no" / "trace.html")
    assert not list(tmp_path.iterdir())


def test_page_goes_into_a_pipe_that_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text, encoding="utf-8")
        pages.write_page("a page \udcff", pipe)
        assert read.result() == "a page \\udcff"
    assert pipe.is_fifo()
    with pytest.raises(ParityError, match="cannot be written"):
        pages.write_page("a page", tmp_path)


def test_full_disk_is_one_line() -> None:
    if Path("/dev/full").is_char_device():
        with pytest.raises(ParityError, match=r"/dev/full: cannot be written: .*No space left"):
            pages.write_page("a page", "/dev/full")


def test_template_refuses_what_it_was_not_given_and_what_is_no_json() -> None:
    with pytest.raises(Exception, match="is undefined"):
        pages.render("trace.html", {}, {})
    values = {"title": "t", "tone": "good", "facts": [], "factor": "1", "rows": []}
    with pytest.raises(ValueError, match="JSON"):
        pages.render("comparison.html", values, {"figure": math.nan})


# ---- refusals


def test_pair_needs_two_token_types(tokenizer: Tokenizer) -> None:
    config = BertConfig.from_dict({**CONFIG.to_dict(), "type_vocab_size": 1})
    single = BertModel(config).eval()
    assert trace_text(single, tokenizer, "a").ids == [2, 5, 3]
    with pytest.raises(ParityError, match="got a pair, expected one text: the model has 1 token"):
        trace_text(single, tokenizer, "a", "b")


def test_tokenizer_of_another_vocabulary_is_refused(tokenizer: Tokenizer) -> None:
    small = BertModel(BertConfig.from_dict({**CONFIG.to_dict(), "vocab_size": 20})).eval()
    with pytest.raises(ParityError, match="gives the id 30, expected at most 19"):
        trace_text(small, tokenizer, "z")


def test_lengths_and_texts_out_of_range_are_refused(model: BertModel, tokenizer: Tokenizer) -> None:
    with pytest.raises(ParityError, match="max_length is 17, expected at most 16, the model's"):
        trace_text(model, tokenizer, "a", max_length=17)
    with pytest.raises(TokenizerError, match="max_length is 2, expected at least 3"):
        trace_text(model, tokenizer, "a", max_length=2)
    with pytest.raises(TextError, match="surrogate"):
        trace_text(model, tokenizer, "a \ud800")


# ---- the command


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = cli.main(["trace", *map(str, args)])
    return (code, *capsys.readouterr())


def test_command_prints_a_line_a_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "a cab", "--model", folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "[CLS] a c ##a ##b [SEP]"
    assert lines[1].split() == ["stage", "shape", "norm", "smallest", "largest"]
    assert len(lines) == 2 + 5 + 2 * 12 + 1
    assert re.match(r"layers\.0\.scores +\(1, 3, 6, 6\) +-?\d", lines[2 + 5 + 3])
    assert re.match(r"pooler +\(1, 12\) +\d\.\d{3} +-?0\.\d{3} +0\.\d{3}$", lines[-1])


def test_command_prints_only_the_stages_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", folder, "--stages", "pooler", "--stages", "*.q", "--max-length", "4")
    code, out, _ = run(capsys, "a cab", "--pair", "b", *options)
    assert code == 0
    first, tokens, _, *rows = out.splitlines()
    assert first == (
        "shows 4, cut from the longer text first, of 8 tokens; --max-length shows more"
    )
    assert len(tokens.split()) == 4
    assert [row.split()[0] for row in rows] == ["layers.0.q", "layers.1.q", "pooler"]


def test_command_writes_the_page_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.html"
    code, out, err = run(capsys, "a cab", "--model", folder, "--html", path)
    assert (code, err) == (0, "")
    assert out == f"{path}: 6 tokens, {path.stat().st_size:,} bytes\n"
    assert data_of(path.read_text(encoding="utf-8"))["heads"] == 3
    _, out, _ = run(capsys, "a", "--model", folder, "--html", path, "--stages", "pooler")
    assert [line.split()[0] for line in out.splitlines()][1:3] == ["stage", "pooler"]


def test_command_says_loudly_what_is_not_finite(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = BertModel.from_pretrained(folder)
    with torch.no_grad():  # each weight is finite, their sum is not
        huge.embeddings.token.weight.fill_(3e38)
        huge.embeddings.position.weight.fill_(3e38)
    huge.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    code, out, err = run(capsys, "a", "--model", tmp_path, "--html", tmp_path / "p.html")
    assert code == 0
    assert err.startswith("NOT FINITE: 12 of 15 stages, embeddings.sum first, which has 36 such")
    _, out, _ = run(capsys, "a", "--model", tmp_path)
    assert re.search(r"^embeddings\.sum .* 36 NOT FINITE$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-length", "0"], "0 is not in the range x>=1"),
        (["--max-length", "2"], "max_length is 2, expected at least 3"),
        (["--max-length", "17"], "max_length is 17, expected at most 16, the model's positions"),
        (["--html", "{}/no/out.html"], "out.html: cannot be written"),
        (["--html", "{}"], "is a directory"),
        (["--stages", "nothing"], "no stage of this network is called 'nothing'"),
        (["--html", "{}/x.html", "--stages", "nothing"], "no stage of this network is called"),
        (["--pair", "\udcff"], "surrogate"),
    ],
)
def test_command_refuses_in_one_line(
    options: list[str],
    said: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [option.replace("{}", str(tmp_path)) for option in options]
    code, out, err = run(capsys, "a", "--model", folder, *given)
    assert (code, out) == (2, "")
    assert err.startswith("minibert: ")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
