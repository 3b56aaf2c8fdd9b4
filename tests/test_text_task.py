"""Tasks of texts and of words: heads, batches, and what is said of a text by its windows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import hand_made, save_small, small_tokenizer
from small_runs import ID, ids_of, run_of, save_encoder
from torch import Tensor

from minibert import BertForSequenceClassification, BertForTokenClassification, Tokenizer
from minibert.checkpoint import Pretrained
from minibert.errors import RunError
from minibert.heads import last_linear
from minibert.prediction.decisions import decide
from minibert.training import losses
from minibert.training.augment import Augmentation
from minibert.training.batches import portions
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch, Examples, Found, each_batch
from minibert.training.losses import IGNORED
from minibert.training.metrics import metrics_of
from minibert.training.text_task import TextTask, text_task

SPECIAL = frozenset([ID["[CLS]"], ID["[SEP]"]])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def examples_of(texts: Sequence[str], targets: Sequence[Any]) -> Examples:
    ids = [ids_of(f"[CLS] {text} [SEP]") for text in texts]
    return Examples(ids, [[0] * len(each) for each in ids], list(targets))


def given_logits(task: TextTask, examples: Examples, logits: Tensor) -> list[tuple[Batch, Found]]:
    """What a network with these logits, one row an example, would give in batches of two."""
    batches = each_batch(examples, 2, task.prepare)
    return [(batch, {"logits": logits[list(batch.rows)]}) for batch in batches]


def head_of(model: Pretrained) -> tuple[Tensor, Tensor]:
    linear = last_linear(model)
    return linear.weight.detach().clone(), linear.bias.detach().clone()


# ---- what a run makes


def test_task_of_each_kind() -> None:
    task = text_task(run_of("multiclass"), ("a", "b", "c"), [0, 0, 2, 0])
    assert (task.head, task.labels) == (BertForSequenceClassification, ("a", "b", "c"))
    assert (task.target_dtype, task.one_logit) == (torch.long, False)
    assert task.problem_type == "single_label_classification"
    assert task.prior == (0.75, 0.0, 0.25)
    task = text_task(run_of("binary"), ("no", "yes"), [0, 1, 0, 0])
    assert (task.labels, task.prior, task.one_logit) == (("no", "yes"), (0.75, 0.25), False)
    task = text_task(run_of("binary", head={"num_labels": 1}), ("no", "yes"), [0.0, 1.0, 0.0, 0.0])
    assert (task.labels, task.prior, task.one_logit) == (("yes",), (0.25,), True)
    assert (task.target_dtype, task.problem_type) == (torch.float, "multi_label_classification")
    task = text_task(run_of("multilabel"), ("a", "b"), [[1.0, 0.0], [1.0, 1.0]])
    assert (task.prior, task.target_dtype) == ((1.0, 0.5), torch.float)
    assert task.problem_type == "multi_label_classification"
    task = text_task(run_of("tokens"), ("O", "B-x"), [[IGNORED, 1, 0], [0]])
    assert (task.head, task.target_dtype) == (BertForTokenClassification, torch.long)
    assert (task.problem_type, task.prior) == (None, ())


def test_numbers_are_learnt_standardised() -> None:
    task = text_task(run_of("regression"), (), [2.0, 4.0, 6.0, 8.0])
    assert (task.mean, task.scale) == (5.0, pytest.approx(5**0.5))
    assert (task.labels, task.one_logit, task.problem_type) == (("score",), True, "regression")
    assert text_task(run_of("regression"), (), [3.0, 3.0]).scale == 1.0
    empty = text_task(run_of("regression"), (), [])
    assert (empty.mean, empty.scale) == (0.0, 1.0)


def test_settings_of_a_run_reach_its_task() -> None:
    augmentation = Augmentation(SPECIAL, delete=0.5)
    run = run_of("binary", data={"merge_windows": "vote"}, training={"seed": 7})
    task = text_task(run, ("a", "b"), [0, 1], augmentation)
    assert (task.merge_windows, task.seed, task.augmentation) == ("vote", 7, augmentation)


@pytest.mark.parametrize(
    ("task", "labels", "count"),
    [("multiclass", "abc", 2), ("multiclass", "abc", 1), ("binary", "ab", 3), ("tokens", "ab", 4)],
)
def test_number_of_labels_that_is_not_theirs_is_refused(task: str, labels: str, count: int) -> None:
    with pytest.raises(RunError) as caught:
        text_task(run_of(task, head={"num_labels": count}), tuple(labels), [])
    assert str(caught.value) == (
        f"head.num_labels is {count}, expected {len(labels)}, for there are so many labels; leave "
        "it out"
    )
    text_task(run_of(task, head={"num_labels": len(labels)}), tuple(labels), [])


# ---- the network


def test_fresh_head_is_the_same_for_a_seed(encoder: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # whatever was drawn before
        run = run_of("binary", training={"seed": seed})
        model = text_task(run, ("a", "b"), [0, 1]).network(run, encoder)
        assert model.config.labels == ("a", "b")
        assert model.config.problem_type == "single_label_classification"
        heads.append(head_of(model)[0])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_fresh_head_starts_as_the_run_says(encoder: Path) -> None:
    settings = {"init_std": 1e-3, "bias_from_prior": True, "dropout": 0.25}
    run = run_of("multiclass", head=settings, training={"dropout": 0.5})
    model = text_task(run, ("a", "b", "c"), [0] * 6 + [1] * 3 + [2]).network(run, encoder)
    weight, bias = head_of(model)
    assert 0 < weight.abs().max().item() < 1e-2
    assert bias.softmax(0).tolist() == pytest.approx([0.6, 0.3, 0.1])
    config = model.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.5, 0.5)
    assert config.classifier_dropout == 0.25
    run = run_of("multilabel", head=settings)
    targets = [[1.0, 0.0]] + [[0.0, 0.0]] * 3
    _, bias = head_of(text_task(run, ("a", "b"), targets).network(run, encoder))
    assert bias.sigmoid().tolist() == pytest.approx([0.25, 1e-3])  # of none a thousandth
    run = run_of("binary")
    weight, bias = head_of(text_task(run, ("a", "b"), [0, 1]).network(run, encoder))
    assert weight.abs().max().item() > 0.1  # the checkpoint's own initializer_range
    assert bias.tolist() == [0.0, 0.0]


def test_head_may_have_a_hidden_layer(encoder: Path, tmp_path: Path) -> None:
    run = run_of("binary", head={"hidden": 5, "init_std": 1e-3, "bias_from_prior": True})
    task = text_task(run, ("a", "b"), [0, 0, 0, 1])
    model = task.network(run, encoder)
    weight, bias = head_of(model)
    assert (weight.shape, model.config.classifier_hidden_size) == ((2, 5), 5)
    assert bias.softmax(0).tolist() == pytest.approx([0.75, 0.25])
    save_small(model, tmp_path)
    again = task.network(run, tmp_path)
    assert torch.equal(head_of(again)[0], weight)
    wider = run_of("binary", head={"hidden": 6})
    assert head_of(text_task(wider, ("a", "b"), [0, 1]).network(wider, tmp_path))[0].shape == (2, 6)


def test_head_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """Its start was another run's: a trained model is measured as it was trained."""
    saved = hand_made(BertForSequenceClassification, {"good": 2, "bad": 1})
    save_small(saved, tmp_path)
    run = run_of("binary", head={"init_std": 1.0, "bias_from_prior": True})
    for labels, is_same in ((("neg", "pos"), True), (("pos", "neg"), False), (("neg", "x"), False)):
        found = head_of(text_task(run, labels, [0, 0, 0, 1]).network(run, tmp_path))
        assert torch.equal(found[0], head_of(saved)[0]) == is_same
        assert (found[1].tolist() == [0.0, 0.0]) == is_same


def test_head_of_another_kind_does_not_fit(tmp_path: Path) -> None:
    """The classifiers of texts and of words have one name and one shape."""
    saved = hand_made(BertForTokenClassification, {"good": 2})
    save_small(saved, tmp_path)
    run = run_of("binary")
    model = text_task(run, ("neg", "pos"), [0, 1]).network(run, tmp_path)
    assert not torch.equal(head_of(model)[0], head_of(saved)[0])


def test_numbers_are_true_ones_when_saved_and_standardised_again_when_gone_on_with(
    encoder: Path, tmp_path: Path
) -> None:
    run, texts = run_of("regression"), examples_of(["good film", "bad", "odd"], [10.0, 30.0, 20.0])
    task = text_task(run, (), texts.targets)
    model = task.network(run, encoder)
    batch = task.prepare(texts, [0, 1, 2])
    with torch.no_grad():
        last_linear(model).bias.fill_(0.5)
        loss, found = task.judged(model, batch)
    task.finish(model)
    raw = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout).logits
    assert raw[:, 0].tolist() == pytest.approx(found["logits"].tolist(), abs=1e-4)
    save_small(model, tmp_path)
    other = text_task(run, (), [0.0, 4.0])  # other numbers than those it was trained on
    for each in (task, other):
        figures = each.judged(each.network(run, tmp_path), batch)[1]["logits"]
        assert figures.tolist() == pytest.approx(found["logits"].tolist(), abs=1e-3)
    with torch.no_grad():
        again = task.objective(task.network(run, tmp_path), batch)
    assert again.sum.item() == pytest.approx(loss.sum.item(), rel=1e-4)


# ---- batches


def test_loss_and_logits_of_one_logit_and_of_several(tmp_path: Path) -> None:
    texts = examples_of(["good", "bad film", "odd"], [1, 0, 0])
    two = text_task(run_of("binary"), ("neg", "pos"), texts.targets)
    model = hand_made(BertForSequenceClassification, {"bad": 1, "good": 2}, attends=True)
    batch = two.prepare(texts, [0, 1, 2])
    loss, found = two.judged(model, batch)
    assert found["logits"].shape == (3, 2)
    assert loss.sum.item() == losses.cross_entropy(found["logits"], batch.targets).sum.item()
    assert two.objective(model, batch).sum.item() == loss.sum.item()
    run = run_of("binary", head={"num_labels": 1})
    one = text_task(run, ("neg", "pos"), [1.0, 0.0, 0.0])
    alone = hand_made(BertForSequenceClassification, {"good": 1}, labels=["pos"], attends=True)
    batch = one.prepare(examples_of(["good", "bad film", "odd"], [1.0, 0.0, 0.0]), [0, 1, 2])
    loss, found = one.judged(alone, batch)
    assert found["logits"].shape == (3,)
    assert loss.sum.item() == losses.binary_cross_entropy(found["logits"], batch.targets).sum.item()
    numbers = text_task(run_of("regression"), (), [10.0, 30.0])
    batch = numbers.prepare(examples_of(["good", "bad"], [10.0, 30.0]), [0, 1])
    loss, found = numbers.judged(alone, batch)
    standard = (found["logits"] - 20) / 10
    assert loss.sum.item() == pytest.approx(
        losses.mse(standard, (batch.targets - 20) / 10).sum.item()
    )


def augmented(seed: int = 0) -> TextTask:
    run = run_of("binary", training={"seed": seed})
    return text_task(run, ("a", "b"), [0, 1], Augmentation(SPECIAL, delete=0.4, swap=0.4))


LONG = examples_of(["good fine bad poor odd anna smith paris"] * 4 + ["film"], [0, 1, 0, 1, 0])


def texts_of(batch: Batch) -> dict[int, list[int]]:
    """The tokens of each example of a batch, by its number."""
    parts = torch.split(batch.input_ids, list(batch.layout.lengths))
    return {row: part.tolist() for row, part in zip(batch.rows, parts, strict=True)}


def test_training_texts_are_changed_anew_and_no_others() -> None:
    task, rows = augmented(), range(len(LONG))
    plain = texts_of(task.prepare(LONG, rows))
    assert plain == dict(enumerate(LONG.ids))
    first = task.prepare(LONG, rows, 3)
    found = texts_of(first)
    assert found != plain
    assert len({tuple(found[row]) for row in range(4)}) > 1  # equal texts are not changed alike
    assert [first.targets[first.rows.index(row)].item() for row in rows] == LONG.targets
    assert first.token_type_ids.shape == first.input_ids.shape
    assert texts_of(task.prepare(LONG, rows, 3)) == found
    assert texts_of(task.prepare(LONG, rows, 4)) != found
    assert texts_of(augmented(seed=1).prepare(LONG, rows, 3)) != found
    without = text_task(run_of("binary"), ("a", "b"), [0, 1])
    assert texts_of(without.prepare(LONG, rows, 3)) == plain


@given(number=st.integers(1, 5), step=st.integers(0, 9))
def test_portions_of_a_batch_are_changed_as_the_whole(number: int, step: int) -> None:
    task = augmented()
    whole = texts_of(task.prepare(LONG, range(len(LONG)), step))
    parts: dict[int, list[int]] = {}
    for part in portions(range(len(LONG)), number):
        parts |= texts_of(task.prepare(LONG, part, step))
    assert parts == whole


def test_text_that_is_drawn_twice_is_not_changed_alike() -> None:
    taken = LONG.taken([0] * 6)
    found = texts_of(augmented().prepare(taken, range(6), 0))
    assert len({tuple(each) for each in found.values()}) > 1


# ---- what is said of a text


def windows_of(counts: Sequence[int], tokens: Sequence[int], targets: Sequence[Any]) -> Examples:
    """Texts of so many windows, each of so many tokens."""
    owners = [text for text, count in enumerate(counts) for _ in range(count)]
    ids = [[2, *[9] * n, 3] for n in tokens]
    types = [[0] * len(each) for each in ids]
    return Examples(
        ids, types, [targets[o] for o in owners], texts=owners, starts=[0] * len(owners)
    )


def test_texts_of_a_window_each_keep_their_logits() -> None:
    task = text_task(run_of("multiclass"), ("a", "b"), [0, 1, 1])
    examples = examples_of(["good film", "odd", "a"[:0]], [0, 1, 1])
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found, targets = task.scores(given_logits(task, examples, logits), examples)
    assert (found.tolist(), targets.tolist()) == (logits.tolist(), [0, 1, 1])
    one = text_task(run_of("regression"), (), [0.5, 1.5])
    numbers = examples_of(["good film", "odd"], [0.5, 1.5])
    found, targets = one.scores(given_logits(one, numbers, torch.tensor([7.0, 8.0])), numbers)
    assert (found.tolist(), targets.tolist()) == ([7.0, 8.0], [0.5, 1.5])


def test_windows_are_merged_by_mean_or_vote() -> None:
    examples = windows_of([3, 1], [1, 1, 2, 1], [0, 1])
    logits = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 16.0], [1.0, 2.0]])
    mean = text_task(run_of("multiclass"), ("a", "b"), [0, 1])
    found, targets = mean.scores(given_logits(mean, examples, logits), examples)
    assert found.tolist() == [[1.5, 8.0], [1.0, 2.0]]  # weighted by 1, 1 and 2
    assert targets.tolist() == [0, 1]
    vote = text_task(run_of("multiclass", data={"merge_windows": "vote"}), ("a", "b"), [0, 1])
    found, _ = vote.scores(given_logits(vote, examples, logits), examples)
    assert found.tolist() == [[3.0, 0.0], [1.0, 2.0]]


def test_windows_of_one_logit_and_of_numbers_are_merged_too() -> None:
    examples = windows_of([3, 1], [1, 1, 2, 1], [1.0, 0.0])
    logits = torch.tensor([2.0, 4.0, -3.0, 1.0])
    settings = {"head": {"num_labels": 1}, "data": {"merge_windows": "vote"}}
    one = text_task(run_of("binary", **settings), ("a", "b"), [1.0, 0.0])
    found, _ = one.scores(given_logits(one, examples, logits), examples)
    assert found.tolist() == [3.0, 1.0]
    numbers = text_task(run_of("regression"), (), [1.0, 0.0])
    found, targets = numbers.scores(given_logits(numbers, examples, logits), examples)
    assert (found.tolist(), targets.tolist()) == ([0.0, 1.0], [1.0, 0.0])


def test_windows_vote_by_thresholds_and_temperature() -> None:
    """Of odds 1, 1 and 4 all are above a half, one above 0.9; once cooled, all are again."""
    examples = windows_of([3], [1, 1, 1], [1])
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
    run = run_of("binary", data={"merge_windows": "vote"})
    for thresholds, temperature, wanted in (
        ((), 1.0, [0.0, 2.0]), ((0.9,), 1.0, [0.0, 1.0]), ((0.9,), 0.1, [0.0, 2.0]),
    ):  # fmt: skip
        task = text_task(run, ("a", "b"), [0, 1])
        voting = TextTask(**{**vars(task), "thresholds": thresholds, "temperature": temperature})
        found, _ = voting.scores(given_logits(voting, examples, logits), examples)
        assert found.tolist() == [wanted]


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    threshold=st.floats(0.05, 0.95),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    kind=st.sampled_from(["one", "two", "several"]),
    how=st.sampled_from(["mean", "vote"]),
)
def test_odds_of_texts_decide_as_their_merged_logits_at_every_threshold(
    counts: list[int], seed: int, threshold: float, temperature: float, kind: str, how: str
) -> None:
    """So thresholds that are fitted on the former are right for the latter."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 5, (sum(counts),), generator=generator).tolist()
    examples = windows_of(counts, tokens, [0] * len(counts))
    n_logits = {"one": 1, "two": 2, "several": 3}[kind]
    logits = torch.randn(sum(counts), n_logits, generator=generator)
    tables: dict[str, Any] = {"data": {"merge_windows": how}}
    if kind == "several":
        task = text_task(run_of("multilabel", **tables), ("a", "b", "c"), [[1.0, 0.0, 0.0]])
        thresholds = (threshold,) * 3
    else:
        one = kind == "one"
        tables |= {"head": {"num_labels": 1}} if one else {}
        task = text_task(run_of("binary", **tables), ("a", "b"), [0.0, 1.0] if one else [0, 1])
        thresholds, logits = (threshold,), logits[:, 0] if one else logits
    voting = TextTask(**{**vars(task), "thresholds": thresholds, "temperature": temperature})
    odds = task.odds(logits, examples) / temperature  # of a task that knows no thresholds yet
    merged = voting.merged(logits, examples).double() / temperature
    if kind == "two":
        merged = merged[:, 1] - merged[:, 0]
    limits = torch.tensor(thresholds if kind == "several" else threshold, dtype=torch.double)
    assert odds.shape == merged.shape
    assert decide(odds, limits).tolist() == decide(merged, limits).tolist()


def test_scores_reach_the_metrics() -> None:
    task = text_task(run_of("binary"), ("a", "b"), [0, 1])
    examples = windows_of([2, 1], [1, 1, 1], [1, 0])
    logits = torch.tensor([[0.0, 5.0], [1.0, 0.0], [0.0, 1.0]])
    metrics = metrics_of("binary", ("a", "b"))
    assert task.measure(given_logits(task, examples, logits), examples, metrics) == {}
    report = metrics.report()
    assert (report.n_examples, report.confusion) == (2, [[0, 1], [0, 1]])


# ---- words


def words_of(run_tags: list[int], spans: list[tuple[int, int]]) -> Examples:
    """One sentence of a token a word, in windows."""
    ids = [[2, *range(5 + start, 5 + stop), 3] for start, stop in spans]
    tags = [[IGNORED, *run_tags[start:stop], IGNORED] for start, stop in spans]
    return Examples(
        ids, [[0] * len(each) for each in ids], tags, texts=[0] * len(spans),
        starts=[start for start, _ in spans],
    )  # fmt: skip


def tag_results(
    task: TextTask, examples: Examples, logits: list[Tensor]
) -> list[tuple[Batch, Found]]:
    batches = each_batch(examples, 2, task.prepare)
    return [
        (batch, {"logits": torch.cat([logits[row] for row in batch.rows])}) for batch in batches
    ]


def test_word_is_counted_once_from_the_window_that_sees_most_around_it() -> None:
    task = text_task(run_of("tokens"), ("x", "y"), [[0, 1]])
    tags = [0, 1, 1, 0, IGNORED, 1]
    examples = words_of(tags, [(0, 4), (2, 6)])
    x, y = [1.0, 0.0], [0.0, 1.0]
    edge = [0.0, 0.0]  # of [CLS] and [SEP], which nobody looks at
    # Word 2 is further inside the first window, word 3 inside the second.
    logits = [torch.tensor([edge, x, y, y, y, edge]), torch.tensor([edge, x, x, y, y, edge])]
    metrics = metrics_of("tokens", ("x", "y"))
    task.measure(tag_results(task, examples, logits), examples, metrics)
    report = metrics.report()
    assert report.figures["accuracy"] == 1.0
    assert report.confusion == [[2, 0], [0, 3]]
    assert report.n_examples == 1


@given(n_words=st.integers(0, 12), seed=st.integers(0, 99))
def test_sentence_that_fits_is_judged_as_without_windows(n_words: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randint(0, 2, (n_words,), generator=generator).tolist()
    logits = [
        torch.randn(n_words + 2, 2, generator=generator),
        torch.randn(3, 2, generator=generator),
    ]
    task = text_task(run_of("tokens"), ("x", "y"), [[0, 1]])
    found = []
    for has_windows in (True, False):
        examples = words_of(tags, [(0, n_words)])
        more = words_of([1], [(0, 1)])
        both = Examples(
            examples.ids + more.ids, examples.types + more.types, examples.targets + more.targets,
            texts=[0, 1] if has_windows else [], starts=[0, 0] if has_windows else [],
        )  # fmt: skip
        metrics = metrics_of("tokens", ("x", "y"))
        task.measure(tag_results(task, both, logits), both, metrics)
        report = metrics.report()
        found.append((report.confusion, report.figures["accuracy"]))
    assert found[0] == found[1]


# ---- the whole


def test_model_and_tokenizer_are_saved_together(encoder: Path, tmp_path: Path) -> None:
    run = run_of("binary")
    task = text_task(run, ("a", "b"), [0, 1])
    model = task.network(run, encoder)
    task.finish(model)  # which has nothing to do
    before = head_of(model)
    task.save(model, small_tokenizer(encoder), tmp_path / "model")
    opened = BertForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(head_of(opened)[0], before[0])
    assert Tokenizer.from_pretrained(tmp_path / "model").ids(["good"]) == [[ID["good"]]]


def test_windows_of_real_batches_are_what_an_evaluation_merges() -> None:
    """A text with a good and two bad windows, by mean and by vote."""
    ids = [ids_of(f"[CLS] {text} [SEP]") for text in ("good good good good", "bad", "bad odd")]
    examples = Examples(
        ids, [[0] * len(each) for each in ids], [0, 0, 0], texts=[0] * 3, starts=[0] * 3
    )
    model = hand_made(BertForSequenceClassification, {"bad": 1, "good": 2}, attends=True)
    for how, predicted in (("mean", 1), ("vote", 0)):
        task = text_task(run_of("binary", data={"merge_windows": how}), ("neg", "pos"), [0, 1])
        confusion = Evaluation(task, ("neg", "pos"), examples).report(model).confusion
        assert confusion == [[1 - predicted, predicted], [0, 0]]
