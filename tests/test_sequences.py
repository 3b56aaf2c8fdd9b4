"""Texts as sequences: cut, in windows, in pairs; and the network run over many of them."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VOCAB, hand_made, small_tokenizer
from strategies import texts, without_type_checks
from torch import Tensor

from minibert.errors import CheckpointError, ConfigError, TextError
from minibert.heads import BertForTokenClassification
from minibert.layout import Packed
from minibert.prediction import sequences as module
from minibert.prediction.sequences import (
    Batch,
    Piece,
    RefusedTextError,
    columns,
    computed,
    given_texts,
    on_cpu,
    pair_pieces,
    streamed,
    text_pieces,
)
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def ids(*tokens: str) -> tuple[int, ...]:
    return tuple(VOCAB.index(token) for token in tokens)


def asked(max_length: int, long_text: str, overlap: int | None = None) -> PredictionSettings:
    return PredictionSettings(
        task="binary", max_length=max_length, long_text=long_text, window_overlap=overlap
    )


# ---- texts


def test_text_stands_between_its_special_tokens(tokenizer: Tokenizer) -> None:
    found = text_pieces(tokenizer, asked(8, "error"), ["good film", ""])
    assert found.pieces == [
        Piece(ids("[CLS]", "good", "film", "[SEP]"), 4),
        Piece(ids("[CLS]", "[SEP]"), 2),
    ]
    assert (found.owners, found.tokens, found.truncated) == ([0, 1], [2, 0], [False, False])
    assert found.windows == [1, 1]


def test_long_text_is_cut_and_that_is_told(tokenizer: Tokenizer) -> None:
    found = text_pieces(tokenizer, asked(5, "truncate"), ["the film is", "the film is good"])
    assert [piece.ids[1:-1] for piece in found.pieces] == [ids("the", "film", "is")] * 2
    assert (found.tokens, found.truncated, found.windows) == ([3, 3], [False, True], [1, 1])


def test_long_text_is_read_in_windows(tokenizer: Tokenizer) -> None:
    text = "the film is good , fine"
    found = text_pieces(tokenizer, asked(6, "windows", 2), ["good", text, "bad"])
    assert [piece.ids[1:-1] for piece in found.pieces] == [
        ids("good"),
        ids("the", "film", "is", "good"),
        ids("is", "good", ",", "fine"),
        ids("bad"),
    ]
    assert (found.owners, found.tokens) == ([0, 1, 1, 2], [1, 4, 4, 1])
    assert (found.truncated, found.windows) == ([False] * 3, [1, 2, 1])


def test_long_text_is_refused_where_that_is_asked(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"^text 1 has 6 tokens, expected at most 5; shorten"):
        text_pieces(tokenizer, asked(5, "error"), ["good", "the film is good"])
    with pytest.raises(TextError, match=r"^pair 0 has 6 tokens, expected at most 5; shorten"):
        pair_pieces(tokenizer, asked(5, "error"), ["the film"], ["good"])


@given(st.lists(texts(), max_size=4), st.integers(3, 9))
def test_cut_texts_are_those_of_the_tokenizer(
    tokenizer: Tokenizer, batch: list[str], max_length: int
) -> None:
    found = text_pieces(tokenizer, asked(max_length, "truncate"), batch)
    for piece, flag, encoding in zip(
        found.pieces,
        found.truncated,
        tokenizer.encode(batch, max_length=max_length),
        strict=True,
    ):
        assert list(piece.ids) == encoding.ids
        assert flag == (encoding.n_truncated > 0)


@given(texts(), st.integers(3, 9))
def test_windows_hold_every_token_and_are_not_too_long(
    tokenizer: Tokenizer, text: str, max_length: int
) -> None:
    found = text_pieces(tokenizer, asked(max_length, "windows"), [text])
    (whole,) = tokenizer.ids([text])
    settings = asked(max_length, "windows")
    shared = settings.overlap(max_length - 2)
    joined: list[int] = list(found.pieces[0].ids[1:-1])
    for piece in found.pieces[1:]:
        joined += piece.ids[1 + shared : -1]
    assert joined == whole
    assert all(len(piece.ids) <= max_length for piece in found.pieces)


# ---- pairs


def test_second_text_of_a_pair_has_the_other_type(tokenizer: Tokenizer) -> None:
    found = pair_pieces(tokenizer, asked(9, "error"), ["good film"], ["bad"])
    assert found.pieces == [Piece(ids("[CLS]", "good", "film", "[SEP]", "bad", "[SEP]"), 4)]
    assert found.tokens == [3]


@given(st.lists(st.tuples(texts(), texts()), max_size=4), st.integers(4, 12))
def test_cut_pairs_are_those_of_the_tokenizer(
    tokenizer: Tokenizer, batch: list[tuple[str, str]], max_length: int
) -> None:
    firsts, seconds = [pair[0] for pair in batch], [pair[1] for pair in batch]
    found = pair_pieces(tokenizer, asked(max_length, "truncate"), firsts, seconds)
    encodings = tokenizer.encode(firsts, seconds, max_length=max_length)
    for piece, flag, encoding in zip(found.pieces, found.truncated, encodings, strict=True):
        assert list(piece.ids) == encoding.ids
        assert piece.n_first == encoding.token_type_ids.count(0)
        assert flag == (encoding.n_truncated > 0)


def test_shorter_text_of_a_pair_stands_in_every_window(tokenizer: Tokenizer) -> None:
    long, settings = "the film is good , fine", asked(8, "windows", 1)
    found = pair_pieces(tokenizer, settings, ["bad", long], [long, "bad"])
    first, second = ids("the", "film", "is", "good"), ids("good", ",", "fine")
    bad = ids("bad")
    assert [piece.ids[1:-1] for piece in found.pieces] == [
        bad + ids("[SEP]") + first,
        bad + ids("[SEP]") + second,
        first + ids("[SEP]") + bad,
        second + ids("[SEP]") + bad,
    ]
    assert [piece.n_first for piece in found.pieces] == [3, 3, 6, 5]
    assert found.tokens == [4, 3, 4, 3]  # of what the windows are of
    assert (found.truncated, found.windows) == ([False, False], [2, 2])


def test_pair_of_two_long_texts_keeps_half_of_one(tokenizer: Tokenizer) -> None:
    settings = asked(8, "windows", 0)
    found = pair_pieces(tokenizer, settings, ["the film is"], ["who is good ?"])
    assert [piece.ids[1:-1] for piece in found.pieces] == [
        ids("the", "film", "[SEP]", "who", "is", "good"),
        ids("the", "film", "[SEP]", "?"),
    ]
    assert found.truncated == [True]


def test_pair_that_fits_is_no_window(tokenizer: Tokenizer) -> None:
    found = pair_pieces(tokenizer, asked(7, "windows"), ["the film is"], ["good"])
    assert (found.windows, found.truncated, found.tokens) == ([1], [False], [4])


def test_pairs_need_room_for_three_special_tokens(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"max_length is 3, expected 4 at least for pairs"):
        pair_pieces(tokenizer, asked(3, "truncate"), ["good"], ["bad"])


# ---- running


@pytest.fixture(scope="module")
def network() -> BertForTokenClassification:
    return hand_made(BertForTokenClassification, {"good": 1, "bad": 2}, attends=True)


def some_pieces(seed: int, count: int) -> list[Piece]:
    """Pieces of many lengths, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = int(torch.randint(1, 5, (1,), generator=generator))
        tokens = torch.randint(5, 8, (length,), generator=generator).tolist()
        found.append(Piece((2, *tokens, 3), length + 2))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 7, 30, 10_000])
def test_each_piece_gets_what_it_gets_alone(
    network: BertForTokenClassification, batch_tokens: int
) -> None:
    def read(batch: Batch) -> Sequence[Tensor]:
        return torch.split(
            network(batch.input_ids, layout=batch.layout).logits, list(batch.layout.lengths)
        )

    pieces = some_pieces(0, 25)
    found = computed(network, pieces, read, what="x", batch_tokens=batch_tokens)
    for piece, values in zip(pieces, found, strict=True):
        alone = network(torch.tensor(piece.ids), layout=Packed.from_lengths([len(piece.ids)]))
        torch.testing.assert_close(values, alone.logits, atol=1e-6, rtol=0)


def test_batches_keep_to_the_budget_and_equal_pieces_are_computed_once(
    network: BertForTokenClassification,
) -> None:
    seen: list[tuple[int, ...]] = []

    def read(batch: Batch) -> Iterator[Tensor]:
        lengths = batch.layout.lengths
        assert sum(lengths) <= 12 or len(lengths) == 1
        assert list(lengths) == sorted(lengths, reverse=True)
        for part in torch.split(batch.input_ids, list(lengths)):
            seen.append(tuple(part.tolist()))
            yield part.double()

    pieces = some_pieces(1, 60)
    found = computed(network, pieces, read, what="x", batch_tokens=12)
    assert [tuple(each.long().tolist()) for each in found] == [piece.ids for piece in pieces]
    assert len(seen) == len(set(seen)) == len(set(pieces)) < 60


def test_types_go_by_the_first_text(network: BertForTokenClassification) -> None:
    piece = Piece((2, 5, 3, 6, 7, 3), 3)
    (types,) = computed(network, [piece], lambda batch: [batch.token_type_ids.float()], what="x")
    assert types.tolist() == [0, 0, 0, 1, 1, 1]
    # The same tokens as one text are another piece.
    assert len({piece, Piece(piece.ids, 6)}) == 2


def test_numbers_that_overflow_are_refused(network: BertForTokenClassification) -> None:
    with pytest.raises(CheckpointError, match=r"gave NaN or infinity: .*; compute in float32"):
        computed(network, some_pieces(0, 1), lambda _: [torch.tensor([1.0, torch.inf])], what="x")


def test_no_gradients_are_kept(network: BertForTokenClassification) -> None:
    def read(batch: Batch) -> list[Tensor]:
        return [network(batch.input_ids, layout=batch.layout).logits]

    (found,) = computed(network, some_pieces(0, 1), read, what="x")
    assert not found.requires_grad
    assert not found.is_inference()  # which a loss could not be computed with


def test_logits_are_read_in_single_precision_at_least() -> None:
    for dtype, read in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        assert on_cpu(torch.ones(1, dtype=dtype)).dtype == read


def test_bar_is_shown_when_asked_for(
    network: BertForTokenClassification, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = some_pieces(0, 9)
    for shown in (None, False, True):
        computed(
            network, pieces, lambda batch: [torch.ones(1)] * len(batch.layout.lengths),
            what="counting", batch_tokens=1, show_progress_bar=shown,
        )  # fmt: skip
        assert ("counting" in capsys.readouterr().err) is (shown is True)


def test_budget_below_one_is_refused(network: BertForTokenClassification) -> None:
    with pytest.raises(ValueError, match=r"got batch_tokens 0, expected at least 1"):
        computed(network, [], lambda _: [], what="x", batch_tokens=0)


# ---- what is given


def test_one_text_alone_is_told_from_a_list() -> None:
    assert given_texts("a", None) == (["a"], None, True)
    assert given_texts(["a", "b"], None) == (["a", "b"], None, False)
    assert given_texts("a", "b") == (["a"], ["b"], True)
    assert given_texts(("a",), iter(["b"])) == (["a"], ["b"], False)
    assert given_texts([], []) == ([], [], False)


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        (["a", 3], None, r"texts\[1\] must be str, got int"),
        (["a"], [None], r"pairs\[0\] must be str, got NoneType"),
        (7, None, "texts must be a list of str, got int"),
        ("a", ["b"], "got one text and a list of texts"),
        (["a"], "b", "got one text and a list of texts"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, pairs: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        given_texts(texts, pairs)


def test_texts_without_a_second_each_are_refused() -> None:
    with pytest.raises(TextError, match=r"got 1 second texts, expected one for each of 2 texts"):
        given_texts(["a", "b"], ["c"])
    with pytest.raises(TextError, match=r"pairs\[0\] has the lone surrogate"):
        given_texts(["a"], ["\ud800"])


def test_stream_takes_a_chunk_at_a_time() -> None:
    taken: list[int] = []

    def items() -> Iterator[str]:
        for number in range(10):
            taken.append(number)
            yield str(number)

    found = streamed(items(), lambda chunk: [len(chunk)] * len(chunk), 4)
    assert next(found) == 4
    assert taken == [0, 1, 2, 3]
    assert list(found) == [4] * 7 + [2, 2]
    assert list(streamed([], lambda chunk: chunk, None)) == []


def test_stream_counts_faults_from_its_beginning() -> None:
    def predict(chunk: list[Any]) -> list[str]:
        return given_texts(chunk, None)[0]

    found = streamed(["a", "b", "c", 3], predict, 2)
    assert [next(found), next(found)] == ["a", "b"]
    with pytest.raises(TypeError, match=r"texts\[1\] must be str.*; counted from text 2"):
        next(found)
    with pytest.raises(TypeError, match=r"texts\[0\] must be str, got int$"):
        next(streamed([1], predict, 2))


def test_refused_text_is_counted_from_the_beginning(tokenizer: Tokenizer) -> None:
    def predict(chunk: list[str]) -> list[bool]:
        return text_pieces(tokenizer, asked(4, "error"), chunk).truncated

    found = streamed(["good"] * 5 + ["the film is good"], predict, 2)
    with pytest.raises(
        RefusedTextError, match=r"^text 5 has 6 tokens, expected at most 4"
    ) as caught:
        list(found)
    error = pickle.loads(pickle.dumps(caught.value))  # as a pool of processes sends it
    assert (error.kind, error.index, str(error)) == ("text", 5, str(caught.value))


def test_stream_of_a_text_or_of_no_size_is_refused() -> None:
    with pytest.raises(TypeError, match=r"got one text, expected an iterable of texts"):
        next(streamed("text", list, None))
    with pytest.raises(ValueError, match=r"got chunk_texts 0, expected at least 1"):
        next(streamed(["text"], list, 0))


def test_columns_are_of_texts_or_of_pairs() -> None:
    plain = without_type_checks(module)
    assert columns(["a", "b"]) == (["a", "b"], None)
    assert columns([("a", "b"), ("c", "d")]) == (["a", "c"], ["b", "d"])
    assert columns([]) == ([], None)
    with pytest.raises(TypeError, match=r"texts\[1\] is 'b', expected a tuple of two texts"):
        plain.columns([("a", "b"), "b"])
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got tuple"):
        plain.columns(["a", ("a", "b")])
    with pytest.raises(TypeError, match=r"texts\[0\] is .*, expected a tuple of two texts"):
        plain.columns([("a", "b", "c")])
    with pytest.raises(TypeError, match=r"pairs\[0\] must be str, got int"):
        plain.columns([("a", 1)])
