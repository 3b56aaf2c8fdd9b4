"""Masked words and next sentences: what is masked when, losses and figures by hand, whole runs."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VOCAB, WORDS, small_config, small_tokenizer
from strategies import randomised
from whole_runs import command, in_one_go_and_in_parts, results

from minibert import BertForMaskedLM, BertForPreTraining, MaskFiller
from minibert.errors import DataError, RunError, TrainingError
from minibert.tokenizer import Tokenizer
from minibert.training.dataset import read_dataset, read_examples
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch, Examples
from minibert.training.losses import IGNORED
from minibert.training.masked_lm_task import MaskedLMTask, masked_lm_task
from minibert.training.masking import Masking
from minibert.training.run import train
from minibert.training.run_config import RunConfig, template

CLS, SEP, MASK = (VOCAB.index(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
BEST = {"film": 3.0, "paris": 1.0}
# The logarithm of the sum over the vocabulary: all others have the logit 0.
TOTAL = math.log(len(VOCAB) - 2 + math.exp(3) + math.exp(1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def task_of(tokenizer: Tokenizer, pair_weight: float | None = None, **masking: Any) -> MaskedLMTask:
    return MaskedLMTask(Masking.of(tokenizer, **masking), seed=7, pair_weight=pair_weight)


def examples(*sentences: str, targets: Sequence[int] = ()) -> Examples:
    """Sentences of the words, each between [CLS] and [SEP]."""
    ids = [[CLS, *map(VOCAB.index, each.split()), SEP] for each in sentences]
    return Examples(ids, [[0] * len(row) for row in ids], list(targets) or [0] * len(ids))


def many(n: int = 8) -> Examples:
    """Sentences of 2 to 12 words, and of every second that it follows."""
    words = [" ".join(WORDS[(i * j) % 18] for j in range(1, 3 + (i * 3) % 11)) for i in range(n)]
    return examples(*words, targets=[i % 2 for i in range(n)])


@pytest.fixture(scope="module")
def by_hand() -> BertForPreTraining:
    """Whatever stands around a mask, the logits of its tokens are `BEST`; of pairs 0 and 1."""
    model = BertForPreTraining(small_config()).eval()
    with torch.no_grad():
        for parameter in (*model.predictions.dense.parameters(), *model.next_sentence.parameters()):
            parameter.zero_()  # so that the biases alone decide
        model.next_sentence.bias[1] = 1.0
        assert model.predictions.bias is not None
        for token, logit in BEST.items():
            model.predictions.bias[VOCAB.index(token)] = logit
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def random() -> BertForPreTraining:
    model = randomised(BertForPreTraining(small_config(initializer_range=0.8)), seed=6)
    return model.eval().requires_grad_(False)


# ---- losses and figures by hand


def test_loss_by_hand(tokenizer: Tokenizer, by_hand: BertForPreTraining) -> None:
    """All of three words are masked."""
    task = task_of(tokenizer, fraction=1.0, mask_share=1.0, random_share=0.0)
    batch = task.prepare(examples("film is paris"), [0], 0)
    assert batch.input_ids.tolist() == [CLS, MASK, MASK, MASK, SEP]
    model = BertForMaskedLM(by_hand.config).eval().requires_grad_(False)
    model.bert, model.predictions = by_hand.bert, by_hand.predictions
    loss = task.objective(model, batch)
    assert float(loss.sum) == pytest.approx(3 * TOTAL - 3 - 1, rel=1e-6)
    assert float(loss.count) == 3


def test_loss_with_next_sentences_by_hand(
    tokenizer: Tokenizer, by_hand: BertForPreTraining
) -> None:
    """One follows, and one is a random one, which the bias says of both."""
    task = task_of(tokenizer, 1.5, fraction=1.0, mask_share=1.0, random_share=0.0)
    batch = task.prepare(examples("film is", "paris", targets=[0, 1]), [0, 1], 0)
    loss, found = task.judged(by_hand, batch)
    pairs = math.log(1 + math.e) + math.log(1 + math.e) - 1
    assert float(loss.sum) == pytest.approx(3 * TOTAL - 3 - 1 + 1.5 * pairs, rel=1e-6)
    assert float(loss.count) == 3
    assert found["losses"].tolist() == pytest.approx([TOTAL - 1, TOTAL - 3, TOTAL], rel=1e-6)
    assert found["right"].tolist() == [False, True, False]  # sequences are sorted by length
    assert found["pairs_right"].tolist() == [True, False]


def test_figures_by_hand(tokenizer: Tokenizer, by_hand: BertForPreTraining) -> None:
    task = task_of(tokenizer, 1.0, fraction=1.0, mask_share=1.0, random_share=0.0)
    found = examples("film is", "paris", "film film", targets=[0, 1, 1])
    figures = Evaluation(task, (), found)(by_hand)
    mean = TOTAL - (3 + 0 + 1 + 3 + 3) / 5
    assert figures == pytest.approx({
        "perplexity": math.exp(mean), "loss": mean, "accuracy": 3 / 5,
        "next_sentence_accuracy": 2 / 3,
    })  # fmt: skip
    alone = task_of(tokenizer, fraction=1.0, mask_share=1.0, random_share=0.0)
    assert "next_sentence_accuracy" not in Evaluation(alone, (), found)(by_hand)


def test_head_sees_masked_words_alone_and_nothing_wide_is_kept(
    tokenizer: Tokenizer, random: BertForPreTraining
) -> None:
    task, shapes = task_of(tokenizer, 1.0), []
    hook = random.predictions.register_forward_pre_hook(
        lambda module, given: shapes.append(tuple(given[0].shape))
    )
    batch = task.prepare(many(), range(8), 3)
    _, found = task.judged(random, batch)
    hook.remove()
    n_masked = int((batch.targets != IGNORED).sum())
    assert shapes == [(n_masked, 8)]
    assert 8 <= n_masked < batch.n_tokens / 2
    assert {name: tuple(each.shape) for name, each in found.items()} == {
        "losses": (n_masked,), "right": (n_masked,), "pairs_right": (8,),
    }  # fmt: skip


# ---- what is masked when


def sequences(batch: Batch) -> dict[int, tuple[list[int], list[int]]]:
    """Of each example what the network sees, and the words that stood there."""
    ids = torch.split(batch.input_ids, list(batch.layout.lengths))
    targets = torch.split(batch.targets, list(batch.layout.lengths))
    return {
        row: (a.tolist(), b.tolist()) for row, a, b in zip(batch.rows, ids, targets, strict=True)
    }


@given(
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
    step=st.none() | st.integers(0, 1000),
)
def test_masks_do_not_depend_on_what_else_is_in_the_batch(
    tokenizer: Tokenizer, rows: list[int], step: int | None
) -> None:
    task, found = task_of(tokenizer, 1.0), many()
    batch = task.prepare(found, rows, step)
    together = sequences(batch)
    assert sorted(together) == sorted(rows)
    for row, each in together.items():
        assert sequences(task.prepare(found, [row], step)) == {row: each}
        ids, targets = each
        whole = [a if b == IGNORED else b for a, b in zip(ids, targets, strict=True)]
        assert whole == found.ids[row]
    assert batch.next_sentence is not None
    assert batch.next_sentence.tolist() == [found.targets[row] for row in batch.rows]


def test_masks_are_drawn_anew_for_each_update_and_kept_for_evaluations(
    tokenizer: Tokenizer,
) -> None:
    task, found = task_of(tokenizer, fraction=0.3), many()
    by_step = [sequences(task.prepare(found, range(8), step)) for step in (None, 0, 1, 2, 10**6)]
    for a, b in pairwise([*by_step, by_step[0]]):
        assert sum(a[row] != b[row] for row in range(8)) >= 4
    assert sequences(task.prepare(found, range(8))) == by_step[0]
    other = MaskedLMTask(task.masking, seed=8)
    assert sequences(other.prepare(found, range(8), 1)) != by_step[2]
    alike = examples(*["the film is in the film anna smith ."] * 6)  # each draws its own
    assert len({str(each) for each in sequences(task.prepare(alike, range(6), 0)).values()}) > 3


def test_share_and_kinds_are_as_asked(tokenizer: Tokenizer) -> None:
    task = task_of(tokenizer, fraction=0.5, mask_share=0.0, random_share=1.0)
    found = many()
    for row, (ids, targets) in sequences(task.prepare(found, range(8), 0)).items():
        n_masked = sum(each != IGNORED for each in targets)
        n_words = len(found.ids[row]) - 2
        assert n_masked == min(n_words, max(1, round(0.5 * len(found.ids[row]))))
        assert MASK not in ids


def test_pieces_of_a_word_are_masked_together(tokenizer: Tokenizer) -> None:
    task = task_of(tokenizer, fraction=0.5, whole_words=True)
    found = examples("film ##s ##ly anna ##s is in the", "good ##ly bad ##s poor odd")
    n_pieces = 0
    for step in range(20):
        for row, (_, targets) in sequences(task.prepare(found, [0, 1], step)).items():
            for place, token in enumerate(found.ids[row]):
                if VOCAB[token].startswith("##"):
                    assert (targets[place] == IGNORED) == (targets[place - 1] == IGNORED)
                    n_pieces += targets[place] != IGNORED
    assert n_pieces > 20


@pytest.mark.parametrize("pair_weight", [None, 1.5])
@given(rows=st.permutations(range(8)), n=st.integers(1, 7), step=st.integers(0, 9))
def test_portions_add_up_and_are_those_of_each_text_alone(
    tokenizer: Tokenizer,
    random: BertForPreTraining,
    pair_weight: float | None,
    rows: list[int],
    n: int,
    step: int,
) -> None:
    task, found = task_of(tokenizer, pair_weight), many()
    whole = task.objective(random, task.prepare(found, rows, step))
    parts = [
        task.objective(random, task.prepare(found, part, step)) for part in (rows[:n], rows[n:])
    ]
    assert float(sum(part.sum for part in parts)) == pytest.approx(float(whole.sum), rel=1e-5)
    assert float(sum(part.count for part in parts)) == float(whole.count)
    alone = 0.0
    for row, (ids, targets) in sequences(task.prepare(found, rows, step)).items():
        out = random(torch.tensor([ids]))
        log_p = out.prediction_logits[0].log_softmax(-1)
        alone -= sum(float(log_p[i, t]) for i, t in enumerate(targets) if t != IGNORED)
        if pair_weight is not None:
            pair = out.seq_relationship_logits[0].log_softmax(-1)
            alone -= pair_weight * float(pair[found.targets[row]])
    assert float(whole.sum) == pytest.approx(alone, rel=1e-5)


def test_pair_counts_as_the_words_that_are_masked_of_it(tokenizer: Tokenizer) -> None:
    """Of 5 and 3 tokens a quarter: one word a pair."""
    found = examples("film is paris", "film")
    masking = {"next_sentence": True, "fraction": 0.25}
    run = RunConfig.from_dict({"task": "masked_lm", "masking": masking, "training": {"seed": 3}})
    task = masked_lm_task(run, tokenizer, found)
    assert (task.pair_weight, task.seed) == (1.0, 3)
    shares = {"fraction": 0.3, "mask_share": 0.5, "random_share": 0.25, "whole_words": True}
    run = RunConfig.from_dict({"task": "masked_lm", "masking": shares})
    task = masked_lm_task(run, tokenizer, found)
    assert {name: getattr(task.masking, name) for name in shares} == shares
    assert task.pair_weight is None


# ---- what the network reads


def read(tokenizer: Tokenizer, source: Any, folder: Path, **tables: Any) -> Examples:
    values = {"task": "masked_lm", "data": {"max_length": 8}, **tables}
    return read_examples(RunConfig.from_dict(values, folder=folder), source, (), tokenizer)


def test_lines_of_a_file_run_on_and_rows_do_not(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Blocks of six tokens; an empty line is nothing, another file begins anew."""
    (tmp_path / "a.txt").write_text("the film is\nin paris\n\nanna lives in\n")
    (tmp_path / "b.txt").write_text("who\n")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    expected = examples("the film is in paris anna", "lives in", "who")
    found = read(tokenizer, files, tmp_path)
    assert (found.ids, found.types, found.targets) == vars_of(expected)
    rows = [{"text": "the film is"}, {"text": ""}, {"text": "the film is in paris anna lives"}]
    expected = examples("the film is", "the film is in paris anna", "lives")
    assert read(tokenizer, rows, tmp_path).ids == expected.ids


def vars_of(found: Examples) -> tuple[list[list[int]], list[list[int]], list[Any]]:
    return found.ids, found.types, found.targets


def test_pairs_follow_or_are_of_another_document(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One document is of "good" and "fine", one of "bad" and "poor", one of "film"."""
    documents = ["good fine\n" * 40, "bad poor\n" * 40, "film film\n" * 40]
    (tmp_path / "a.txt").write_text("\n".join(documents))
    run = {"masking": {"next_sentence": True}, "data": {"max_length": 12}}
    found = read(tokenizer, str(tmp_path / "a.txt"), tmp_path, **run)
    assert {0, 1} == set(found.targets)
    for ids, types, label in zip(found.ids, found.types, found.targets, strict=True):
        assert len(ids) <= 12
        middle = ids.index(SEP)
        assert types == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
        first, second = ids[1:middle], ids[middle + 1 : -1]
        kinds = [{(i - 5) // 2 if i < 9 else 9 for i in part} for part in (first, second)]
        assert (kinds[0] == kinds[1]) == (label == 0)
    again = read(tokenizer, str(tmp_path / "a.txt"), tmp_path, **run)
    assert vars_of(again) == vars_of(found)


def test_one_document_has_no_next_sentences(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good fine\nbad poor\n")
    pairs = {"next_sentence": True}
    with pytest.raises(TrainingError, match="1 documents hold a token, expected two at least"):
        read(tokenizer, str(tmp_path / "a.txt"), tmp_path, masking=pairs)
    data = {"train": [{"text": " "}], "max_length": 8}
    run = RunConfig.from_dict({"task": "masked_lm", "data": data})
    with pytest.raises(DataError, match=r"data\.train has no row that can be used"):
        read_dataset(run, tokenizer)


# ---- what does not fit


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"masking": {"mask_share": 0.9, "random_share": 0.2}},
            "masking.mask_share and random_share are 0.9 and 0.2, expected at most 1 together",
        ),
        ({"loss": {"name": "focal"}}, "loss.name is 'focal', expected cross_entropy for task"),
        ({"masking": {"fraction": 0.0}}, "masking.fraction is 0.0, expected a number above 0"),
        ({"data": {"text_pair": "b"}}, "data.text_pair is 'b', which task 'masked_lm' has no use"),
        ({"data": {"long_text": "error"}}, "data.long_text is 'error', which task 'masked_lm' has"),
        ({"task": "binary", "masking": {"whole_words": True}}, "it is for masked_lm"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(
    tokenizer: Tokenizer, tables: dict[str, Any], said: str
) -> None:
    with pytest.raises(RunError) as caught:
        masked_lm_task(
            RunConfig.from_dict({"task": "masked_lm", **tables}), tokenizer, examples("film")
        )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_template_has_what_the_task_takes() -> None:
    text = template("masked_lm")
    assert "# whole_words = false" in text
    assert "# vocab_size = 8000" in text
    assert "text_pair" not in text
    assert "long_text" not in text


# ---- whole runs


def story(n_documents: int = 12, n_lines: int = 11) -> str:
    """Documents in which who, where and how go together."""
    lines = ("anna lives in paris", "smith sees london now", "maria loves lisbon still")
    return "\n".join(f"{lines[i % 3]}\n" * n_lines for i in range(n_documents))


def run_in(**tables: Any) -> Callable[[Path], RunConfig]:
    def made(folder: Path) -> RunConfig:
        folder.mkdir(exist_ok=True)
        (folder / "story.txt").write_text(story())
        data = {"train": "story.txt", "validation": 0.25, "max_length": 24}
        network = {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 24,
        }  # fmt: skip
        training = {"epochs": 2, "batch_size": 8, "seed": 1} | tables.get("training", {})
        values = {
            "task": "masked_lm", "model": "new", "network": network,
            "optimizer": {"learning_rate": 1e-2}, "data": data, **tables, "training": training,
        }  # fmt: skip
        return RunConfig.from_dict(values, folder=folder)

    return made


def test_new_network_learns_and_what_it_saves_opens_everywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training = {"epochs": 40, "evaluate_every": 9999, "save_every": 9999, "dropout": 0.0}
    run = run_in(training=training, masking={"whole_words": True})(tmp_path)
    outcome = train(run)
    folder = tmp_path / "run"
    assert outcome.validation is not None
    tokenizer = Tokenizer.from_pretrained(folder / "start")
    data = read_dataset(run, tokenizer)
    assert data.validation is not None
    task = masked_lm_task(run, tokenizer, data.train)
    before = Evaluation(task, (), data.validation).report(
        task.network(run, folder / "start").eval()
    )
    assert before.figures["perplexity"] > 0.7 * tokenizer.vocab_size  # it knows nothing
    assert outcome.validation.figures["perplexity"] < 4  # of twelve words that are as frequent
    assert outcome.validation.figures["accuracy"] > before.figures["accuracy"] + 0.2
    filler = MaskFiller.from_pretrained(folder)
    assert filler.settings.long_text == "windows"
    text = "maria loves [MASK] still"
    filled = filler.fill(text, top_k=1)
    capfd.readouterr()
    command("fill-mask", folder, text, "--top-k", "1")
    shown = capfd.readouterr().out
    assert filled.masks[0][0].token in shown
    assert f"{filled.masks[0][0].probability:.4f}" in shown
    command("evaluate", folder, "--json")
    found = json.loads(capfd.readouterr().out)["figures"]
    assert found == results(folder)["validation"]


CASES: dict[str, dict[str, Any]] = {
    "words": {"masking": {"whole_words": True}},
    "pairs": {"masking": {"next_sentence": True}, "training": {"accumulate": 2}},
}


@pytest.mark.parametrize("name", CASES)
def test_stopped_run_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    in_one_go_and_in_parts(run_in(**CASES[name]), tmp_path, step=4)


@pytest.mark.slow
def test_next_sentences_are_learnt_beside_the_words(tmp_path: Path) -> None:
    training = {
        "epochs": 20, "batch_size": 16, "evaluate_every": 9999, "save_every": 9999, "dropout": 0.0,
    }  # fmt: skip
    made = run_in(
        training=training, masking={"next_sentence": True}, optimizer={"learning_rate": 5e-3}
    )
    run = made(tmp_path)
    (tmp_path / "story.txt").write_text(story(24, 40))
    outcome = train(run)
    assert outcome.validation is not None
    assert outcome.validation.figures["next_sentence_accuracy"] > 0.8
    assert outcome.validation.figures["perplexity"] < 6
    model = BertForPreTraining.from_pretrained(tmp_path / "run" / "model")
    assert not model.load_report.initialised  # type: ignore[union-attr]
    MaskFiller.from_pretrained(tmp_path / "run").fill("anna lives in [MASK] .")
