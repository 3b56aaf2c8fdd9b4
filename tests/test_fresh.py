"""Networks made from nothing: vocabularies by hand, twice the same, kept and made anew."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_tokenizer
from test_masked_lm_task import run_in, story
from test_processes import run_two
from test_run import log_of, sentences
from whole_runs import StopAfter, left

from minibert import BertConfig, BertModel, Tokenizer
from minibert.errors import CheckpointError, DataError, RunError
from minibert.training import fresh as module
from minibert.training.dataset import training_texts
from minibert.training.fresh import fresh_checkpoint, learnt_tokenizer
from minibert.training.run import train
from minibert.training.run_config import RunConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary(tokenizer: Tokenizer) -> list[str | None]:
    return [tokenizer.id_to_token(i) for i in range(tokenizer.vocab_size)]


def learnt(*texts: str, vocab_size: int = 200, lowercase: bool = True) -> list[str | None]:
    return vocabulary(learnt_tokenizer(texts, vocab_size=vocab_size, lowercase=lowercase))


# ---- vocabularies


def test_vocabulary_by_hand() -> None:
    """Characters in order, those that go on with a word, then pairs while they occur twice.

    "ab" is three times there, "##cd" as often in what is left; "abcd" then twice, "ax" but once.
    """
    found = learnt("abcd ab ax", "abcd xcd")
    assert found[:5] == SPECIAL
    assert found[5:] == [
        "a", "b", "c", "d", "x", "##b", "##c", "##d", "##x", "ab", "##cd", "abcd",
    ]  # fmt: skip


def test_capitals_and_accents_go_where_asked() -> None:
    assert learnt("Éa Éa")[5:] == ["a", "e", "##a", "ea"]
    assert learnt("Éa Éa", lowercase=False)[5:] == ["a", "É", "##a", "Éa"]


def test_words_are_those_that_bert_finds() -> None:
    """Punctuation and Chinese characters stand alone; control characters are none."""
    assert learnt("a,a 猫猫 \x00\u200b")[5:] == [",", "a", "猫"]


def test_no_more_tokens_than_asked_for() -> None:
    many = "".join(map(chr, range(0x3B1, 0x3B1 + 25))) + "".join(map(chr, range(0x10D0, 0x10F0)))
    text = " ".join(f"{a}{b}" for a in many for b in many)
    assert len(learnt(text, text)) == 200
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 500)))
    found = learnt(rare, "abc " * 10, "丁丂")
    assert len(found) <= 200
    assert {"a", "b", "c", "##b", "##c", "abc", "丁", "丂"} < set(found)  # the frequent ones
    assert learnt(rare, "abc " * 10, "丁丂") == found


def test_characters_that_are_kept_are_the_frequent_ones() -> None:
    """Of 200 tokens at most 66 characters: of those that occur as often the first ones."""
    rare = [chr(0x10D0 + i) for i in range(40)] + [chr(0x3B1 + i) for i in range(25) if i != 17]
    words = " ".join(f"{a} {a}{b}" for a, b in zip(rare, rare[1:] + rare[:1], strict=True))
    found = learnt(words, "x", "\u4e00 " * 4, "\u4e01 " * 4, "z " * 4)
    kept = {token for token in found[5:] if token and len(token) == 1}
    assert len(kept) == 66
    assert {"\u4e00", "\u4e01", "z"} < kept  # one word each, but four times
    assert "x" not in kept
    assert chr(0x10D0 + 39) not in kept


def test_all_texts_are_learnt_of_some_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PORTION", 2)
    assert {"ab", "cd", "ef"} < set(learnt("ab", "ab", "cd", "cd", "ef ef"))


def test_fewer_tokens_where_there_are_no_more() -> None:
    assert len(learnt("ab ab")) == 5 + 4


@given(
    st.lists(st.text(max_size=20), max_size=6).filter(lambda texts: any(map(str.isalnum, texts)))
)
def test_what_is_learnt_of_is_known(texts: list[str]) -> None:
    tokenizer = learnt_tokenizer(texts, vocab_size=1000, lowercase=True)
    assert vocabulary(tokenizer)[:5] == SPECIAL
    for ids in tokenizer.ids(texts):
        assert tokenizer.unk_id not in ids
    again = learnt_tokenizer(texts[::-1], vocab_size=1000, lowercase=True)
    assert again.to_json() == tokenizer.to_json()


def test_special_tokens_are_special_and_no_others() -> None:
    tokenizer = learnt_tokenizer(["a ## b ##b ab ab"], vocab_size=200, lowercase=True)
    assert tokenizer.special_ids == set(range(5))
    tokens = [tokenizer.id_to_token(i) for i in tokenizer.ids(["[MASK] ##b ab"])[0]]
    assert tokens == ["[MASK]", "#", "#", "b", "ab"]


def test_saved_vocabulary_opens_as_it_is(tmp_path: Path) -> None:
    tokenizer = learnt_tokenizer(["Ab ab Äb"], vocab_size=200, lowercase=False)
    tokenizer.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).to_json() == tokenizer.to_json()
    (tmp_path / "tokenizer.json").unlink()
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.ids(["Äb ab x"]) == tokenizer.ids(["Äb ab x"])


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\x00"]])
def test_texts_without_a_word_are_refused(texts: list[str]) -> None:
    with pytest.raises(RunError, match="the texts of train have no word that a vocabulary could"):
        learnt_tokenizer(texts, vocab_size=200, lowercase=True)


@pytest.mark.slow
def test_every_process_learns_the_same(tmp_path: Path) -> None:
    """Hash tables of the package and of Python are in another order in each."""
    (tmp_path / "texts.txt").write_text(Path(module.__file__).read_text() * 2)
    code = """
import sys
from minibert.training.fresh import learnt_tokenizer
texts = open(sys.argv[1]).read().splitlines()
print(learnt_tokenizer(texts, vocab_size=600, lowercase=True).to_json())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "texts.txt")],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "RAYON_NUM_THREADS": str(1 + seed)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in range(3)
    }  # fmt: skip
    assert len(found) == 1
    assert '"##' in found.pop()


# ---- checkpoints


def config_of(folder: Path, **tables: Any) -> RunConfig:
    values = {"task": "masked_lm", "model": "new", **tables}
    return RunConfig.from_dict(values, folder=folder)


def test_checkpoint_is_as_the_run_says(tmp_path: Path) -> None:
    network = {
        "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 20, "max_position_embeddings": 130,
    }  # fmt: skip
    run = config_of(tmp_path, network=network)
    fresh_checkpoint(run, ["ab ab"], tmp_path / "start")
    config = BertConfig.from_file(tmp_path / "start" / "config.json")
    assert {name: getattr(config, name) for name in network} == network
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    assert config.vocab_size == tokenizer.vocab_size == 9
    assert tokenizer.model_max_length == 130
    model = BertModel.from_pretrained(tmp_path / "start")
    assert not model.load_report.initialised  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


@pytest.mark.parametrize("width", [24, 25])
def test_sinusoidal_positions_are_waves_of_all_lengths(tmp_path: Path, width: int) -> None:
    network = {
        "hidden_size": width, "num_attention_heads": 1, "max_position_embeddings": 300,
        "positions": "sinusoidal",
    }  # fmt: skip
    fresh_checkpoint(config_of(tmp_path, network=network), ["ab ab"], tmp_path / "start")
    found = (
        BertModel.from_pretrained(tmp_path / "start").embeddings.position.weight.detach().double()
    )
    scale = 0.02 * math.sqrt(2)
    for column in range(width):
        length = 1000 ** (column // 2 * 2 / width)
        wave = (math.sin, math.cos)[column % 2]
        expected = [scale * wave(p / length) for p in range(300)]
        torch.testing.assert_close(
            found[:, column], torch.tensor(expected).double(), rtol=0, atol=3e-6
        )
    if width % 2 == 0:  # what two positions have in common hangs on their distance alone
        common = found @ found.T
        torch.testing.assert_close(common[:-1, :-1], common[1:, 1:], rtol=0, atol=1e-7)
        assert float(found.square().mean()) == pytest.approx(0.02**2)
        nearest = (common - torch.eye(300) * 9).argmax(dim=0)
        assert set((nearest - torch.arange(300)).abs().tolist()) == {1}


def test_vocabulary_is_as_the_run_says(tmp_path: Path) -> None:
    """Of every two letters there are words."""
    letters = "Abcdefghijklmnopqrst"
    text = " ".join(f"{a}{b} {a}{b}" for a in letters for b in letters)
    for size, lowercase in ((200, True), (250, False)):
        network = {"vocab_size": size, "lowercase": lowercase}
        fresh_checkpoint(config_of(tmp_path, network=network), [text], tmp_path / "start")
        tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
        assert tokenizer.vocab_size == size
        assert (tokenizer.token_to_id("A") is None) == lowercase


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_seed_decides_the_weights_and_what_stood_there_is_replaced(tmp_path: Path) -> None:
    runs = [config_of(tmp_path, training={"seed": seed}) for seed in (1, 1, 2)]
    found = []
    for run in runs:
        torch.rand(3)  # whatever was drawn before
        fresh_checkpoint(run, ["ab ab"], tmp_path / "start")
        found.append(weights(tmp_path / "start"))
    assert found[0] == found[1] != found[2]


def test_vocabulary_is_taken_from_elsewhere_where_asked(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    tokenizer = small_tokenizer(tmp_path / "words")
    fresh_checkpoint(config_of(tmp_path, network={"tokenizer": "words"}), [], tmp_path / "start")
    found = Tokenizer.from_pretrained(tmp_path / "start")
    assert vocabulary(found) == vocabulary(tokenizer)
    assert BertConfig.from_file(tmp_path / "start" / "config.json").vocab_size == found.vocab_size


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"network": {"hidden_size": 10, "num_attention_heads": 4}},
            "network.hidden_size is 10, expected a multiple of network.num_attention_heads, 4",
        ),
        (
            {"network": {"max_position_embeddings": 64}},
            "data.max_length is 128, expected at most network.max_position_embeddings, 64",
        ),
        (
            {"network": {"tokenizer": "words", "vocab_size": 300}},
            "network.vocab_size is 300, which goes with a vocabulary that is learnt",
        ),
        (
            {"network": {"tokenizer": "words", "lowercase": False}},
            "network.lowercase is False, which goes with a vocabulary that is learnt",
        ),
        ({"network": {"vocab_size": 100}}, "network.vocab_size is 100, expected a number at least"),
        (
            {"model": "some-model", "network": {"num_hidden_layers": 2}},
            "network.num_hidden_layers is 2, which model 'some-model' has no use for; it is for",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, tables: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError) as caught:
        fresh_checkpoint(config_of(tmp_path, **tables), ["ab"], tmp_path / "start")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config_of(tmp_path)
    fresh_checkpoint(run, ["ab ab"], tmp_path / "start")
    before = weights(tmp_path / "start")

    def full(self: Any, folder: Path) -> None:
        (folder / "part").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tokenizer, "save_pretrained", full)
    with pytest.raises(RunError, match=r"start: cannot be written: .*No space left"):
        fresh_checkpoint(run, ["other words"], tmp_path / "start")
    assert weights(tmp_path / "start") == before
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


# ---- of a run


def test_any_task_may_start_from_nothing(tmp_path: Path) -> None:
    """Its vocabulary is that of the texts of train, pairs and words too, and of no others."""
    rows = [{"text": "ab ab", "other": "cd cd", "label": i % 2} for i in range(4)]
    rows.append({"text": None, "other": "ef", "label": 0})
    data = {"train": rows, "validation": [{"text": "xy", "other": "xy", "label": 0}]}
    pairs = {"task": "binary", "data": {**data, "text_pair": "other", "bad_rows": "quarantine"}}
    run = RunConfig.from_dict(pairs)
    assert list(training_texts(run)) == ["ab ab", "cd cd"] * 4 + ["ef"]
    words = [{"tokens": ["ab", "cd"], "tags": ["O", "B-x"]}]
    run = RunConfig.from_dict({"task": "tokens", "data": {"train": words}})
    assert list(training_texts(run)) == ["ab cd"]
    network = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    run = RunConfig.from_dict(
        {
            "task": "binary", "model": "new", "network": network,
            "data": {"train": sentences(), "validation": 0.2}, "training": {"epochs": 1},
        },
        folder=tmp_path,
    )  # fmt: skip
    assert train(run).finished
    assert BertModel.from_pretrained(tmp_path / "run" / "start").config.hidden_size == 16


def small_run(folder: Path, **tables: Any) -> RunConfig:
    return run_in(training={"epochs": 1}, **tables)(folder)


def started(folder: Path) -> tuple[bytes, bytes]:
    start = folder / "run" / "start"
    return weights(start), (start / "vocab.txt").read_bytes()


def test_network_is_kept_by_who_goes_on_and_made_new_by_who_begins(tmp_path: Path) -> None:
    train(small_run(tmp_path), observers=[StopAfter(2)])
    first = started(tmp_path)
    # It is not learnt again, for it might have been made elsewhere.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "learnt_tokenizer", lambda *given, **more: pytest.fail("learnt"))
        assert train(small_run(tmp_path), resume=True).finished
    assert started(tmp_path) == first
    run = small_run(tmp_path)
    (tmp_path / "story.txt").write_text(story().replace("lisbon", "porto"))
    assert train(run, overwrite=True).finished
    again = started(tmp_path)
    assert b"porto" in again[1]
    assert b"porto" not in first[1]
    assert not (tmp_path / "run" / "start.new").exists()


def test_network_that_is_gone_is_made_again_by_who_goes_on(tmp_path: Path) -> None:
    """The same one, which is seen by its hash."""
    train(small_run(tmp_path), observers=[StopAfter(2)])
    first = started(tmp_path)
    for path in (tmp_path / "run" / "start").iterdir():
        path.unlink()
    (tmp_path / "run" / "start").rmdir()
    assert train(small_run(tmp_path), resume=True).finished
    assert started(tmp_path) == first


def test_run_that_is_refused_leaves_the_earlier_one_to_be_gone_on_with(tmp_path: Path) -> None:
    whole = small_run(tmp_path / "whole")
    train(whole)
    run = small_run(tmp_path / "parts")
    train(run, observers=[StopAfter(2)])
    first = started(tmp_path / "parts")
    text = (tmp_path / "parts" / "story.txt").read_text()
    (tmp_path / "parts" / "story.txt").write_bytes(b"other words\n\xff\n")
    with pytest.raises(DataError, match="1 of 2 rows are bad"):
        train(run, overwrite=True)
    assert started(tmp_path / "parts") == first
    (tmp_path / "parts" / "story.txt").write_text(text)
    assert train(run, resume=True).finished
    assert left(tmp_path / "parts" / "run") == left(tmp_path / "whole" / "run")


def test_attempt_that_was_refused_does_not_decide_the_next_network(tmp_path: Path) -> None:
    wrong = small_run(tmp_path, data={"train": "story.txt", "max_length": 24, "validation": "x"})
    with pytest.raises(DataError):
        train(wrong)
    network = {
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 24,
    }  # fmt: skip
    outcome = train(small_run(tmp_path, network=network))
    assert outcome.model.config.hidden_size == 8
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"start", "model"}


def test_other_network_settings_are_noticed_by_who_goes_on(tmp_path: Path) -> None:
    train(small_run(tmp_path), observers=[StopAfter(2)])
    other = json.loads(json.dumps(small_run(tmp_path).to_dict()["network"])) | {"vocab_size": 300}
    given = {name: value for name, value in other.items() if value is not None}
    with pytest.raises(CheckpointError, match=r"network\.vocab_size is 300, was 8000"):
        train(small_run(tmp_path, network=given), resume=True)


@pytest.mark.slow
def test_two_processes_start_from_one_network(tmp_path: Path) -> None:
    """The first makes it, the second finds it; both together train as one does."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        small_run(folder)
        (folder / "run.toml").write_text("""
task = "masked_lm"
model = "new"
[data]
train = "story.txt"
validation = 0.25
max_length = 24
[network]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 24
[training]
epochs = 2
batch_size = 8
dropout = 0.0
[optimizer]
name = "sgd"
learning_rate = 1e-2
""")
    train(RunConfig.from_file(one / "run.toml"))
    for options in ((), ("--overwrite",)):
        ended = run_two("-m", "minibert", "train", str(two / "run.toml"), *options)
        assert [each.status for each in ended] == [0, 0], ended
        assert started(two) == started(one)
        assert not (two / "run" / "start.new").exists()
        found, expected = (log_of(folder / "run") for folder in (two, one))
        for a, b in zip(found, expected, strict=True):
            a, b = a.get("evaluation", a), b.get("evaluation", b)
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
