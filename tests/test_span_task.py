"""Answers in texts: what the network reads, losses and figures by hand, whole runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import WORDS, hand_made, small_config, small_tokenizer
from strategies import randomised, texts
from test_run import write_csv
from whole_runs import command, in_one_go_and_in_parts, results

from minibert import BertForQuestionAnswering, BertModel, PredictionSettings, QuestionAnswerer
from minibert.errors import DataError, RunError
from minibert.tokenizer import Tokenizer, window_spans
from minibert.training.dataset import read_dataset, read_examples
from minibert.training.encoding import LOST, NOWHERE, token_span, windowed
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Examples
from minibert.training.run import train
from minibert.training.run_config import RunConfig
from minibert.training.span_task import SpanTask, span_task

NINE = "the film is in the film anna smith ."  # nine tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def finder() -> BertForQuestionAnswering:
    """An answer begins at "anna" and ends at "smith": their logits are 8, all others 0."""
    model = hand_made(BertForQuestionAnswering, {"anna": 1, "smith": 2}, strength=8.0)
    return model.requires_grad_(False)


def settings(**data: Any) -> RunConfig:
    values = {"text": "question", "text_pair": "context", "label": "answer", "max_length": 10}
    return RunConfig.from_dict({"task": "spans", "data": values | data})


def row(context: str, answer: str | None, question: str = "who ?", **more: Any) -> dict[str, Any]:
    return {"question": question, "context": context, "answer": answer, **more}


def examples(tokenizer: Tokenizer, *rows: dict[str, Any], **data: Any) -> Examples:
    return read_examples(settings(**data), list(rows), (), tokenizer)


# ---- what the network reads


def test_question_and_text_by_hand(tokenizer: Tokenizer) -> None:
    found = examples(tokenizer, row("is anna smith .", "anna smith"))
    words = [tokenizer.id_to_token(i) for i in found.ids[0]]
    assert words == "[CLS] who ? [SEP] is anna smith . [SEP]".split()
    assert found.types == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]
    assert found.targets == [(5, 6)]
    assert (found.texts, found.starts) == ([0], [-4])


def test_windows_by_hand(tokenizer: Tokenizer) -> None:
    """Five tokens of nine are read at once, one of them again: 0 to 4 and 4 to 8."""
    rows = [
        row(NINE, "anna smith"),  # 6 and 7
        row(NINE, "the film", start=0),
        row(NINE, "the", start=NINE.rindex("the")),  # 4, in both
        row(NINE, "in the film", start=12),  # 3 to 5, whole in neither
        row(NINE, ""),
    ]
    data = {"long_text": "windows", "answer_start": "start"}
    for each in rows:
        each.setdefault("start", NINE.index(each["answer"]))
    found = examples(tokenizer, *rows, **data)
    assert found.texts == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.starts == [-4, 0] * 5
    assert found.targets == [
        (0, 0), (6, 7), (4, 5), (0, 0), (8, 8), (4, 4), LOST, LOST, (0, 0), (0, 0),
    ]  # fmt: skip
    assert {len(ids) for ids in found.ids} == {10}


def test_end_that_is_cut_away_is_lost(tokenizer: Tokenizer) -> None:
    rows = [row(NINE, "anna smith"), row(NINE, "is in"), row(NINE, None)]
    found = examples(tokenizer, *rows)
    assert found.targets == [LOST, (6, 7), (0, 0)]
    run = settings(train=rows, max_length=10)
    (line,) = [note for note in read_dataset(run, tokenizer).notes if note.startswith("train")]
    assert "14.0 tokens a text; 100.00% of the texts and 28.57% of the tokens are cut" in line


def test_text_without_a_token_is_read_and_has_no_answer(tokenizer: Tokenizer) -> None:
    found = examples(tokenizer, row(" ", ""), row("", ""), long_text="windows")
    assert found.targets == [(0, 0), (0, 0)]
    assert [len(ids) for ids in found.ids] == [5, 5]


@pytest.mark.parametrize(
    ("context", "start", "stop", "expected"),
    [
        ("is anna smith .", 3, 13, (1, 2)),
        ("is anna smith .", 2, 14, (1, 2)),  # the spaces around it
        ("is anna smith .", 4, 5, (1, 1)),  # a part of a word
        ("is annas .", 7, 8, (2, 2)),  # ##s
        ("is annas .", 3, 7, (1, 1)),
        ("is anna", 2, 3, LOST),  # a space
        ("is anna", 4, 4, NOWHERE),
    ],
)
def test_tokens_of_characters_by_hand(
    tokenizer: Tokenizer, context: str, start: int, stop: int, expected: tuple[int, int]
) -> None:
    (encoding,) = tokenizer.encode([context], offsets=True)
    assert token_span(encoding.offsets[1:-1], start, stop) == expected


@given(texts(), st.data())
def test_tokens_hold_all_characters_that_tokens_hold(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    (encoding,) = tokenizer.encode([text], offsets=True)
    offsets = encoding.offsets[1:-1]
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    found = token_span(offsets, start, stop)
    held = {i for begin, end in offsets for i in range(begin, end)} & set(range(start, stop))
    if start == stop:
        assert found == NOWHERE
    elif not held:
        assert found == LOST
    else:
        first, last = (offsets[each] for each in found)
        assert held <= set(range(first[0], last[1]))
        assert first[1] > start
        assert last[0] < stop


@given(st.integers(1, 30), st.integers(1, 9), st.data())
def test_answer_is_in_each_window_that_holds_it_whole(
    n_tokens: int, size: int, data: st.DataObject
) -> None:
    spans = window_spans(n_tokens, size, data.draw(st.integers(0, size // 2)))
    first = data.draw(st.integers(0, n_tokens - 1))
    last = data.draw(st.integers(first, min(n_tokens - 1, first + size)))
    found = windowed((first, last), spans)
    whole = [start <= first and last < stop for start, stop in spans]
    for (start, _), target, here in zip(spans, found, whole, strict=True):
        if here:
            assert target == (first - start, last - start)
        else:
            assert target == (NOWHERE if any(whole) else LOST)
    assert windowed(NOWHERE, spans) == [NOWHERE] * len(spans)
    assert windowed(LOST, spans) == [LOST] * len(spans)


@given(
    context=st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
    question=st.lists(st.sampled_from(WORDS[:10]), max_size=4).map(" ".join),
    overlap=st.none() | st.integers(0, 5),
    long_text=st.sampled_from(["windows", "truncate"]),
)
def test_windows_are_those_that_answers_are_looked_for_in(
    tokenizer: Tokenizer,
    finder: BertForQuestionAnswering,
    context: str,
    question: str,
    overlap: int | None,
    long_text: str,
) -> None:
    asked = PredictionSettings(
        task="spans", max_length=14, long_text=long_text, window_overlap=overlap
    )
    (reading,) = QuestionAnswerer(finder, tokenizer, asked)._readings([question], [context])
    found = examples(
        tokenizer, row(context, "", question), max_length=14, long_text=long_text,
        window_overlap=overlap,
    )  # fmt: skip
    assert found.ids == [list(piece.ids) for piece in reading.pieces]
    assert [types.count(0) for types in found.types] == [each.n_first for each in reading.pieces]
    n_first = reading.pieces[0].n_first
    assert found.starts == [start - n_first for start, _ in reading.spans]


# ---- losses


def test_loss_by_hand(tokenizer: Tokenizer, finder: BertForQuestionAnswering) -> None:
    """Of nine tokens one has the logit 8, for either end; the second answer lies elsewhere."""
    task = SpanTask(30, may_lack=False)
    found = examples(
        tokenizer, row("is anna smith .", "anna smith"), row("is anna smith .", "is anna")
    )
    total = math.log(math.exp(8) + 8)
    loss = task.objective(finder, task.prepare(found, [0]))
    assert float(loss.sum) == pytest.approx(2 * (total - 8), abs=2e-6)  # float32, of 8
    assert float(loss.count) == 2
    loss = task.objective(finder, task.prepare(found, [1]))
    assert float(loss.sum) == pytest.approx(2 * total, rel=1e-5)


def test_lost_answer_does_not_count(tokenizer: Tokenizer, finder: BertForQuestionAnswering) -> None:
    task = SpanTask(30, may_lack=False)
    found = examples(tokenizer, row(NINE, "anna smith"), row("is anna smith .", "anna smith"))
    assert found.targets[0] == LOST
    both = task.objective(finder, task.prepare(found, [0, 1]))
    one = task.objective(finder, task.prepare(found, [1]))
    assert (float(both.sum), float(both.count)) == (pytest.approx(float(one.sum)), 2)


@given(rows=st.permutations(range(6)), n=st.integers(1, 5))
def test_portions_add_up_in_any_order(tokenizer: Tokenizer, rows: list[int], n: int) -> None:
    model = randomised(BertForQuestionAnswering(small_config(initializer_range=0.8)), seed=3)
    model.eval().requires_grad_(False)
    task = SpanTask(30, may_lack=True)
    found = examples(tokenizer, row(NINE, "in"), row(NINE, ""), row(NINE, "the film"),
                     long_text="windows")  # fmt: skip
    whole = task.objective(model, task.prepare(found, range(6)))
    parts = [task.objective(model, task.prepare(found, part)) for part in (rows[:n], rows[n:])]
    assert float(sum(part.sum for part in parts)) == pytest.approx(float(whole.sum), rel=1e-5)
    assert float(sum(part.count for part in parts)) == float(whole.count) == 12
    alone = 0.0
    for ids, types, (first, last) in zip(found.ids, found.types, found.targets, strict=True):
        out = model(torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        alone -= float(out.start_logits[0].log_softmax(0)[first])
        alone -= float(out.end_logits[0].log_softmax(0)[last])
    assert float(whole.sum) == pytest.approx(alone, rel=1e-5)


# ---- figures


def figures(
    tokenizer: Tokenizer, model: Any, *rows: dict[str, Any], may_lack: bool = False
) -> dict[str, float]:
    found = examples(tokenizer, *rows, long_text="windows")
    return Evaluation(SpanTask(30, may_lack), (), found).report(model).figures


def test_figures_by_hand(tokenizer: Tokenizer, finder: BertForQuestionAnswering) -> None:
    """What is found is "anna smith" in all: right, half of it, and a word beside it."""
    assert figures(tokenizer, finder, row(NINE, "anna smith")) == {
        "exact_match": 1.0, "overlap_f1": 1.0,
    }  # fmt: skip
    found = figures(
        tokenizer, finder, row(NINE, "anna smith"), row(NINE, "anna"), row(NINE, "the film")
    )
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["overlap_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_answer_is_counted_in_its_text_whatever_the_window(
    tokenizer: Tokenizer, finder: BertForQuestionAnswering
) -> None:
    long = "the film is in the film is anna the film"  # 10 tokens, 7 is in the third window of 5
    end = "smith the film is in the film anna smith ."
    rows = [row(f"{'the film ' * n}anna smith", "anna smith") for n in range(9)]
    assert figures(tokenizer, finder, *rows)["exact_match"] == 1.0
    shifted = [row(long, "anna"), row(end, "anna smith")]
    found = examples(tokenizer, *shifted, long_text="windows")
    assert len(found.windows[0]) == 3
    # "anna" alone begins and ends nowhere better than at itself, by its logit for the start.
    assert figures(tokenizer, finder, *shifted)["overlap_f1"] > 0.5


def test_answers_that_no_window_holds_are_never_found(
    tokenizer: Tokenizer, finder: BertForQuestionAnswering
) -> None:
    lost = row(NINE, "in the film")
    assert figures(tokenizer, finder, lost, may_lack=True) == {
        "exact_match": 0.0, "overlap_f1": 0.0,
    }  # fmt: skip


def test_lost_answer_is_not_taken_for_none_far_into_a_text(
    tokenizer: Tokenizer, finder: BertForQuestionAnswering
) -> None:
    """A hundred tokens into it, where -100 and the tokens before it might be -1."""
    near = examples(tokenizer, row("the film is", ""))
    far = Examples(near.ids, near.types, [LOST], texts=[0], starts=[99])
    task = SpanTask(30, may_lack=True)
    assert Evaluation(task, (), near).report(finder).figures["exact_match"] == 1.0
    assert Evaluation(task, (), far).report(finder).figures["exact_match"] == 0.0


def test_no_answer_is_right_where_there_is_none(
    tokenizer: Tokenizer, finder: BertForQuestionAnswering
) -> None:
    """Without "anna" and "smith" all logits are 0, those of [CLS] too: as good as any."""
    rows = [row("the film is", ""), row("is anna smith", "anna smith"), row("is in", "in")]
    found = figures(tokenizer, finder, *rows, may_lack=True)
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert figures(tokenizer, finder, *rows)["exact_match"] == pytest.approx(1 / 3)
    assert figures(tokenizer, finder, row(" ", "")) == {"exact_match": 1.0, "overlap_f1": 1.0}


def test_answers_are_as_long_as_those_of_train(tokenizer: Tokenizer) -> None:
    run = settings(max_length=64)
    long = " ".join(["film"] * 40)
    short = examples(tokenizer, row(long, "film film"), max_length=64)
    assert vars(span_task(run, short)) == vars(SpanTask(30, may_lack=False))
    both = examples(tokenizer, row(long, " ".join(["film"] * 35)), row(long, ""), max_length=64)
    assert vars(span_task(run, both)) == vars(SpanTask(35, may_lack=True))
    windows = examples(
        tokenizer, row(long, "film", start=190), long_text="windows", answer_start="start"
    )
    assert (0, 0) in windows.targets  # of windows, not of a text
    assert not span_task(run, windows).may_lack


def test_longer_answers_than_there_may_be_are_not_found(
    tokenizer: Tokenizer, finder: BertForQuestionAnswering
) -> None:
    found = examples(tokenizer, row("anna is in smith", "anna is in smith"))
    assert Evaluation(SpanTask(4, False), (), found).report(finder).figures["exact_match"] == 1
    assert Evaluation(SpanTask(3, False), (), found).report(finder).figures["exact_match"] == 0


# ---- what does not fit


@pytest.mark.parametrize(
    ("given", "data", "said"),
    [
        (
            row(NINE, "film", "who is in the film"), {},
            "row 1: the question has 5 tokens, expected at most 3, half of what data.max_length",
        ),
        (
            row(NINE, "film"), {"long_text": "error"},
            "row 1: question and text have 14 tokens, expected at most 10; raise data.max_length",
        ),
        (row(NINE, "film"), {"max_length": 7}, "data.max_length is 7, expected at least 8 for"),
        (row(NINE, "film"), {"text_pair": None}, "data.text_pair is missing, expected the column"),
        (
            row(NINE, "film"), {"window_overlap": 5},
            "data.window_overlap is 5, expected at most 4, half of what",
        ),
        (row(NINE, "paris"), {}, "the answer 'paris' is not in its text"),
        (row(NINE, "film", start=3), {"answer_start": "start"}, "in its text at character 3"),
        (row(NINE, "film", start="x"), {"answer_start": "start"}, "starts at 'x', expected"),
    ],
)  # fmt: skip
def test_rows_and_settings_that_do_not_fit_are_refused(
    tokenizer: Tokenizer, given: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    with pytest.raises((DataError, RunError)) as caught:
        examples(tokenizer, given, **data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_train_without_an_answer_is_refused(tokenizer: Tokenizer) -> None:
    run = settings()
    with pytest.raises(RunError, match=r"no answer of train lies within data\.max_length"):
        span_task(run, examples(tokenizer, row(NINE, "anna smith"), row(NINE, "")))
    with pytest.raises(RunError, match="no question of train has an answer"):
        span_task(run, examples(tokenizer, row(NINE, "")))
    other = RunConfig.from_dict({"task": "spans", "loss": {"name": "focal"}})
    with pytest.raises(RunError, match=r"loss\.name is 'focal', expected cross_entropy for task"):
        span_task(other, examples(tokenizer, row(NINE, "film")))


# ---- whole runs


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder of the words, to start from."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    BertModel(small_config(initializer_range=0.5)).save_pretrained(folder)
    small_tokenizer(folder)
    return folder


def questions(n: int = 48) -> list[dict[str, Any]]:
    """Who, and where; of every sixth there is none. Texts have 5 to 17 tokens."""
    rows = []
    for i in range(n):
        before, behind = "the film is " * (i % 3), " in the film" * (i // 3 % 3)
        name, place = ("anna smith", "paris")
        if i % 6 == 5:
            rows.append(row(f"{before}good . poor{behind} .", "", "who ?"))
        elif i % 2:
            rows.append(row(f"{before}{name} lives in {place}{behind}", place, "where ?"))
        else:
            rows.append(row(f"{before}{name} lives in {place}{behind}", name, "who ?"))
    return rows


def run_in(small: Path, **training: Any) -> Callable[[Path], RunConfig]:
    def made(folder: Path) -> RunConfig:
        folder.mkdir(exist_ok=True)
        write_csv(folder / "rows.csv", questions())
        values = {
            "task": "spans", "model": str(small), "optimizer": {"learning_rate": 2e-2},
            "data": {
                "train": "rows.csv", "validation": "rows.csv", "text": "question",
                "text_pair": "context", "label": "answer", "max_length": 16,
                "long_text": "windows",
            },
            "training": {"epochs": 2, "batch_size": 16, "seed": 1, **training},
        }  # fmt: skip
        return RunConfig.from_dict(values, folder=folder)

    return made


def test_run_learns_and_what_it_saves_opens_everywhere(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_in(small, epochs=16, evaluate_every=99, save_every=99, dropout=0.0)(tmp_path)
    tokenizer = Tokenizer.from_pretrained(small)
    rows = read_dataset(run, tokenizer).train
    task = span_task(run, rows)
    assert len(rows) > len(questions())
    before = Evaluation(task, (), rows).report(task.network(run, small).eval()).figures
    outcome = train(run)
    assert outcome.validation is not None
    assert outcome.validation.figures["exact_match"] > before["exact_match"] + 0.5
    assert outcome.validation.figures["exact_match"] > 0.9
    folder = tmp_path / "run"
    answerer = QuestionAnswerer.from_pretrained(folder)
    assert answerer.settings.no_answer
    found = answerer.answer(
        [each["question"] for each in questions()], [each["context"] for each in questions()]
    )
    assert {each.windows for each in found} == {1, 2}
    right = [each.answer == row["answer"] for each, row in zip(found, questions(), strict=True)]
    assert sum(right) / len(right) == outcome.validation.figures["exact_match"]
    capfd.readouterr()
    command("answer", folder, "--question", "who ?", "--context", questions()[2]["context"])
    assert capfd.readouterr().out.endswith("\tanna smith\n")
    nobody = ("answer", folder, "--question", "who ?", "--context", questions()[5]["context"])
    command(*nobody)
    assert capfd.readouterr().out.endswith("\t(none)\n")
    command(*nobody, "--always-answer")
    assert "(none)" not in capfd.readouterr().out
    command("evaluate", folder, "--json")
    shown = json.loads(capfd.readouterr().out)["figures"]
    assert shown == results(folder)["validation"]
    (tmp_path / "one.csv").write_text("question,context,answer\nwho ?,good . poor .,\n")
    command("evaluate", folder, tmp_path / "one.csv", "--json")  # of which no row has an answer
    assert json.loads(capfd.readouterr().out)["figures"]["exact_match"] in (0.0, 1.0)


def test_stopped_run_goes_on_bit_for_bit(small: Path, tmp_path: Path) -> None:
    in_one_go_and_in_parts(run_in(small), tmp_path, step=4)
