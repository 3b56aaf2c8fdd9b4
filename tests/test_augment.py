"""Augmentation: special tokens stay, shares are as asked, a text is the same for the same epoch."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.errors import TrainingError
from minibert.tokenizer import Tokenizer
from minibert.training.augment import Augmentation, Augmented

CLS, SEP, MASK, FIRST = 2, 3, 4, 5
SPECIAL = frozenset({0, CLS, SEP, MASK})

SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


def augmentation(**shares: float) -> Augmentation:
    return Augmentation(SPECIAL, MASK, **shares)


Text = tuple[list[int], list[int]]  # ids, types


def text_of(segments: Sequence[Sequence[int]]) -> Text:
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP] …, with the types of the segments."""
    ids, types = [CLS], [0]
    for kind, segment in enumerate(segments):
        ids += [*segment, SEP]
        types += [kind] * (len(segment) + 1)
    return ids, types


@st.composite
def texts(draw: st.DrawFn) -> Text:
    """Texts, pairs, triples; empty segments too. No token twice, so that each can be followed."""
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    words = iter(range(FIRST, 100))
    return text_of([[next(words) for _ in range(size)] for size in sizes])


def batches() -> st.SearchStrategy[list[Text]]:
    return st.lists(texts(), max_size=5)


def applied(
    made: Augmentation,
    batch: Sequence[Text],
    *,
    seed: int = 0,
    epoch: int = 0,
    rows: Sequence[int] | None = None,
) -> Augmented:
    ids, types = [ids for ids, _ in batch], [types for _, types in batch]
    numbers = range(len(batch)) if rows is None else rows
    return made.apply(ids, types, seed=seed, epoch=epoch, rows=numbers)


def segments(ids: Sequence[int]) -> list[list[int]]:
    """What stands between special tokens; a [MASK] counts as a token of the text."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token in (CLS, SEP):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


# ---- by hand


def test_everything_deleted_leaves_one_token_of_each_segment() -> None:
    batch = [text_of([[7, 8, 9], [10, 11]]), text_of([[7]]), text_of([[]])]
    made = applied(augmentation(delete=1.0), batch)
    assert [len(ids) for ids in made.ids] == [5, 3, 2]
    first = made.ids[0]
    assert (first[0], first[2], first[4]) == (CLS, SEP, SEP)
    assert first[1] in (7, 8, 9)
    assert first[3] in (10, 11)
    assert made.types[0] == [0, 0, 0, 1, 1]
    assert made.ids[1:] == [[CLS, 7, SEP], [CLS, SEP]]


def test_everything_masked_leaves_one_token_of_each_segment() -> None:
    (made,) = applied(augmentation(mask=1.0), [text_of([[7, 8, 9], [10, 11]])]).ids
    assert [token == MASK for token in made].count(True) == 3
    assert sum(token in (7, 8, 9) for token in made[1:4]) == 1
    assert sum(token in (10, 11) for token in made[5:7]) == 1


def test_everything_swapped_goes_two_by_two() -> None:
    """From the first token on or from the second, as chance has it; both come up."""
    found = {
        tuple(
            applied(augmentation(swap=1.0), [text_of([[5, 6, 7, 8], [9, 10]])], epoch=epoch).ids[0]
        )
        for epoch in range(40)
    }
    halves = {(6, 5, 8, 7), (5, 7, 6, 8)}, {(10, 9), (9, 10)}
    assert found == {(CLS, *a, SEP, *b, SEP) for a in halves[0] for b in halves[1]}


def test_deleted_then_swapped_then_masked() -> None:
    """What is swapped are neighbours of what is left, and of that one token stays unmasked."""
    made = augmentation(delete=0.5, swap=1.0, mask=1.0)
    seen = set()
    for epoch in range(60):
        ids, _, places = (each[0] for each in applied(made, [text_of([[5, 6, 7]])], epoch=epoch))
        assert [token == MASK for token in ids].count(True) == len(ids) - 3
        seen.add(tuple(places))
    assert {
        (0, 3, 1, 4),
        (0, 1, 3, 4),
    } <= seen  # 6 is gone, and 5 and 7 have changed places, or not
    assert (0, 2, 1, 3, 4) in seen


def test_texts_of_no_special_tokens_are_kept_apart() -> None:
    """A batch of bare words: the last of one and the first of the next are no neighbours."""
    batch = [([5, 6], [0, 0]), ([7, 8], [0, 0]), ([], []), ([9], [1])]
    for epoch in range(20):
        made = applied(augmentation(delete=0.5, swap=1.0), batch, epoch=epoch)
        for ids, (before, _) in zip(made.ids, batch, strict=True):
            assert set(ids) <= set(before)
            assert bool(ids) == bool(before)


def test_no_texts() -> None:
    assert applied(augmentation(delete=0.5, swap=0.5, mask=0.5), []) == ([], [], [])


# ---- properties


@given(batches(), st.integers(0, 2**63 - 1), st.integers(0, 9))
def test_shares_of_0_change_nothing(batch: list[Text], seed: int, epoch: int) -> None:
    made = applied(augmentation(), batch, seed=seed, epoch=epoch)
    assert made.ids == [ids for ids, _ in batch]
    assert made.types == [types for _, types in batch]
    assert made.places == [list(range(len(ids))) for ids, _ in batch]


@settings(max_examples=150)
@given(batches(), SHARES, SHARES, SHARES, st.integers(0, 1000))
def test_structure_stays(
    batch: list[Text], delete: float, swap: float, mask: float, seed: int
) -> None:
    """Special tokens, their order and types; segments keep their own tokens, one at least."""
    made = applied(augmentation(delete=delete, swap=swap, mask=mask), batch, seed=seed)
    for (ids, types), new, kinds, places in zip(batch, *made, strict=True):
        assert [token for token in new if token in (CLS, SEP)] == [
            token for token in ids if token in (CLS, SEP)
        ]
        assert kinds == [types[place] for place in places]
        assert kinds == sorted(kinds)
        assert len(set(places)) == len(places) == len(new)
        assert all(a in (ids[b], MASK) for a, b in zip(new, places, strict=True))
        for before, after in zip(segments(ids), segments(new), strict=True):
            words = [token for token in after if token != MASK]
            assert set(words) <= set(before)
            assert bool(words) == bool(before)


@settings(max_examples=100)
@given(batches(), SHARES, st.integers(0, 1000))
def test_swapping_keeps_all_tokens_and_moves_none_far(
    batch: list[Text], swap: float, seed: int
) -> None:
    made = applied(augmentation(swap=swap), batch, seed=seed)
    for (ids, _), new, places in zip(batch, made.ids, made.places, strict=True):
        assert sorted(new) == sorted(ids)
        assert all(abs(place - i) <= 1 for i, place in enumerate(places))


@given(batches(), SHARES, SHARES, st.integers(0, 1000))
def test_deleting_and_masking_keep_the_order(
    batch: list[Text], delete: float, mask: float, seed: int
) -> None:
    for places in applied(augmentation(delete=delete, mask=mask), batch, seed=seed).places:
        assert places == sorted(places)


@given(batches(), st.integers(0, 2**63 - 1), st.integers(0, 9), st.data())
def test_a_text_is_the_same_in_any_batch(
    batch: list[Text], seed: int, epoch: int, data: st.DataObject
) -> None:
    made = augmentation(delete=0.3, swap=0.3, mask=0.3)
    rows = data.draw(st.lists(st.integers(0, 10**9), min_size=len(batch), max_size=len(batch)))
    together = applied(made, batch, seed=seed, epoch=epoch, rows=rows)
    assert together == applied(made, batch, seed=seed, epoch=epoch, rows=rows)
    for i, text in enumerate(batch):
        alone = applied(made, [text], seed=seed, epoch=epoch, rows=[rows[i]])
        assert [each[0] for each in alone] == [each[i] for each in together]


def test_seed_epoch_and_row_each_make_another_text() -> None:
    made, text = augmentation(delete=0.3, swap=0.3, mask=0.3), text_of([range(FIRST, 45)])
    results = {
        tuple(applied(made, [text], seed=seed, epoch=epoch, rows=[row]).ids[0])
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
        for row in (0, 1, 2)
    }
    assert len(results) == 27


# ---- shares


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("length", [8, 31])
def test_shares_are_those_asked_for(share: float, length: int) -> None:
    """Within four standard deviations of 2,000 texts; each place as often as the others."""
    batch = [text_of([range(FIRST, FIRST + length)])] * 2000
    n = 2000 * length
    deviation = 4 * math.sqrt(share * (1 - share) / n)

    deleted = applied(augmentation(delete=share), batch)
    assert abs(1 - sum(len(ids) - 2 for ids in deleted.ids) / n - share) < deviation

    masked = applied(augmentation(mask=share), batch)
    found = np.array(masked.ids) == MASK
    assert abs(found.sum() / n - share) < deviation
    by_place = found[:, 1:-1].mean(axis=0)
    assert abs(by_place - share).max() < 4.5 * math.sqrt(share * (1 - share) / 2000)
    assert not found[:, [0, -1]].any()

    swapped = applied(augmentation(swap=share), batch)
    moved = np.array(swapped.places) != np.arange(length + 2)
    expected = share * (length - 1) / length
    # Two tokens move at once: half as many draws.
    assert abs(moved.sum() / n - expected) < 4 * math.sqrt(2 * share * (1 - share) / n)
    # At either end there is a neighbour on one side only, so half of the time none.
    inner = moved[:, 2:-2].mean(axis=0)
    assert abs(inner - share).max() < 4.5 * math.sqrt(share * (1 - share) / 2000)
    assert abs(moved[:, 1].mean() - share / 2) < 4 * math.sqrt(share / 2 / 2000)


def test_draws_of_the_three_are_independent() -> None:
    """Of the tokens that are not deleted the same share is masked and swapped as of all."""
    batch = [text_of([range(FIRST, 45)])] * 1000
    made = applied(augmentation(delete=0.5, swap=0.2, mask=0.2), batch)
    left = sum(len(ids) - 2 for ids in made.ids)
    masked = sum(ids.count(MASK) for ids in made.ids)
    moved = sum(a > b for places in made.places for a, b in pairwise(places))
    assert abs(masked / left - 0.2) < 4 * math.sqrt(0.2 * 0.8 / left)
    assert abs(2 * moved / (left - 1000) - 0.2) < 4 * math.sqrt(2 * 0.2 * 0.8 / left)


def test_neighbouring_rows_epochs_and_places_have_nothing_in_common() -> None:
    """Correlations of what is masked, of 40,000 draws each: within four standard deviations."""
    made, text = augmentation(mask=0.5), text_of([range(FIRST, 45)])
    draws = np.array(
        [np.array(applied(made, [text] * 100, epoch=epoch).ids) == MASK for epoch in range(10)]
    )[:, :, 1:-1]
    signs = np.where(draws, 1.0, -1.0)
    for axis in range(3):
        neighbours = signs * np.roll(signs, 1, axis=axis)
        assert abs(neighbours.mean()) < 4 / math.sqrt(signs.size)


# ---- settings


@pytest.mark.parametrize("name", ["delete", "swap", "mask"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_out_of_range_are_refused(name: str, share: float) -> None:
    with pytest.raises(TrainingError, match=f"^{name} is {share}, expected a share of the tokens"):
        augmentation(**{name: share})


def test_masking_needs_the_id_of_mask() -> None:
    with pytest.raises(TrainingError, match=r"^mask is 0\.1 without mask_id, expected the id"):
        Augmentation(SPECIAL, mask=0.1)
    assert Augmentation(SPECIAL, delete=0.1).mask_id is None


def test_unknown_words_are_words(minilm: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(minilm)
    made = Augmentation.of(tokenizer, delete=1.0)
    assert made.mask_id == tokenizer.mask_id
    text = tokenizer.encode(["𐎀 𐎀"], ["a pair of words"])[0]
    assert text.ids[1:3] == [tokenizer.unk_id] * 2
    new = made.apply([text.ids], [text.token_type_ids], seed=0, epoch=0, rows=[0])
    assert new.ids[0][:3] == [tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id]
    assert new.types == [[0, 0, 0, 1, 1]]
