"""What BERT is pretrained on: masked words, and pairs of which one may follow the other.

    [CLS] the cat sat [SEP]   ->   [CLS] the [MASK] sat [SEP], labels -100 -100 cat -100 -100

Everything random comes from the generator that is passed in, a fixed number of values for a batch
of a given shape (`mask`), so that a run which restores the generator's state goes on as it would.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from minibert.errors import LabelError, TrainingError

if TYPE_CHECKING:
    from minibert.tokenizer import Tokenizer

IGNORED = -100  # the label of a position that is not to be predicted


class MaskedExamples(NamedTuple):
    input_ids: Tensor  # (batch, seq)
    labels: Tensor  # (batch, seq), IGNORED where nothing is to be predicted


@dataclass(frozen=True, eq=False, slots=True)
class Masking:
    """How masked-LM examples are made: of one vocabulary, with these shares.

    Of each sequence exactly max(1, round(`fraction` · n)) tokens are to be predicted, where n
    counts its tokens without padding but with [CLS] and [SEP], or as many as there are that are
    not special.  Of these, `mask_share` become [MASK], `random_share` any token that is not
    special, and the rest stay as they are.

    With `whole_words` the tokens of a word are predicted together.  Words are taken in random
    order, and one that would exceed the number is passed over; so it may be less, even 0 where
    the only words are long.

    Source: google-research/bert, `create_masked_lm_predictions`.
    Differs: [UNK] and other special tokens are never to be predicted and never put in; there is no
    `max_predictions_per_seq`; a word does not go on behind a special token.
    """

    mask_id: int
    pad_id: int
    special: Tensor  # (vocab,) bool: never predicted
    insertable: Tensor  # the ids that may stand in at random
    continues: Tensor  # (vocab,) bool: the tokens that go on with a word, "##…"
    fraction: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        for name in ("fraction", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        if not self.fraction:
            raise TrainingError("fraction is 0: nothing would be predicted; BERT's is 0.15")
        if self.mask_share + self.random_share > 1:
            raise TrainingError(
                f"mask_share {self.mask_share} and random_share {self.random_share} are more than "
                "1 together; BERT's are 0.8 and 0.1"
            )

    @classmethod
    def of(
        cls,
        tokenizer: "Tokenizer",
        *,
        fraction: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        whole_words: bool = False,
    ) -> "Masking":
        tokens = [tokenizer.id_to_token(token_id) for token_id in range(tokenizer.vocab_size)]
        special = torch.tensor([i in tokenizer.special_ids for i in range(len(tokens))])
        there = torch.tensor([token is not None for token in tokens])
        return cls(
            tokenizer.mask_id,
            tokenizer.pad_id,
            special,
            (there & ~special).nonzero()[:, 0],
            torch.tensor([token is not None and token.startswith("##") for token in tokens]),
            fraction=fraction,
            mask_share=mask_share,
            random_share=random_share,
            whole_words=whole_words,
        )

    def mask(
        self, input_ids: Tensor, *, generator: torch.Generator, word_ids: Tensor | None = None
    ) -> MaskedExamples:
        """Mask a batch of ids `(batch, seq)`, which is left as it is.

        `word_ids`, of the same shape, say with `whole_words` which tokens are one word: neighbours
        with the same number from 0; anything negative is a word by itself.  Without them "##" goes
        on with a word.

        Raises: LabelError where ids or word ids do not have the shape, or are not of the
        vocabulary.
        """
        self._check(input_ids, word_ids)
        ids = input_ids.to(generator.device, torch.long)
        order = torch.rand(ids.shape, generator=generator, device=ids.device)
        kind = torch.rand(ids.shape, generator=generator, device=ids.device)
        drawn = torch.randint(
            len(self.insertable), ids.shape, generator=generator, device=ids.device
        )
        free = ~_looked_up(self.special, ids)
        # In float64, where 0.15 · 10 is 1.5 as in Python, and both round a half to the even number.
        lengths = (ids != self.pad_id).sum(dim=1).double()
        count = (lengths * self.fraction).round().clamp(min=1).long()
        if self.whole_words:
            words = self._words(ids, free, None if word_ids is None else word_ids.to(ids.device))
            chosen = _choose_words(order, words, count)
        else:
            # The rank of each token in its row's random order, those that are not free last.
            rank = order.masked_fill(~free, 2.0).argsort(dim=1).argsort(dim=1)
            chosen = (rank < count[:, None]) & free
        labels = ids.masked_fill(~chosen, IGNORED)
        hidden = chosen & (kind < self.mask_share)
        other = chosen & ~hidden & (kind < self.mask_share + self.random_share)
        masked = torch.where(hidden, self.mask_id, ids)
        masked = torch.where(other, _looked_up(self.insertable, drawn), masked)
        return MaskedExamples(masked.to(input_ids.device), labels.to(input_ids.device))

    def _words(self, ids: Tensor, free: Tensor, word_ids: Tensor | None) -> Tensor:
        """The number of each token's word in its row, from 0; -1 where it is not to be taken."""
        if word_ids is None:
            joined = _looked_up(self.continues, ids[:, 1:])
        else:
            joined = (word_ids[:, 1:] == word_ids[:, :-1]) & (word_ids[:, 1:] >= 0)
        begins = free.clone()
        begins[:, 1:] &= ~(joined & free[:, :-1])
        return torch.where(free, begins.cumsum(dim=1) - 1, -1)

    def _check(self, input_ids: Tensor, word_ids: Tensor | None) -> None:
        if input_ids.ndim != 2 or input_ids.is_floating_point() or input_ids.dtype == torch.bool:
            raise LabelError(
                f"input_ids have shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}, "
                "expected integers (batch, seq)"
            )
        if word_ids is not None and word_ids.shape != input_ids.shape:
            raise LabelError(
                f"word_ids have shape {tuple(word_ids.shape)}, expected "
                f"{tuple(input_ids.shape)} as input_ids"
            )
        if input_ids.numel():
            low, high = (int(end) for end in torch.aminmax(input_ids))
            if low < 0 or high >= len(self.special):
                raise LabelError(
                    f"input_ids hold {low if low < 0 else high}, expected 0 to "
                    f"{len(self.special) - 1}: is it the tokenizer of these ids?"
                )


def _choose_words(order: Tensor, words: Tensor, count: Tensor) -> Tensor:
    """Which tokens are taken: whole words in random order while they fit into `count`."""
    batch, seq = words.shape
    # One more column for -1, the tokens that are not to be taken; it is cut off again.
    sizes = torch.zeros(batch, seq + 1, dtype=torch.long, device=words.device)
    sizes.scatter_add_(1, words % (seq + 1), torch.ones_like(words))
    taken = []
    table = zip(order.argsort(dim=1).tolist(), sizes.tolist(), count.tolist(), strict=True)
    for row, (turns, size, room) in enumerate(table):
        for word in turns:
            if 0 < size[word] <= room:
                taken.append(row * (seq + 1) + word)
                room -= size[word]
                if not room:
                    break
    chosen = torch.zeros(batch * (seq + 1), dtype=torch.bool, device=words.device)
    chosen.index_fill_(0, torch.tensor(taken, dtype=torch.long, device=words.device), True)
    return chosen.view(batch, seq + 1).gather(1, words % (seq + 1))


def _looked_up(table: Tensor, ids: Tensor) -> Tensor:
    """`table[ids]`, which would be shared among threads that cost more than so small a look-up."""
    return table.to(ids.device).index_select(0, ids.flatten()).view(ids.shape)


class SentencePair(NamedTuple):
    first: list[int]
    second: list[int]
    label: int  # 0: the second follows the first; 1: it is from another document


def sentence_pairs(
    documents: Sequence[Sequence[Sequence[int]]],
    *,
    max_tokens: int = 128,
    generator: torch.Generator,
    short_seq_prob: float = 0.1,
) -> Iterator[SentencePair]:
    """Make next-sentence pairs of documents, which are sentences of token ids without [CLS], [SEP].

    Sentences are gathered until they fill `max_tokens` (less three special tokens; for a
    `short_seq_prob` of the documents a random length), and split at random: the second half
    follows the first, or, half of the time, is exchanged for sentences of another document, and
    what was not used is gathered again.  A chunk of one sentence always gets another document's.
    What is too long is cut at random from either end of the longer one.

    Source: google-research/bert, `create_instances_from_document`.
    Differs: the other document is never the same one (Google gives up after 10 draws); empty
    sentences and documents are left out; pairs come in the order of the documents, not shuffled.

    Raises: TrainingError where fewer than two documents hold a token, or a setting is out of range.
    """
    if max_tokens < 5:
        raise TrainingError(
            f"max_tokens is {max_tokens}, expected 5 or more: [CLS] a [SEP] b [SEP]"
        )
    if not 0 <= short_seq_prob <= 1:
        raise TrainingError(f"short_seq_prob is {short_seq_prob}, expected 0 to 1")
    full = [[list(each) for each in document if len(each)] for document in documents]
    full = [document for document in full if document]
    if len(full) < 2:
        raise TrainingError(
            f"{len(full)} documents hold a token, expected two at least: what does not follow a "
            "text is taken from another one"
        )
    return _pairs(full, max_tokens - 3, generator, short_seq_prob)


def _pairs(
    documents: list[list[list[int]]], room: int, generator: torch.Generator, short_seq_prob: float
) -> Iterator[SentencePair]:
    for number, document in enumerate(documents):
        short = _chance(short_seq_prob, generator)
        wanted = 2 + _below(room - 1, generator) if short else room
        place = 0
        while place < len(document):
            stop, n_tokens = place, 0
            while stop < len(document) and n_tokens < wanted:
                n_tokens += len(document[stop])
                stop += 1
            split = place + 1
            if stop - place > 1:
                split += _below(stop - place - 1, generator)
            first = _joined(document[place:split])
            is_random = stop - place == 1 or _chance(0.5, generator)
            if is_random:
                other = (number + 1 + _below(len(documents) - 1, generator)) % len(documents)
                start = _below(len(documents[other]), generator)
                second = []
                for sentence in documents[other][start:]:
                    second += sentence
                    if len(second) >= wanted - len(first):
                        break
            else:
                second = _joined(document[split:stop])
            _cut(first, second, room, generator)
            yield SentencePair(first, second, int(is_random))
            place = split if is_random else stop


def _cut(first: list[int], second: list[int], room: int, generator: torch.Generator) -> None:
    """Take tokens from either end of the longer one until both fit, in place."""
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        del longer[0 if _chance(0.5, generator) else -1]


def _joined(sentences: Sequence[Sequence[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator, device=generator.device))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator, device=generator.device) < probability)
