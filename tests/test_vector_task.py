"""Tasks of vectors: losses by hand and one text at a time, alike texts, batches, whole runs."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, randomised
from test_run import WORDS, small, write_csv
from torch import Tensor
from whole_runs import command, in_one_go_and_in_parts, results

from minibert import BertConfig, BertModel, Embedder, TextScorer, Tokenizer
from minibert.errors import RunError
from minibert.layout import Padded
from minibert.pooling import POOLINGS, pool
from minibert.recipe import DenseStep, Recipe, read_recipe, write_recipe
from minibert.training import losses
from minibert.training.dataset import read_examples
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Examples
from minibert.training.losses import LossSum
from minibert.training.metrics import metrics_of
from minibert.training.run import train
from minibert.training.run_config import RunConfig
from minibert.training.vector_task import Vectors, VectorTask, _no_negatives, vector_task

__all__ = ["small"]  # a fixture

LENGTHS = (2, 5, 3, 7, 4, 2, 6, 3, 5, 4, 3, 2)


def config_of(task: str = "contrastive", **tables: Any) -> RunConfig:
    return RunConfig.from_dict({"task": task, **tables})


def task_of(run: RunConfig, scores: tuple[float, ...] = (), **recipe: Any) -> VectorTask:
    return vector_task(run, Recipe(max_length=8, **recipe), scores)


def sets(n_parts: int = 2, n: int = 4) -> Examples:
    """Sets of texts of random tokens, none twice."""
    generator = torch.Generator().manual_seed(3)
    ids = [
        [5 + place % 6, *torch.randint(5, 11, (length - 1,), generator=generator).tolist()]
        for place, length in enumerate((LENGTHS * 3)[: n * n_parts])
    ]
    assert len(set(map(tuple, ids))) == len(ids)
    scores = [0.5, 0.0, 1.0, 0.25, 0.75, 0.1][:n]
    return Examples(ids, [[0] * len(row) for row in ids], scores, n_parts)


@pytest.fixture(scope="module")
def encoder() -> BertModel:
    found = randomised(BertModel(replace(TINY, initializer_range=0.5)), seed=2).eval()
    return found.requires_grad_(False)


def alone(encoder: BertModel, examples: Examples, modes: tuple[str, ...] = ("mean",)) -> Tensor:
    """The vector of each text, computed by itself: `(examples, parts, width)`."""
    found = []
    for ids in examples.ids:
        batch = torch.tensor([ids])
        found.append(pool(encoder(batch).last_hidden_state, Padded.of(batch), modes)[0])
    return torch.stack(found).view(len(examples), examples.n_parts, -1)


def given_vectors(rows: list[list[list[float]]], texts: list[list[int]]) -> Vectors:
    vectors = torch.tensor(rows)
    return Vectors(vectors, torch.zeros(len(rows)), torch.tensor(texts))


# ---- by hand


X, Y, MINUS_X = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_contrastive_loss_by_hand() -> None:
    """Each first text has its own second one at cosine 1, the other at 0."""
    task = task_of(config_of(loss={"temperature": 1.0}))
    loss = task.loss(given_vectors([[X, X], [Y, Y]], [[0, 1], [2, 3]]))
    assert float(loss.sum) == pytest.approx(2 * math.log(1 + math.exp(-1)))
    assert float(loss.count) == 2
    halved = task_of(config_of(loss={"temperature": 0.5}))
    loss = halved.loss(given_vectors([[X, X], [Y, Y]], [[0, 1], [2, 3]]))
    assert float(loss.sum) == pytest.approx(2 * math.log(1 + math.exp(-2)))


def test_text_that_stands_twice_is_no_negative_by_hand() -> None:
    """The second texts of both are one and the same: nothing is left to tell it from."""
    task = task_of(config_of(loss={"temperature": 1.0}))
    loss = task.loss(given_vectors([[X, X], [Y, X]], [[0, 1], [2, 1]]))
    assert float(loss.sum) == 0
    told = task.loss(given_vectors([[X, X], [Y, X]], [[0, 1], [2, 3]]))
    assert float(told.sum) == pytest.approx(2 * math.log(2))


def test_hard_negatives_are_candidates_of_all_by_hand() -> None:
    """At cosine -1 of the one and 0 of the other, beside the two second texts."""
    run = config_of(data={"negatives": ["c"]}, loss={"temperature": 1.0})
    loss = task_of(run).loss(
        given_vectors([[X, X, MINUS_X], [Y, Y, MINUS_X]], [[0, 1, 2], [3, 4, 5]])
    )
    e = math.exp
    first = math.log((e(1) + e(0) + 2 * e(-1)) / e(1))
    second = math.log((e(1) + e(0) + 2 * e(0)) / e(1))
    assert float(loss.sum) == pytest.approx(first + second)


def test_symmetric_loss_is_the_mean_of_both_directions_by_hand() -> None:
    """The second texts are one vector: seen from them both first texts are as near as they are."""
    run = config_of(loss={"temperature": 1.0, "symmetric": True})
    loss = task_of(run).loss(given_vectors([[X, X], [Y, X]], [[0, 1], [2, 3]]))
    forward = 2 * math.log(2)
    backward = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))
    assert float(loss.sum) == pytest.approx((forward + backward) / 2)


def test_triplet_loss_is_of_cosine_distances_by_hand() -> None:
    run = config_of(data={"negatives": ["c"]}, loss={"name": "triplet", "margin": 0.75})
    rows = [[X, X, Y], [X, Y, MINUS_X], [X, Y, X]]
    loss = task_of(run).loss(given_vectors(rows, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]))
    assert float(loss.sum) == pytest.approx(0 + 0 + (1 - 0 + 0.75))
    assert float(loss.count) == 3


def test_similarity_losses_by_hand() -> None:
    vectors = torch.tensor([[X, X], [X, Y]])
    given = Vectors(vectors, torch.tensor([2.0, 4.0]), torch.zeros(2, 2, dtype=torch.long))
    # Cosines 1 and 0, scores a half and 1: (1 - 0.5)² + (0 - 1)².
    cosine = task_of(config_of("similarity", loss={"name": "cosine"}), (2.0, -4.0))
    assert float(cosine.loss(given).sum) == pytest.approx(0.25 + 1)
    wider = config_of("similarity", data={"score_scale": 8.0}, loss={"name": "cosine"})
    assert float(task_of(wider, (2.0, 4.0)).loss(given).sum) == pytest.approx(0.75**2 + 0.5**2)
    zeros = config_of("similarity", loss={"name": "cosine"})
    of_zeros = given._replace(targets=torch.zeros(2))
    assert float(task_of(zeros, (0.0, 0.0)).loss(of_zeros).sum) == pytest.approx(1.0)
    # The pair of the lower score has the higher cosine: log(1 + exp(1 / T)), for two pairs.
    ordered = task_of(config_of("similarity", loss={"temperature": 0.5}))
    loss = ordered.loss(given)
    assert float(loss.sum) == pytest.approx(2 * math.log(1 + math.exp(2)))
    assert float(loss.count) == 2


def test_widths_are_added_up_by_hand() -> None:
    """Cut to one component the texts of a pair are alike, at full width they are at a right angle.

    Each is compared with a candidate at cosine 0.
    """
    run = config_of(loss={"temperature": 1.0, "matryoshka_dims": [3, 1]})
    rows = [[[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]
    loss = task_of(run).loss(given_vectors(rows, [[0, 1], [2, 3]]))
    full = math.log(2) + math.log(1 + math.exp(-1))
    cut = math.log(1 + math.exp(-1)) + math.log(2)  # a vector of 0 has the cosine 0 with all
    assert float(loss.sum) == pytest.approx(full + cut)
    assert float(loss.count) == 2


def test_which_candidates_are_no_negatives_by_hand() -> None:
    """Texts: a-p-n, a-q-p, b-q-a, c-b-n. Candidates are p q q b, then n p a n."""
    a, b, c, n, p, q = range(6)
    found = _no_negatives(torch.tensor([[a, p, n], [a, q, p], [b, q, a], [c, b, n]]))
    of_a = [True, True, True, False, False, True, True, False]  # p and q belong to it
    of_b = [False, True, True, True, False, False, False, False]
    of_c = [False, False, False, True, False, False, False, False]
    assert found.tolist() == [of_a, of_a, of_b, of_c]


# ---- one text at a time


@pytest.mark.parametrize("modes", [(mode,) for mode in POOLINGS] + [("mean", "cls")])
def test_vectors_are_those_of_each_text_alone(encoder: BertModel, modes: tuple[str, ...]) -> None:
    examples = sets(n_parts=3)
    task = task_of(config_of(data={"negatives": ["c"]}), pooling=modes)
    batch = task.prepare(examples, [2, 0, 3])
    _, found = task.judged(encoder, batch)
    expected = alone(encoder, examples, modes)[[2, 0, 3]]
    torch.testing.assert_close(found["vectors"], expected, rtol=1e-5, atol=1e-6)


Compared = Callable[[Tensor, Tensor, Tensor, Tensor], LossSum]  # first to third texts, scores
CASES: dict[str, tuple[dict[str, Any], Compared]] = {
    "cosent": (
        {"task": "similarity", "loss": {"temperature": 0.1}},
        lambda a, b, c, scores: losses.cosent(a, b, scores, scale=10.0),
    ),
    "cosine": (
        {"task": "similarity", "loss": {"name": "cosine"}},
        lambda a, b, c, scores: losses.cosine_similarity(a, b, scores),
    ),
    "contrastive": (
        {"task": "contrastive"},
        lambda a, b, c, scores: losses.contrastive(a, b, temperature=0.05),
    ),
    "negatives": (
        {"task": "contrastive", "data": {"negatives": ["c"]}, "loss": {"symmetric": True}},
        lambda a, b, c, scores: losses.contrastive(a, b, c, temperature=0.05, symmetric=True),
    ),
    "triplet": (
        {"task": "contrastive", "data": {"negatives": ["c"]}, "loss": {"name": "triplet"}},
        lambda a, b, c, scores: losses.triplet(a, b, c, margin=0.5, distance="cosine"),
    ),
    "widths": (
        {"task": "contrastive", "loss": {"matryoshka_dims": [4, 2]}},
        lambda a, b, c, scores: losses.matryoshka(losses.contrastive, (a, b), dims=[4, 2]),
    ),
}


def case_of(name: str) -> tuple[VectorTask, Examples, Compared]:
    tables, compare = CASES[name]
    run = RunConfig.from_dict(tables)
    examples = sets(n_parts=2 + len(run.data.negatives), n=6)
    return task_of(run, (1.0,)), examples, compare


@pytest.mark.parametrize("name", CASES)
def test_loss_is_that_of_vectors_computed_one_text_at_a_time(encoder: BertModel, name: str) -> None:
    task, examples, compare = case_of(name)
    loss = task.objective(encoder, task.prepare(examples, range(6)))
    first, second, *rest = alone(encoder, examples).unbind(dim=1)
    third = rest[0] if rest else first
    expected = compare(first, second, third, torch.tensor(examples.targets))
    assert float(loss.sum) == pytest.approx(float(expected.sum), rel=1e-5)
    assert float(loss.sum) > 0.1
    assert float(loss.count) == 6


@pytest.mark.parametrize("name", CASES)
@given(rows=st.permutations(range(6)))
def test_loss_does_not_depend_on_the_order(encoder: BertModel, name: str, rows: list[int]) -> None:
    task, examples, _ = case_of(name)
    expected = task.objective(encoder, task.prepare(examples, range(6)))
    found = task.objective(encoder, task.prepare(examples, rows))
    assert float(found.sum) == pytest.approx(float(expected.sum), rel=1e-5)


@pytest.mark.parametrize("name", ["cosine", "triplet"])
@given(n=st.integers(1, 5), rows=st.permutations(range(6)))
def test_portions_add_up_where_examples_are_not_compared(
    encoder: BertModel, name: str, n: int, rows: list[int]
) -> None:
    task, examples, _ = case_of(name)
    whole = task.objective(encoder, task.prepare(examples, rows))
    parts = [task.objective(encoder, task.prepare(examples, part)) for part in (rows[:n], rows[n:])]
    assert float(sum(part.sum for part in parts)) == pytest.approx(float(whole.sum), rel=1e-5)
    assert float(sum(part.count for part in parts)) == float(whole.count)


@pytest.mark.parametrize("name", ["cosent", "contrastive", "negatives"])
def test_portions_are_easier_where_examples_are_compared(encoder: BertModel, name: str) -> None:
    task, examples, _ = case_of(name)
    whole, *parts = (
        task.objective(encoder, task.prepare(examples, rows))
        for rows in (range(6), [0, 1], [2, 3, 4, 5])
    )
    assert float(sum(part.sum for part in parts)) < float(whole.sum) - 0.1


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_pair_that_stands_twice_is_told_from_the_others_alone(
    encoder: BertModel, rows: list[int]
) -> None:
    task, examples, _ = case_of("contrastive")
    found = task.objective(encoder, task.prepare(examples, rows))
    first, second = torch.nn.functional.normalize(alone(encoder, examples), dim=-1).unbind(dim=1)
    scores = (first @ second.T / 0.05).double().exp().tolist()
    expected = [
        math.log(1 + sum(scores[row][other] for other in rows if other != row) / scores[row][row])
        for row in rows
    ]
    assert float(found.sum) == pytest.approx(sum(expected), rel=1e-4, abs=1e-5)


# ---- figures


def test_figures_of_contrastive_by_hand(encoder: BertModel) -> None:
    """The first finds its own at once, the second behind one, the third behind two."""
    task = task_of(config_of(loss={"temperature": 0.5}))
    examples = sets(n=3)
    batch = task.prepare(examples, range(3))
    steps = math.pi / 8
    angles = [[0.0, 0.0], [1.0, 3.0], [2.0, -2.0]]  # first texts at 0 1 2, second at 0 3 -2
    vectors = torch.tensor(
        [[[math.cos(a * steps), math.sin(a * steps)] for a in r] for r in angles]
    )
    metrics = metrics_of("contrastive")
    task.measure([(batch, {"vectors": 3 * vectors})], examples, metrics)
    figures = metrics.compute()
    # From 1 it is 1 to 0, 2 to 3, 3 to -2; from 2 it is 2, 1, and 4 to its own.
    assert figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert figures["accuracy"] == pytest.approx(1 / 3)
    scores = [[math.cos((a - b) * steps) / 0.5 for b in (0, 3, -2)] for a in (0, 1, 2)]
    expected = [math.log(sum(map(math.exp, row))) - row[own] for own, row in enumerate(scores)]
    assert figures["loss"] == pytest.approx(sum(expected) / 3)


def test_alike_texts_are_not_ranked_against_each_other() -> None:
    task = task_of(config_of())
    ids = [[5], [6, 7], [8], [6, 7]]
    examples = Examples(ids, [[0] * len(row) for row in ids], [0, 0], 2)
    batch = task.prepare(examples, [0, 1])
    metrics = metrics_of("contrastive")
    vectors = torch.tensor([[X, Y], [X, Y]])
    task.measure([(batch, {"vectors": vectors})], examples, metrics)
    assert metrics.compute()["accuracy"] == 1.0


def test_figures_are_computed_in_full_under_half_precision() -> None:
    """Cosines that bfloat16 cannot tell apart."""
    task = task_of(config_of())
    examples = sets(n=2)
    batch = task.prepare(examples, [0, 1])
    near = [math.cos(0.01), math.sin(0.01)]
    vectors = torch.tensor([[X, X], [near, near]])
    metrics = metrics_of("contrastive")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task.measure([(batch, {"vectors": vectors})], examples, metrics)
    assert metrics.compute()["accuracy"] == 1.0


def test_figures_of_similarity_are_of_cosines(encoder: BertModel) -> None:
    run = config_of("similarity")
    examples = sets(n=6)
    report = Evaluation(task_of(run), (), examples).report(encoder)
    first, second = torch.nn.functional.normalize(alone(encoder, examples), dim=-1).unbind(dim=1)
    cosines = (first * second).sum(dim=1)
    both = torch.stack([cosines, torch.tensor(examples.targets)])
    assert report.figures["pearson"] == pytest.approx(float(both.corrcoef()[0, 1]), abs=1e-5)


# ---- what does not fit


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"task": "similarity", "loss": {"name": "mse"}}, "expected cosent or cosine for task"),
        ({"loss": {"name": "cosent"}}, "expected contrastive or triplet for task 'contrastive'"),
        ({"loss": {"name": "triplet"}}, "data.negatives names 0 columns, expected one"),
        (
            {"loss": {"name": "triplet"}, "data": {"negatives": ["c", "d"]}},
            "data.negatives names 2 columns, expected one",
        ),
        (
            {"loss": {"name": "triplet", "symmetric": True}, "data": {"negatives": ["c"]}},
            "loss.symmetric goes with contrastive, not with triplet",
        ),
        ({"loss": {"matryoshka_dims": [4, 0]}}, "loss.matryoshka_dims is [4, 0], expected widths"),
        ({"loss": {"matryoshka_dims": [4, 4]}}, "expected widths of 1 or more, each once"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError) as caught:
        task_of(RunConfig.from_dict({"task": "contrastive", **tables}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dense_module_is_refused(tmp_path: Path) -> None:
    dense = DenseStep(tmp_path, 4, 2, True, "tanh")
    with pytest.raises(RunError, match="has a dense module behind its pooling"):
        task_of(config_of(), dense=(dense,))


def test_widths_beyond_that_of_the_vectors_are_refused(small: Path) -> None:
    run = config_of(loss={"matryoshka_dims": [33, 8]})
    task = task_of(run, pooling=("mean", "max"))
    with pytest.raises(RunError, match="has 33, expected at most 32, the width of the model"):
        task.network(run, small)
    fits = config_of(loss={"matryoshka_dims": [32, 8]})
    assert task_of(fits, pooling=("mean", "max")).network(fits, small).config.hidden_size == 16


# ---- whole runs


def pairs(n: int = 36) -> list[dict[str, Any]]:
    """Two words, and how alike they are: 5 of the same mood, else 1; what belongs to the first."""
    rows = []
    for i in range(n):
        a, b = i % 6, (i * 5 + i // 6) % 6
        rows.append({
            "a": WORDS[a], "b": f"{WORDS[b]}s", "score": 5 if a // 3 == b // 3 else 1,
            "same": f"{WORDS[a]}s", "other": f"{WORDS[(a + 3) % 6]}s",
        })  # fmt: skip
    return rows


def run_in(small: Path, **tables: Any) -> Callable[[Path], RunConfig]:
    """Runs of these settings, each in a folder of its own."""

    def made(folder: Path) -> RunConfig:
        folder.mkdir(exist_ok=True)
        write_csv(folder / "rows.csv", pairs())
        data = {"train": "rows.csv", "validation": "rows.csv", "text": "a", "max_length": 16}
        training = {"epochs": 2, "batch_size": 12, "seed": 1} | tables.get("training", {})
        values = {"model": str(small), "optimizer": {"learning_rate": 1e-2}, **tables}
        values |= {"data": data | tables["data"], "training": training}
        return RunConfig.from_dict(values, folder=folder)

    return made


class Case(NamedTuple):
    tables: dict[str, Any]
    epochs: int
    rate: float
    dropout: float
    figure: str
    least: float


_SCORED = {"text_pair": "b", "label": "score"}
_OWN = {"text_pair": "same", "negatives": ["other"]}
RUNS = {
    "cosent": Case(
        {"task": "similarity", "data": _SCORED, "loss": {"temperature": 0.5}},
        20, 5e-3, 0.0, "pearson", 0.9,
    ),
    "contrastive": Case(
        {"task": "contrastive", "data": _OWN, "loss": {"symmetric": True, "temperature": 0.1}},
        8, 1e-2, 0.0, "mrr", 0.9,
    ),
    "cosine": Case(
        {
            "task": "similarity", "data": _SCORED,
            "loss": {"name": "cosine", "matryoshka_dims": [16, 8]},
        },
        120, 3e-3, 0.0, "pearson", 0.9,
    ),
    "triplet": Case(
        {"task": "contrastive", "data": _OWN, "loss": {"name": "triplet", "margin": 1.5}},
        8, 1e-2, 0.0, "mrr", 0.6,
    ),
}  # fmt: skip
FIRST_FAST = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("cosine", "triplet"))) for name in RUNS
]


def untrained(small: Path, tables: dict[str, Any], figure: str) -> float:
    """The figure of the network that is started from."""
    embedder = Embedder.from_pretrained(small)
    names = [tables["data"]["text_pair"], *tables["data"].get("negatives", [])]
    first, *rest = (embedder.encode([row[name] for row in pairs()]) for name in ("a", *names))
    metrics = metrics_of(tables["task"])
    if tables["task"] == "similarity":
        cosines = torch.tensor((first * rest[0]).sum(axis=1))
        metrics.update(cosines, torch.tensor([float(row["score"]) for row in pairs()]))
    else:
        texts = [[row[name] for row in pairs()] for name in names]
        scores = torch.tensor(first) @ torch.cat([torch.tensor(each) for each in rest]).T
        own = [row["same"] for row in pairs()]
        flat = [text for each in texts for text in each]
        for i, text in enumerate(own):
            for j, other in enumerate(flat):
                if other == text and j != i:
                    scores[i, j] = -math.inf
        metrics.update(scores, torch.arange(len(own)))
    return metrics.compute()[figure]


@pytest.mark.parametrize("name", FIRST_FAST)
def test_run_learns_and_what_it_saves_opens_everywhere(
    small: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    case = RUNS[name]
    training = {
        "epochs": case.epochs, "evaluate_every": 99, "save_every": 99, "dropout": case.dropout,
    }  # fmt: skip
    made = run_in(small, **case.tables, training=training, optimizer={"learning_rate": case.rate})
    outcome = train(made(tmp_path))
    assert outcome.validation is not None
    assert untrained(small, case.tables, case.figure) < 0.5
    assert outcome.validation.figures[case.figure] > case.least
    folder = tmp_path / "run"
    embedder = Embedder.from_pretrained(folder / "model")
    vectors = embedder.encode(["good", "fines"])
    cosine = float(vectors[0] @ vectors[1])
    scored = TextScorer.from_pretrained(folder).score("good", "fines")
    assert scored.score == pytest.approx(cosine, abs=1e-6)
    capfd.readouterr()
    command("score", folder, "good", "--pair", "fines")
    assert float(capfd.readouterr().out) == pytest.approx(cosine, abs=1e-4)
    command("evaluate", folder, "--json")
    shown = json.loads(capfd.readouterr().out)["figures"]
    assert shown == pytest.approx(results(folder)["validation"], abs=1e-6)


@pytest.mark.parametrize("name", FIRST_FAST)
def test_stopped_run_goes_on_bit_for_bit(small: Path, tmp_path: Path, name: str) -> None:
    in_one_go_and_in_parts(run_in(small, **RUNS[name].tables), tmp_path, step=4)


def test_figures_of_a_run_are_of_the_cosines_that_the_saved_model_gives(
    small: Path, tmp_path: Path
) -> None:
    """Of texts, too, that are longer than what is read of them."""
    rows = [{**row, "a": f"{row['a']} {'the film ' * (i % 4)}"} for i, row in enumerate(pairs())]
    data = {"text_pair": "b", "label": "score", "train": rows, "validation": rows, "max_length": 8}
    made = run_in(small, task="similarity", data=data, training={"epochs": 1})
    outcome = train(made(tmp_path))
    assert outcome.validation is not None
    found = TextScorer.from_pretrained(tmp_path / "run").score(
        [row["a"] for row in rows], [row["b"] for row in rows]
    )
    assert any(each.truncated for each in found)
    embedder = Embedder.from_pretrained(tmp_path / "run" / "model")
    first, second = (embedder.encode([row[name] for row in rows]) for name in ("a", "b"))
    assert [each.score for each in found] == pytest.approx((first * second).sum(axis=1), abs=1e-6)
    both = torch.tensor([[each.score for each in found], [row["score"] for row in rows]])
    assert outcome.validation.figures["pearson"] == pytest.approx(
        float(both.double().corrcoef()[0, 1]), abs=1e-5
    )


def test_recipe_of_the_checkpoint_is_followed_and_kept(small: Path, tmp_path: Path) -> None:
    """Its pooling, that it lowercases first, and its prompts, but for one before each text."""
    base = tmp_path / "base"
    shutil.copytree(small, base)
    (base / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    recipe = Recipe(
        max_length=16, pooling=("cls", "mean"), normalise=False, lowercase=True,
        prompts={"query": "the "}, default_prompt="query",
    )  # fmt: skip
    write_recipe(recipe, base, hidden_size=16)
    rows = [{**row, "a": row["a"].upper()} for row in pairs()]
    data = {"text_pair": "b", "label": "score", "train": rows, "validation": rows}
    made = run_in(base, task="similarity", data=data, training={"epochs": 1})
    outcome = train(made(tmp_path))
    saved = Embedder.from_pretrained(tmp_path / "run" / "model")
    assert saved.recipe.pooling == ("cls", "mean")
    assert (saved.recipe.normalise, saved.recipe.lowercase) == (False, True)
    assert dict(saved.recipe.prompts) == {"query": "the "}
    assert saved.recipe.default_prompt is None
    first, second = (saved.encode([row[name] for row in rows]) for name in ("a", "b"))
    cosines = torch.cosine_similarity(torch.tensor(first), torch.tensor(second))
    both = torch.stack([cosines, torch.tensor([float(row["score"]) for row in rows])])
    assert outcome.validation is not None
    assert outcome.validation.figures["pearson"] == pytest.approx(
        float(both.double().corrcoef()[0, 1]), abs=1e-5
    )


def test_scores_that_are_no_cosines_are_refused_before_anything_is_trained(
    small: Path, tmp_path: Path
) -> None:
    rows = pairs()
    larger = [{**row, "score": row["score"] + 1} for row in rows]
    data = {"text_pair": "b", "label": "score", "train": rows, "validation": larger}
    made = run_in(small, task="similarity", data=data, loss={"name": "cosine"})
    with pytest.raises(RunError, match=r"data\.validation has the score 6, expected at most 5,"):
        train(made(tmp_path))
    data |= {"score_scale": 4.5, "validation": None}
    made = run_in(small, task="similarity", data=data, loss={"name": "cosine"})
    with pytest.raises(
        RunError, match=r"data.train has the score 5, expected at most 4\.5, data\."
    ):
        train(made(tmp_path))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.data
def test_real_checkpoint_has_its_known_figure_before_it_is_trained(
    minilm: Path, data: Path
) -> None:
    """82.03, as sentence-transformers gives it, of the test side of STS-B."""
    columns = {
        "format": "tsv", "quoting": False, "header": False, "columns": 7,
        "extra_columns": "ignore", "label": "5", "text": "6", "text_pair": "7",
    }  # fmt: skip
    run = config_of("similarity", data=columns)
    tokenizer = Tokenizer.from_pretrained(minilm)
    examples = read_examples(run, data / "stsb" / "sts-test.csv", (), tokenizer)
    recipe = read_recipe(minilm, BertConfig.from_file(minilm / "config.json"), None)
    task = vector_task(run, recipe, examples.targets)
    model = task.network(run, minilm).eval()
    figures = Evaluation(task, (), examples).report(model).figures
    assert 100 * figures["spearman"] == pytest.approx(82.03, abs=0.005)
