"""Token-level augmentation: texts that are slightly other ones in every epoch.

    [CLS] the cat sat on it [SEP]   ->   [CLS] cat the sat [MASK] [SEP]

What becomes of a text is a function of seed, epoch and the row's number, whatever batch it stands
in.  Nothing is remembered, so nothing has to be saved: a run that is gone on with makes the same
texts again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from minibert.errors import TrainingError

if TYPE_CHECKING:
    from minibert.tokenizer import Tokenizer

_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]


class Augmented(NamedTuple):
    """Texts as they became; `places` says where each of their tokens stood before."""

    ids: list[list[int]]
    types: list[list[int]]
    places: list[list[int]]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Deletes, swaps and masks a share of the tokens of texts, in this order.

    Each token is deleted with the probability `delete`.  Of what is left, neighbours are taken two
    by two, from the first or from the second on, and each two change places with the probability
    `swap`: of n tokens swap · (n - 1) / n move, none by more than one place.  Each token is then
    masked with the probability `mask`.

    Special tokens stay, and stay where they are: nothing moves across one.  Between two of them at
    least one token remains that is neither deleted nor masked, if there was any.

    Source: Wei & Zou 2019, EDA, https://arxiv.org/abs/1901.11196: random deletion and random swap.
    Differs: tokens, not words; swapped are neighbours, not any two, for a BERT reads their order;
        masks stand in for synonyms; all three are done to one text, anew in each epoch, in place
        of several copies with one change each.

    Args:
        special_ids: of the tokens that are not to be touched.
        mask_id: of [MASK]; needed where `mask` is not 0.

    Raises: TrainingError for a share that is not from 0 to 1, or masking without `mask_id`.
    """

    special_ids: frozenset[int]
    mask_id: int | None = None
    delete: float = 0.0
    swap: float = 0.0
    mask: float = 0.0

    def __post_init__(self) -> None:
        for name in ("delete", "swap", "mask"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise TrainingError(
                    f"{name} is {share}, expected a share of the tokens from 0 to 1; 0.1 is usual"
                )
        if self.mask and self.mask_id is None:
            raise TrainingError(f"mask is {self.mask} without mask_id, expected the id of [MASK]")

    @classmethod
    def of(
        cls, tokenizer: "Tokenizer", *, delete: float = 0.0, swap: float = 0.0, mask: float = 0.0
    ) -> "Augmentation":
        """The augmentation for texts of a tokenizer; its [UNK] is a token like any word's."""
        special_ids = tokenizer.special_ids - {tokenizer.unk_id}
        return cls(special_ids, tokenizer.mask_id, delete=delete, swap=swap, mask=mask)

    def apply(
        self,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]],
        *,
        seed: int,
        epoch: int,
        rows: Sequence[int],
    ) -> Augmented:
        """The texts of a batch as they are in this epoch; what is given stays as it is.

        Args:
            ids: of the tokens of each text, special ones included.
            types: of the same tokens.
            rows: a number for each text.  Equal ones are treated alike: a text that stands in an
                epoch twice should have two.
        """
        lengths = np.array([len(text) for text in ids], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum())
        kinds = np.fromiter(chain.from_iterable(types), np.int64, len(flat))
        text = np.repeat(np.arange(len(ids)), lengths)
        place = np.arange(len(flat)) - (lengths.cumsum() - lengths)[text]
        numbers = _numbers(seed, epoch, rows, lengths, place)
        free = ~np.isin(flat, list(self.special_ids))
        # A run is what stands between two special tokens: its number changes at each, and at the
        # first token of a text.
        run = (~free | (place == 0)).cumsum()
        words = np.flatnonzero(free)

        taken = _chosen(numbers[0, words], self.delete, run[words])
        gone, words = words[taken], words[~taken]
        source = np.arange(len(flat))  # which token comes to stand in each place
        first = _first_of_pairs(numbers[1:3, words], self.swap, run[words])
        a, b = words[first], words[first + 1]
        source[a], source[b] = b, a
        if self.mask_id is not None:
            flat[words[_chosen(numbers[3, words], self.mask, run[words])]] = self.mask_id

        source = np.delete(source, gone)
        lengths = np.bincount(text[source], minlength=len(ids))
        return Augmented(*(_cut(each[source], lengths) for each in (flat, kinds, place)))


def _chosen(numbers: _Floats, share: float, run: _Ints) -> _Bools:
    """Which tokens fall to a share; in each run the one with the highest number never does."""
    if not (share and len(run)):
        return np.zeros(len(run), dtype=np.bool_)
    starts, which = _runs(run)
    return (numbers < share) & (numbers < np.maximum.reduceat(numbers, starts)[which])


def _first_of_pairs(numbers: _Floats, share: float, run: _Ints) -> _Ints:
    """The tokens that change places with the next one of their run."""
    if not share:
        return np.zeros(0, dtype=np.int64)
    starts, which = _runs(run)
    from_second = numbers[1, starts] < 0.5
    is_first = (np.arange(len(run)) - starts[which]) % 2 == from_second[which]
    is_first[:-1] &= run[1:] == run[:-1]
    is_first[-1:] = False
    return np.flatnonzero(is_first & (numbers[0] < share))


def _runs(run: _Ints) -> tuple[_Ints, _Ints]:
    """Where each run begins, and which of them each token is in."""
    begins = np.ones(len(run), dtype=np.bool_)
    begins[1:] = run[1:] != run[:-1]
    return np.flatnonzero(begins), begins.cumsum() - 1


def _numbers(seed: int, epoch: int, rows: Sequence[int], lengths: _Ints, place: _Ints) -> _Floats:
    """Four random numbers of [0, 1) for each token, which only what is passed decides: `(4, n)`.

    A generator for each row would cost more than all that is done with its numbers.
    Source: the hash of SplitMix64, Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
        generators", with the constants of Java's SplittableRandom.
    """
    keys = np.random.SeedSequence([seed, epoch]).generate_state(4, np.uint64).astype(np.uint64)
    of_text = _hashed(keys[:, None] + np.asarray(rows, dtype=np.uint64))
    of_token = _hashed(np.repeat(of_text, lengths, axis=1) + place.astype(np.uint64))
    return (of_token >> np.uint64(11)).astype(np.float64) * 2.0**-53  # the 53 bits of a float64


def _hashed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _cut(flat: _Ints, lengths: _Ints) -> list[list[int]]:
    """Tokens that stand end to end as those of each text."""
    values, stops = flat.tolist(), lengths.cumsum().tolist()
    return [values[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]
