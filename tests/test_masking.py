"""Masked-LM examples and next-sentence pairs: counted by hand, then over many draws."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minibert.errors import LabelError, TrainingError
from minibert.tokenizer import Tokenizer
from minibert.training.masking import Masking, SentencePair, sentence_pairs

PAD, UNK, CLS, SEP, MASK, FIRST, VOCAB = 0, 1, 2, 3, 4, 5, 40
CONTINUING = range(30, 40)  # "##…"


def masking(**settings: float | bool) -> Masking:
    ids = torch.arange(VOCAB)
    return Masking(MASK, PAD, ids < FIRST, ids[FIRST:], ids >= CONTINUING[0], **settings)  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(lengths: list[int], *, seed: int = 0, ids: range = range(FIRST, 30)) -> Tensor:
    """Rows of [CLS] … [SEP] of these lengths, padded."""
    drawn = random.Random(seed)
    rows = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        body = [drawn.choice(ids) for _ in range(length - 2)]
        rows[row, :length] = torch.tensor([CLS, *body, SEP])
    return rows


def test_number_is_that_of_google() -> None:
    """max(1, round(0.15 n)) with n counting [CLS] and [SEP], a half rounded to the even number."""
    lengths = [3, 4, 10, 11, 30, 50, 128]
    labels = masking().mask(batch_of(lengths), generator=seeded()).labels
    counted = (labels >= 0).sum(dim=1).tolist()
    assert counted == [1, 1, 2, 2, 4, 8, 19]
    assert counted == [max(1, round(0.15 * n)) for n in lengths]


def test_never_more_than_there_are() -> None:
    rows = torch.tensor([[CLS, 7, SEP, SEP, SEP], [CLS, UNK, MASK, SEP, PAD]])
    labels = masking(fraction=1.0).mask(rows, generator=seeded()).labels
    assert labels.tolist() == [[-100, 7, -100, -100, -100], [-100] * 5]


def test_every_share_by_itself() -> None:
    rows = batch_of([40])
    body = rows[:, 1:-1]
    for mask_share, random_share in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0)):
        made = masking(fraction=1.0, mask_share=mask_share, random_share=random_share).mask(
            rows, generator=seeded()
        )
        assert torch.equal(made.labels[:, 1:-1], body)
        inside = made.input_ids[:, 1:-1]
        assert bool((inside == MASK).all()) == (mask_share == 1)
        assert torch.equal(inside, body) == (mask_share == random_share == 0)
        assert bool((inside != MASK).all()) == (mask_share == 0)


def test_shares_over_many_draws() -> None:
    """80 / 10 / 10: each within four standard deviations of 60,000 draws; every token alike."""
    made, generator, rows = masking(), seeded(), batch_of([102] * 100)
    kinds = torch.zeros(3)
    places = torch.zeros(102)
    inserted = torch.zeros(VOCAB)
    for _ in range(40):
        ids, labels = made.mask(rows, generator=generator)
        chosen = labels >= 0
        hidden = chosen & (ids == MASK)
        same = chosen & (ids == labels)
        other = chosen & ~hidden & ~same
        kinds += torch.stack([hidden.sum(), same.sum(), other.sum()])
        places += chosen.sum(dim=0)
        inserted += torch.bincount(ids[other], minlength=VOCAB)
    n = 40 * 100 * 15
    # One in 35 of the tokens put in is the one that was there.
    expected = torch.tensor([0.8, 0.1 + 0.1 / 35, 0.1 - 0.1 / 35])
    deviation = (expected * (1 - expected) / n).sqrt()
    assert kinds.sum() == n
    assert ((kinds / n - expected).abs() < 4 * deviation).all()
    assert places[0] == places[-1] == 0
    rate = places[1:-1] / (40 * 100)
    assert ((rate - 0.15).abs() < 5 * (0.15 * 0.85 / 4000) ** 0.5).all()
    assert (inserted[:FIRST] == 0).all()  # no special token is ever put in
    assert (inserted[FIRST:] > 0).all()


@settings(max_examples=40)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_only_ordinary_tokens_change(lengths: list[int], seed: int, whole_words: bool) -> None:
    rows = batch_of(lengths, seed=seed, ids=range(UNK, VOCAB))
    before = rows.clone()
    made = masking(whole_words=whole_words).mask(rows, generator=seeded(seed))
    assert torch.equal(rows, before)
    chosen = made.labels != -100
    assert torch.equal(made.labels[chosen], rows[chosen])
    assert torch.equal(made.input_ids[~chosen], rows[~chosen])
    assert not (chosen & (rows < FIRST)).any()
    assert not (chosen & (made.input_ids < FIRST) & (made.input_ids != MASK)).any()
    for row, length in enumerate(lengths):
        free = int((rows[row] >= FIRST).sum())
        limit = min(free, max(1, round(0.15 * length)))
        count = int(chosen[row].sum())
        assert count <= limit if whole_words else count == limit


def words_of(row: list[int]) -> list[list[int]]:
    """The places of each word, by hand: "##" goes on, but not behind a special token."""
    found: list[list[int]] = []
    for place, token in enumerate(row):
        if token < FIRST:
            continue
        if token in CONTINUING and place and row[place - 1] >= FIRST:
            found[-1].append(place)
        else:
            found.append([place])
    return found


@settings(max_examples=60)
@given(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30), st.integers(0, 99))
def test_words_are_taken_whole(row: list[int], seed: int) -> None:
    made = masking(whole_words=True, fraction=0.4).mask(torch.tensor([row]), generator=seeded(seed))
    chosen = (made.labels[0] != -100).tolist()
    words = words_of(row)
    for places in words:
        assert len({chosen[place] for place in places}) == 1
    # No word that was passed over would have fitted.
    room = max(1, round(0.4 * sum(token != PAD for token in row))) - sum(chosen)
    assert room >= 0
    assert all(chosen[places[0]] or len(places) > room for places in words)


def test_words_of_word_ids_are_taken_whole() -> None:
    rows = batch_of([8, 8])
    word_ids = torch.tensor([[-1, 0, 0, 0, 1, 1, -1, -1], [-1, 0, 0, 1, 1, 0, 0, -1]])
    seen: list[set[str]] = [set(), set()]
    for seed in range(60):
        made = masking(whole_words=True, fraction=0.4).mask(
            rows, generator=seeded(seed), word_ids=word_ids
        )
        for row, labels in enumerate(made.labels):
            seen[row].add("".join(".x"[int(label >= 0)] for label in labels))
    # Of 8 tokens 3 are to be predicted: a word of 3, or of 2 and a single one, or 2 alone.
    assert seen[0] == {".xxx....", "....xxx."}
    assert seen[1] == {".xx.....", "...xx...", ".....xx."}


def test_tokens_of_no_word_are_words_by_themselves() -> None:
    rows = torch.tensor([[CLS, 6, 7, SEP]])
    made = masking(whole_words=True)
    alone = made.mask(rows, generator=seeded(), word_ids=torch.full((1, 4), -1))
    assert int((alone.labels >= 0).sum()) == 1
    together = made.mask(rows, generator=seeded(), word_ids=torch.full((1, 4), 2))
    assert int((together.labels >= 0).sum()) == 0  # two tokens where one is to be predicted


def test_words_are_taken_in_any_order() -> None:
    rows = torch.tensor([[CLS, 6, 31, 7, 31, 8, 31, 9, SEP]])
    times = torch.zeros(9)
    for seed in range(400):
        made = masking(whole_words=True, fraction=0.2).mask(rows, generator=seeded(seed))
        times += made.labels[0] >= 0
    # Two of nine tokens: one of the three long words, or the single one and then nothing fits.
    assert times.tolist() == [0, *times[[1, 1, 3, 3, 5, 5, 7]].tolist(), 0]
    assert (times[1:8] > 65).all()
    assert times[[1, 3, 5, 7]].sum() == 400


def test_a_word_too_long_is_passed_over() -> None:
    rows = torch.tensor([[CLS, 6, 31, 32, SEP]])
    labels = masking(whole_words=True).mask(rows, generator=seeded()).labels
    assert (labels == -100).all()


def test_same_generator_gives_the_same_and_a_restored_one_goes_on() -> None:
    made, rows = masking(), batch_of([20, 12])
    generator = seeded(7)
    first = made.mask(rows, generator=generator)
    state = generator.get_state()
    second = made.mask(rows, generator=generator)
    assert not torch.equal(first.labels, second.labels)
    resumed = torch.Generator()
    resumed.set_state(state)
    again = made.mask(rows, generator=resumed)
    assert torch.equal(again.input_ids, second.input_ids)
    assert torch.equal(again.labels, second.labels)


@pytest.mark.parametrize("whole_words", [True, False])
def test_what_is_drawn_does_not_depend_on_what_stands_there(whole_words: bool) -> None:
    made, one, other = masking(whole_words=whole_words), seeded(3), seeded(3)
    made.mask(batch_of([20, 12]), generator=one)
    made.mask(torch.full((2, 20), PAD), generator=other)
    assert torch.equal(one.get_state(), other.get_state())


def test_masking_of_a_real_vocabulary(minilm: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(minilm)
    made = Masking.of(tokenizer, whole_words=True)
    assert (made.mask_id, made.pad_id) == (103, 0)
    assert made.special.nonzero()[:, 0].tolist() == [0, 100, 101, 102, 103]
    assert len(made.insertable) == 30522 - 5
    assert not made.special[made.insertable].any()
    pieces = [tokenizer.id_to_token(i) for i in made.continues.nonzero()[:, 0].tolist()]
    assert len(pieces) > 5000
    assert all(piece is not None and piece.startswith("##") for piece in pieces)
    ids = torch.tensor([tokenizer.encode(["unaffable embeddings"])[0].ids])
    assert made.continues[ids[0]].any()
    assert Masking.of(tokenizer, fraction=0.3, mask_share=0.5, random_share=0.2).fraction == 0.3


def test_ids_that_do_not_fit_are_refused() -> None:
    made = masking()
    with pytest.raises(LabelError, match=r"input_ids have shape \(3,\).*expected integers"):
        made.mask(torch.tensor([1, 2, 3]), generator=seeded())
    with pytest.raises(LabelError, match=r"dtype torch.float32, expected integers"):
        made.mask(torch.ones(1, 3), generator=seeded())
    with pytest.raises(LabelError, match="input_ids hold 40, expected 0 to 39"):
        made.mask(torch.tensor([[1, 40]]), generator=seeded())
    with pytest.raises(LabelError, match="input_ids hold -100, expected 0 to 39"):
        made.mask(torch.tensor([[1, -100]]), generator=seeded())
    with pytest.raises(LabelError, match=r"word_ids have shape \(1, 2\), expected \(1, 3\)"):
        made.mask(batch_of([3]), generator=seeded(), word_ids=torch.zeros(1, 2))


def test_an_empty_batch_stays_empty() -> None:
    for whole_words in (False, True):
        made = masking(whole_words=whole_words)
        for shape in ((0, 4), (2, 0)):
            rows = torch.zeros(shape, dtype=torch.long)
            assert made.mask(rows, generator=seeded()).labels.shape == shape


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"fraction": 1.5}, r"^fraction is 1.5, expected 0 to 1$"),
        ({"fraction": 0.0}, "nothing would be predicted"),
        ({"mask_share": -0.1}, "^mask_share is -0.1"),
        ({"random_share": 0.3}, "are more than 1 together"),
        ({"random_share": float("nan")}, "random_share is nan"),
    ],
)
def test_shares_out_of_range_are_refused(wrong: dict[str, float], line: str) -> None:
    with pytest.raises(TrainingError, match=line):
        masking(**wrong)


# Next-sentence pairs. Token 100 · document + 10 · sentence + place tells where it comes from.


def documents(*lengths: list[int]) -> list[list[list[int]]]:
    return [
        [[100 * d + 10 * s + place for place in range(n)] for s, n in enumerate(sentences)]
        for d, sentences in enumerate(lengths, start=1)
    ]


def pairs_of(*lengths: list[int], seed: int = 0, **settings: float) -> list[SentencePair]:
    return list(
        sentence_pairs(documents(*lengths), generator=seeded(seed), **settings)  # type: ignore[arg-type]
    )


def test_pair_by_hand() -> None:
    """Two sentences that fit: either the second follows, or one of the other document does."""
    seen = set()
    for seed in range(40):
        pair = pairs_of([2, 3], [4], seed=seed, max_tokens=20, short_seq_prob=0.0)[0]
        assert pair.first == [100, 101]
        seen.add((tuple(pair.second), pair.label))
    assert seen == {((110, 111, 112), 0), ((200, 201, 202, 203), 1)}


def test_what_was_exchanged_is_gathered_again() -> None:
    for seed in range(20):
        pairs = pairs_of([2, 3], [4], seed=seed, max_tokens=20, short_seq_prob=0.0)
        ours = [pair for pair in pairs if pair.first[0] < 200]
        if ours[0].label:
            assert [pair.first for pair in ours] == [[100, 101], [110, 111, 112]]
            assert ours[1].label == 1  # a sentence alone
        else:
            assert len(ours) == 1


def test_half_of_the_pairs_are_random() -> None:
    labels = [
        pair.label
        for seed in range(150)
        for pair in pairs_of([2] * 9, [2] * 9, seed=seed, max_tokens=11, short_seq_prob=0.0)
        if pair.first[0] % 100 < 50  # before the sentence that stays alone at the end
    ]
    assert len(labels) > 600
    assert abs(sum(labels) / len(labels) - 0.5) < 4 * 0.5 / len(labels) ** 0.5


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=2, max_size=4),
    st.integers(5, 24),
    st.integers(0, 99),
)
def test_pairs_hold_what_they_say(lengths: list[list[int]], max_tokens: int, seed: int) -> None:
    if sum(any(each) for each in lengths) < 2:
        return
    for first, second, label in pairs_of(*lengths, seed=seed, max_tokens=max_tokens):
        assert first
        assert second
        assert len(first) + len(second) <= max_tokens - 3
        ours, other = {token // 100 for token in first}, {token // 100 for token in second}
        assert len(ours) == len(other) == 1
        assert (ours == other) == (label == 0)
        if label == 0:
            assert first[-1] < second[0]
        for part in (first, second):  # what is cut off is cut off at the ends
            document = documents(*lengths)[part[0] // 100 - 1]
            tokens = [token for sentence in document for token in sentence]
            start = tokens.index(part[0])
            assert tokens[start : start + len(part)] == part


def test_every_token_of_a_document_is_in_a_pair_where_nothing_is_cut() -> None:
    for seed in range(10):
        pairs = pairs_of([2] * 9, [2] * 9, seed=seed, max_tokens=40, short_seq_prob=0.0)
        own = {t for pair in pairs for t in pair.first} | {
            t for pair in pairs if not pair.label for t in pair.second
        }
        assert own == {t for document in documents([2] * 9, [2] * 9) for s in document for t in s}


def test_short_sequences_are_as_frequent_as_asked() -> None:
    """Of pairs that follow each other: what is taken from elsewhere may be short by itself."""

    def lengths(short_seq_prob: float) -> list[int]:
        first = [
            pairs_of([9] * 5, [9] * 5, seed=seed, max_tokens=40, short_seq_prob=short_seq_prob)[0]
            for seed in range(150)
        ]
        return [len(pair.first) + len(pair.second) for pair in first if not pair.label]

    assert min(lengths(0.0)) >= 36
    assert min(lengths(1.0)) == 18  # two sentences, the fewest that can follow each other
    few = [length < 36 for length in lengths(0.3)]
    # A length drawn from 2 to 37 gives fewer than four sentences up to 27, unless it is one alone.
    assert 0.08 < sum(few) / len(few) < 0.4


def test_both_ends_are_cut() -> None:
    ends = set()
    for seed in range(40):
        pair = pairs_of([9, 9], [9, 9], seed=seed, max_tokens=11, short_seq_prob=0.0)[0]
        assert len(pair.first) + len(pair.second) == 8
        ends |= {("front", pair.first[0] != 100), ("back", pair.first[-1] != 108)}
    assert ends == {("front", True), ("front", False), ("back", True), ("back", False)}


def test_pairs_are_the_same_for_the_same_seed() -> None:
    assert pairs_of([3] * 8, [4] * 8, seed=5) == pairs_of([3] * 8, [4] * 8, seed=5)
    assert pairs_of([3] * 8, [4] * 8, seed=5) != pairs_of([3] * 8, [4] * 8, seed=6)


def test_documents_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"^1 documents hold a token, expected two"):
        pairs_of([3, 3], [0, 0], [])
    with pytest.raises(TrainingError, match="max_tokens is 4, expected 5 or more"):
        pairs_of([3], [3], max_tokens=4)
    with pytest.raises(TrainingError, match=r"short_seq_prob is 2.0, expected 0 to 1"):
        pairs_of([3], [3], short_seq_prob=2.0)
