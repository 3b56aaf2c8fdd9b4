"""Windows merged: worked by hand, then against the slow way of saying the same."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import unchanged_random
from torch import Tensor

from minibert.prediction.windows import (
    best_spans,
    clearest_windows,
    logits_of_texts,
    mean_of_windows,
    merge_tokens,
    odds_of_votes,
    vote_of_classes,
    vote_of_presence,
)
from minibert.tokenizer import window_spans


def numbers(n_rows: int, n_columns: int, seed: int, *, coarse: bool = False) -> Tensor:
    """Random logits; coarse ones have many that are equal."""
    generator = torch.Generator().manual_seed(seed)
    if coarse:
        return torch.randint(-2, 3, (n_rows, n_columns), generator=generator).double()
    return torch.randn(n_rows, n_columns, generator=generator, dtype=torch.double)


@st.composite
def windowed(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int]:
    """Logits, tokens, owners, and how many texts there are."""
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    owners = [text for text, count in enumerate(counts) for _ in range(count)]
    tokens = draw(st.lists(st.integers(0, 4), min_size=len(owners), max_size=len(owners)))
    logits = numbers(len(owners), draw(st.integers(2, 4)), draw(st.integers(0, 99)))
    return logits, torch.tensor(tokens), torch.tensor(owners), len(counts)


@st.composite
def cut_texts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """The windows of a text."""
    size = draw(st.integers(1, 9))
    n_tokens, overlap = draw(st.integers(1, 40)), draw(st.integers(0, size - 1))
    with unchanged_random():
        return window_spans(n_tokens, size, overlap)


# ---- classes


def test_windows_are_weighed_by_their_tokens() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 8.0], [1.0, 2.0]])
    merged = mean_of_windows(logits, torch.tensor([3, 1, 5]), torch.tensor([0, 0, 1]), 2)
    assert merged.tolist() == [[3.0, 2.0], [1.0, 2.0]]


def test_text_without_tokens_keeps_its_logits() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    tokens, owners = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1])
    assert mean_of_windows(logits, tokens, owners, 2).tolist() == [[1.0, 2.0], [4.0, 5.0]]


@given(windowed(), st.sampled_from(["mean", "classes", "presence"]))
def test_merged_logits_lie_between_those_of_the_windows(
    case: tuple[Tensor, Tensor, Tensor, int], how: str
) -> None:
    logits, tokens, owners, n_texts = case
    if how == "mean":
        merged = mean_of_windows(logits, tokens, owners, n_texts)
    elif how == "classes":
        merged = vote_of_classes(logits, tokens, owners, n_texts, logits.argmax(dim=1))
    else:
        merged = vote_of_presence(logits, tokens, owners, n_texts, logits > 0)
    assert merged.shape == (n_texts, logits.shape[1])
    for text in range(n_texts):
        own = logits[owners == text]
        assert bool((merged[text] >= own.amin(dim=0) - 1e-12).all())
        assert bool((merged[text] <= own.amax(dim=0) + 1e-12).all())
        if len(own) == 1:
            assert merged[text].tolist() == own[0].tolist()


def test_logits_of_texts_by_hand() -> None:
    """Three windows of a text; the odds of the second label are 1, 1 and 4, or of its logit so."""
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
    tokens, owners = torch.ones(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)

    def of_texts(wide: Tensor, task: str, how: str = "vote", **settings: object) -> list[float]:
        found = logits_of_texts(wide, tokens, owners, 1, task=task, how=how, **settings)  # type: ignore[arg-type]
        return found[0].tolist()

    assert of_texts(logits, "binary", "mean", thresholds=(0.9,)) == [0.0, 2.0]
    assert of_texts(logits, "binary") == [0.0, 2.0]
    assert of_texts(logits, "binary", thresholds=(0.9,)) == [0.0, 1.0]
    assert of_texts(logits, "binary", thresholds=(0.9,), temperature=0.1) == [0.0, 2.0]
    assert of_texts(logits, "multiclass") == [0.0, 2.0]
    assert of_texts(logits, "multilabel", thresholds=(0.9, 0.9)) == [0.0, 1.0]
    assert of_texts(logits, "multilabel", thresholds=(0.4, 0.6), temperature=0.5) == [0.0, 2.0]
    one = logits[:, 1:]
    assert of_texts(one, "binary", thresholds=(0.9,)) == [1.0]
    assert of_texts(one, "binary") == [2.0]
    assert of_texts(torch.tensor([[1.0], [-1.0], [-5.0]]), "binary") == [-3.0]
    three = torch.tensor([[2.0, 0.0, 1.0], [4.0, 0.0, 1.0], [9.0, 8.0, 10.0]])
    assert of_texts(three, "multiclass") == [3.0, 0.0, 1.0]


def test_odds_of_votes_by_hand() -> None:
    odds = torch.tensor([[1.0, 7.0], [5.0, 6.0], [3.0, 5.0], [2.0, 0.0], [4.0, 0.0]])
    owners = torch.tensor([0, 0, 0, 1, 1])
    middle = odds_of_votes(odds, torch.tensor([1, 1, 1, 1, 1]), owners, 2)
    assert middle.tolist() == [[3.0, 6.0], [2.0, 0.0]]  # of two, both have to be for it
    heavy = odds_of_votes(odds, torch.tensor([1, 1, 1, 1, 2]), owners, 2)
    assert heavy.tolist() == [[3.0, 6.0], [4.0, 0.0]]  # unless one of them holds more
    assert odds_of_votes(odds[:1], torch.tensor([0]), owners[:1], 1).tolist() == [[1.0, 7.0]]


@given(windowed(), st.integers(-30, 30))
def test_votes_are_for_a_label_below_its_odds_alone(
    case: tuple[Tensor, Tensor, Tensor, int], tenths: int
) -> None:
    logits, tokens, owners, n_texts = case
    threshold = tenths / 10
    merged = vote_of_presence(logits, tokens, owners, n_texts, logits > threshold)
    found = odds_of_votes(logits, tokens, owners, n_texts)
    assert ((merged > threshold) == (found > threshold)).all()
    assert all(found[text, label] in logits[owners == text, label]
               for text in range(n_texts) for label in range(logits.shape[1]))  # fmt: skip


def test_vote_is_won_by_the_class_of_most_windows() -> None:
    logits = torch.tensor([[2.0, 1.0], [4.0, 1.0], [0.0, 100.0]])
    tokens, owners = torch.tensor([1, 3, 9]), torch.tensor([0, 0, 0])
    merged = vote_of_classes(logits, tokens, owners, 1, logits.argmax(dim=1))
    assert merged.tolist() == [[3.5, 1.0]]  # of the two that agree, weighted by 1 and 3
    assert mean_of_windows(logits, tokens, owners, 1).argmax().item() == 1


def test_equal_votes_are_settled_by_tokens() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 2.0]])
    tokens, owners = torch.tensor([2, 3, 3, 3]), torch.tensor([0, 0, 0, 0])
    merged = vote_of_classes(logits, tokens, owners, 1, torch.tensor([0, 1, 0, 1]))
    assert merged.tolist() == [[0.0, 1.5]]


def test_equal_votes_of_equal_tokens_are_settled_by_the_mean() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    tokens, owners = torch.tensor([2, 2]), torch.tensor([0, 0])
    merged = vote_of_classes(logits, tokens, owners, 1, torch.tensor([0, 1]))
    assert merged.tolist() == [[0.0, 3.0, 0.0]]
    even = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert vote_of_classes(even, tokens, owners, 1, torch.tensor([0, 1])).tolist() == [[1.0, 0.0]]


def test_a_class_with_a_high_mean_and_fewer_votes_does_not_win() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, 0.5], [0.0, 9.0, 0.0], [0.0, 0.0, 99.0]])
    tokens, owners = torch.ones(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    merged = vote_of_classes(logits, tokens, owners, 1, torch.tensor([0, 0, 1, 2]))
    assert merged.tolist() == [[1.0, 0.0, 0.5]]


@given(windowed())
def test_merged_logits_decide_as_the_vote_did(case: tuple[Tensor, Tensor, Tensor, int]) -> None:
    logits, tokens, owners, n_texts = case
    votes = logits.argmax(dim=1)
    merged = vote_of_classes(logits, tokens, owners, n_texts, votes)
    for text in range(n_texts):
        counts = votes[owners == text].bincount(minlength=logits.shape[1])
        assert counts[merged[text].argmax()] == counts.max()


def test_presence_is_voted_on_for_each_label_by_itself() -> None:
    logits = torch.tensor([[3.0, -1.0], [1.0, -5.0], [-90.0, 2.0]])
    tokens, owners = torch.tensor([1, 1, 4]), torch.tensor([0, 0, 0])
    merged = vote_of_presence(logits, tokens, owners, 1, logits > 0)
    assert merged.tolist() == [[2.0, -3.0]]


def test_equal_votes_on_presence_are_settled_by_tokens_then_for_absence() -> None:
    logits, owners = torch.tensor([[3.0], [-1.0]]), torch.tensor([0, 0])
    for tokens, expected in (([3, 2], 3.0), ([2, 3], -1.0), ([2, 2], -1.0)):
        merged = vote_of_presence(logits, torch.tensor(tokens), owners, 1, logits > 0)
        assert merged.tolist() == [[expected]]


@given(windowed())
def test_merged_presence_is_that_of_the_majority(case: tuple[Tensor, Tensor, Tensor, int]) -> None:
    logits, tokens, owners, n_texts = case
    merged = vote_of_presence(logits, tokens, owners, n_texts, logits > 0)
    for text in range(n_texts):
        share = (logits[owners == text] > 0).double().mean(dim=0)
        clear = share != 0.5
        assert ((merged[text] > 0) == (share > 0.5))[clear].all()


# ---- tokens


def test_token_is_taken_from_the_window_with_more_around_it() -> None:
    # Of 0 … 9 the windows [0, 6), [4, 10): 4 has one token behind it in the first, none before it
    # in the second, and 5 the other way round.
    assert clearest_windows([(0, 6), (4, 10)]).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    # Of equal windows the first is taken.
    assert clearest_windows([(0, 5), (2, 7), (4, 8)]).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


@given(cut_texts())
def test_no_window_shows_more_on_the_poorer_side(spans: list[tuple[int, int]]) -> None:
    stop = spans[-1][1]
    chosen = clearest_windows(spans).tolist()
    assert len(chosen) == stop
    for token, window in enumerate(chosen):
        seen = {}
        for number, (first, last) in enumerate(spans):
            if first <= token < last:
                sides = [
                    token - first if first else stop,
                    last - 1 - token if last < stop else stop,
                ]
                seen[number] = min(sides)
        assert seen[window] == max(seen.values())
        assert window == min(number for number in seen if seen[number] == seen[window])


@given(cut_texts())
def test_each_token_has_the_logits_of_its_window_once(spans: list[tuple[int, int]]) -> None:
    logits = [
        torch.tensor([[float(number), float(token)] for token in range(*span)])
        for number, span in enumerate(spans)
    ]
    merged = merge_tokens(logits, spans)
    assert merged[:, 1].tolist() == list(range(spans[-1][1]))
    assert merged[:, 0].tolist() == clearest_windows(spans).tolist()


# ---- answers


def test_best_answer_is_of_the_highest_sum_of_logits() -> None:
    logits = torch.tensor([[0.0, 5.0], [4.0, 0.0], [0.0, 3.0], [3.9, 0.0]]).double()
    (best,) = best_spans([logits], [(0, 4)], None, max_tokens=4).spans
    assert best[:2] == (1, 3)
    start = math.exp(4) / (2 + math.exp(4) + math.exp(float(logits[3, 0])))
    end = math.exp(3) / (2 + math.exp(5) + math.exp(3))
    assert best.probability == pytest.approx(start * end, rel=1e-12)


def test_answer_has_no_more_tokens_than_it_may() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    assert best_spans([logits], [(0, 3)], None, max_tokens=3).spans[0][:2] == (0, 3)
    assert best_spans([logits], [(0, 3)], None, max_tokens=2).spans[0][:2] == (0, 2)


def test_equal_answers_come_in_the_order_of_the_text() -> None:
    found = best_spans([torch.zeros(2, 2)], [(0, 2)], None, max_tokens=2, top_k=9).spans
    assert [span[:2] for span in found] == [(0, 1), (0, 2), (1, 2)]
    assert all(span.probability == pytest.approx(0.25) for span in found)


def test_windows_compete_by_their_logits() -> None:
    sure, unsure = (
        torch.tensor([[5.0, 5.0], [5.0, 4.0]]),
        torch.tensor([[-3.0, -3.0], [-9.0, -9.0]]),
    )
    found = best_spans([unsure, sure], [(0, 2), (2, 4)], None, max_tokens=1).spans
    assert found[0][:2] == (2, 3)


def test_answer_in_two_windows_is_one_and_its_tokens_count_once() -> None:
    one, other = torch.tensor([[0.0, 0.0], [2.0, 3.0]]), torch.tensor([[1.0, 4.0], [0.0, 0.0]])
    found = best_spans([one, other], [(0, 2), (1, 3)], None, max_tokens=1, top_k=9).spans
    assert [span[:2] for span in found] == [(1, 2), (0, 1), (2, 3)]
    start, end = math.exp(2) + 2, math.exp(4) + 2
    assert found[0].probability == pytest.approx(math.exp(5) / (start * end))


def test_no_answer_is_spoken_for_by_the_window_that_believes_least_in_it() -> None:
    logits = [torch.zeros(1, 2), torch.zeros(1, 2)]
    nulls = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    found = best_spans(logits, [(0, 1), (1, 2)], nulls, max_tokens=1)
    total = 2 + math.e
    assert found.no_answer == pytest.approx((math.e / total) ** 2)
    assert found.spans[0].probability == pytest.approx(1 / total**2)
    assert best_spans(logits, [(0, 1), (1, 2)], None, max_tokens=1).no_answer == 0


def test_context_without_tokens_has_no_answer() -> None:
    assert best_spans([torch.zeros(0, 2)], [(0, 0)], None, max_tokens=5) == ([], 0.0)
    found = best_spans([torch.zeros(0, 2)], [(0, 0)], torch.ones(1, 2), max_tokens=5)
    assert found == ([], 1.0)


@given(cut_texts(), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_best_spans_are_those_of_trying_them_all(
    spans: list[tuple[int, int]], max_tokens: int, top_k: int, seed: int, coarse: bool
) -> None:
    logits = [
        numbers(stop - start, 2, seed + i, coarse=coarse) for i, (start, stop) in enumerate(spans)
    ]
    nulls = numbers(len(spans), 2, seed - 1, coarse=coarse)
    scores: dict[tuple[int, int], float] = {}
    highest = torch.full((spans[-1][1], 2), -math.inf, dtype=torch.double)
    for window, (start, stop) in zip(logits, spans, strict=True):
        highest[start:stop] = torch.maximum(highest[start:stop], window)
        for first, last in itertools.product(range(start, stop), repeat=2):
            if first <= last < first + max_tokens:
                score = float(window[first - start, 0] + window[last - start, 1])
                scores[first, last + 1] = max(score, scores.get((first, last + 1), -math.inf))
    null = nulls[nulls.sum(dim=1).argmin()]
    total = float(torch.cat([highest, null[None]]).exp().sum(dim=0).log().sum())
    expected = sorted(scores, key=lambda key: (-scores[key], *key))[:top_k]
    found = best_spans(logits, spans, nulls, max_tokens=max_tokens, top_k=top_k)
    assert [span[:2] for span in found.spans] == expected
    for span in found.spans:
        assert span.probability == pytest.approx(math.exp(scores[span[:2]] - total), rel=1e-9)
    assert found.no_answer == pytest.approx(math.exp(float(null.sum()) - total), rel=1e-9)
