"""Text to token ids: WordPiece by the `tokenizers` package, everything around it by hand.

    texts -> pieces -> backend (no special tokens) -> cut, or windows -> [CLS] A [SEP] (B [SEP])

The backend is configured once, at load, and never again: switching truncation or padding on a
shared backend raises "Already borrowed" in another thread.  So whatever truncation and padding a
`tokenizer.json` ships with is cleared, and truncation, special tokens, pairs and windows are done
here, over plain lists of ids.  One Tokenizer serves any number of threads, and forked workers.

What may surprise in WordPiece: a word of more than 100 characters, or with any part that the
vocabulary lacks, is one [UNK]; `[SEP]`, `[MASK]` … typed in a text become the special tokens.
"""

import json
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from minibert.errors import TextError, TokenizerError
from minibert.files import replacing_all
from minibert.tokenizer_files import (
    NAMES,
    add_tokens,
    build_backend,
    check_post_processor,
    configure,
    find_special_ids,
    read_backend,
    read_config,
    stated_length,
)

if TYPE_CHECKING:
    import torch

Truncation = Literal["longest_first", "only_first", "only_second", "error"]

# These classes say nothing about BERT: `transformers` takes their tokenizer.json as it stands.
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Others that keep a vocab.txt (BertJapaneseTokenizer …) find words in other ways.
_WORDPIECE_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert")
# The backend needs 60 to 500 bytes a character, so it sees a long text in pieces, cut after the
# first safe character from here on, and at most about so much text in one call.
_PIECE_CHARS = 1 << 14
_CALL_CHARS = 1 << 18
# More than most texts have; where one has still more, its rest is tokenised as well.
_CHARS_PER_TOKEN = 6


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text or pair as the network sees it, special tokens included.

    `offsets` point into the text that `sequence_ids` names (0 the first, 1 the second), and are
    (0, 0) for the special tokens added; `word_ids` are None there, and count each text's words
    from 0.  Both are empty where not asked for.  `n_truncated` counts the tokens cut away.
    """

    ids: list[int]
    token_type_ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    sequence_ids: list[int | None]
    n_truncated: int


@dataclass(slots=True)
class _Tokens:
    """The tokens of one text without special tokens; `n` also counts those that were not kept."""

    ids: list[int]
    offsets: list[tuple[int, int]] | None
    words: list[int | None] | None
    n: int = 0
    n_words: int = 0

    def cut(self, start: int, stop: int) -> "_Tokens":
        part = slice(start, stop)
        return _Tokens(
            self.ids[part],
            None if self.offsets is None else self.offsets[part],
            None if self.words is None else self.words[part],
        )


class Tokenizer:
    """A BERT tokenizer: texts in, `Encoding`s out, the same in every thread.

    Made by `from_pretrained`, `from_file` or `from_vocab`.  The constructor takes the backend
    over and configures it: nothing else may use that backend.  `vocab_size` is one more than the
    largest id, so the rows that embeddings need; `special_ids` are those of all special tokens.

    Raises: TokenizerError where the backend is not BERT's: another model than WordPiece, a special
    token that the vocabulary lacks, or a post-processor that gives anything else than [CLS] A [SEP]
    with types 0 and [CLS] A [SEP] B [SEP] with types 0 and 1.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str] | None = None,
        model_max_length: int | None = None,
    ) -> None:
        names = NAMES | dict(special_tokens or {})
        ids = find_special_ids(backend, names)
        self.unk_id, self.sep_id, self.pad_id, self.cls_id, self.mask_id = ids
        backend.no_truncation()
        backend.no_padding()
        check_post_processor(backend, self.cls_id, self.sep_id)
        # One form for all that mean the same, so that fingerprints agree.
        backend.post_processor = processors.BertProcessing(
            (names["sep"], self.sep_id), (names["cls"], self.cls_id)
        )
        backend.decoder = backend.decoder or decoders.WordPiece()
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens([name for name in names.values() if name not in added])
        self.special_ids = frozenset(
            i for i, token in backend.get_added_tokens_decoder().items() if token.special
        ).union(ids)
        self.vocab_size = 1 + max(backend.get_vocab().values())
        self.model_max_length = model_max_length
        self._backend, self._names = backend, names
        self._cut_after = _safe_cuts(backend)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | Path,
        *,
        revision: str | None = None,
        sha256: str | None = None,
        offline: bool = False,
    ) -> "Tokenizer":
        """Load a checkpoint's tokenizer: its tokenizer.json, else its vocab.txt.

        What tokenizer_config.json states (do_lower_case, strip_accents, tokenize_chinese_chars)
        wins over tokenizer.json as in `transformers`, and as there not with a generic
        tokenizer_class.  Differs: where it is silent tokenizer.json decides; `transformers` would
        lower-case a cased one.

        Raises: TokenizerError; WeightsError for a name that leads nowhere.
        """
        folder = Path(folder_or_name)
        own = (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()
        if revision or sha256 or not own:
            # Here, because only a name needs what brings weights.
            from minibert.weights import resolve

            folder = resolve(folder_or_name, revision=revision, sha256=sha256, offline=offline)
        config, names = read_config(folder)
        kind = str(config.get("tokenizer_class") or "BertTokenizer")
        if (folder / "tokenizer.json").is_file():
            backend = read_backend(folder / "tokenizer.json")
            if kind not in _GENERIC_CLASSES:
                configure(backend, config, folder)
        elif not (folder / "vocab.txt").is_file():
            raise TokenizerError(f"{folder} has neither tokenizer.json nor vocab.txt")
        elif kind.removesuffix("Fast").removesuffix("Tokenizer") not in _WORDPIECE_CLASSES:
            raise TokenizerError(
                f"{folder}: tokenizer_class is {kind}, whose vocab.txt alone does not say how it "
                "finds words; save that tokenizer with a tokenizer.json"
            )
        else:
            backend = build_backend(folder / "vocab.txt", names["unk"], 100)
            configure(backend, config, folder)
            add_tokens(backend, folder, names, stated=config.get("added_tokens_decoder"))
        return cls(backend, special_tokens=names, model_max_length=stated_length(config))

    @classmethod
    def from_file(cls, tokenizer_json: str | Path) -> "Tokenizer":
        """Load one tokenizer.json by itself, whose special tokens have BERT's usual names."""
        return cls(read_backend(Path(tokenizer_json)))

    @classmethod
    def from_vocab(
        cls,
        vocab_txt: str | Path,
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        max_input_chars_per_word: int = 100,
    ) -> "Tokenizer":
        """Build WordPiece from a vocab.txt: one token a line, whose number is the id.

        As in `transformers`: a token that stands on two lines has the later id, a blank line is
        the token "" (which no text gives), any line end will do, and an added_tokens.json beside
        the file counts, provided its ids go on where the vocabulary's end.
        `strip_accents` of None means "as `lowercase`".
        """
        path = Path(vocab_txt)
        backend = build_backend(path, unk_token, max_input_chars_per_word)
        backend.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=tokenize_chinese_chars,
            strip_accents=strip_accents,
            lowercase=lowercase,
        )
        tokens = (unk_token, sep_token, pad_token, cls_token, mask_token)
        names = dict(zip(NAMES, tokens, strict=True))
        add_tokens(backend, path.parent, names, stated=None)
        return cls(backend, special_tokens=names)

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        offsets: bool = False,
    ) -> list[Encoding]:
        """Encode each text, or pair of texts, in at most `max_length` tokens.

        `truncated_lengths` says what a strategy cuts.  With `offsets`, word ids are given too.

        Raises: TextError where a text is too long for "error", or what a strategy must leave
        alone fills `max_length` by itself; TokenizerError where `max_length` leaves no room.
        """
        if truncation not in get_args(Truncation):
            expected = ", ".join(get_args(Truncation))
            raise TokenizerError(f"truncation is {truncation!r}, expected one of {expected}")
        if truncation == "only_second" and pairs is None:
            raise TokenizerError("truncation='only_second' needs pairs, got texts alone")
        room = _room(max_length, n_special=2 if pairs is None else 3)
        columns = _checked_columns(texts, pairs)
        tokens = [self._tokenize(c, offsets=offsets, words=offsets, keep=room) for c in columns]
        rows = enumerate(zip(*tokens, strict=True))
        return [self._truncate(row, room, truncation, parts) for row, parts in rows]

    def lowercased(self) -> "Tokenizer":
        """The same tokenizer, but it lower-cases first; special tokens in a text stay themselves.

        Source: sentence-transformers, where `do_lower_case` of a recipe puts it before the rest.
        """
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
        return Tokenizer(
            backend, special_tokens=self._names, model_max_length=self.model_max_length
        )

    def encode_words(
        self, sentences: Sequence[Sequence[str]], *, max_length: int | None = None
    ) -> list[Encoding]:
        """Encode sentences that are split into words already, with `word_ids` but no offsets.

        A word gives any number of tokens; one that gives none keeps its number all the same.
        """
        room = _room(max_length, n_special=2)
        rows = _checked_list(sentences, "sentences", "lists of words")
        words = [checked_texts(row, f"sentences[{i}]") for i, row in enumerate(rows)]
        tokens = self._tokenize(words, words=True, keep=room)
        return [self._truncate(row, room, "longest_first", (t,)) for row, t in enumerate(tokens)]

    def windows(
        self,
        texts: Sequence[str],
        *,
        max_length: int,
        overlap: int = 0,
        pairs: Sequence[str] | None = None,
        offsets: bool = False,
    ) -> list[list[Encoding]]:
        """Cut each text into windows of at most `max_length` tokens that cover all its tokens.

        Consecutive windows share exactly `overlap` tokens; only the last may be shorter.  A text
        that fits is one window, as `encode` gives it.  `pairs` are questions, one a text, kept
        whole in every window and first, as question answering has it: [CLS] question [SEP] part
        of the text [SEP].

        Raises: TokenizerError where `max_length` or `overlap` leaves no room; TextError where a
        question leaves none for its text.
        """
        n_special = 2 if pairs is None else 3
        room = _room(_checked_int(max_length, "max_length"), n_special=n_special) or 0
        if not 0 <= _checked_int(overlap, "overlap") < room:
            raise TokenizerError(
                f"overlap is {overlap}, expected 0 to {room - 1} for max_length {max_length}"
            )
        columns = reversed(_checked_columns(texts, pairs))
        tokens = [self._tokenize(column, offsets=offsets, words=offsets) for column in columns]
        found = []
        for row, (*question, text) in enumerate(zip(*tokens, strict=True)):
            size = room - sum(part.n for part in question)
            if size <= overlap and text.n > size:
                raise TextError(
                    f"pairs[{row}] has {room - size} tokens, expected at most {room - overlap - 1} "
                    f"for max_length {max_length} and overlap {overlap}: shorten the question"
                )
            spans = window_spans(text.n, size, overlap)
            found.append([self._join(*question, text.cut(*span)) for span in spans])
        return found

    def ids(self, texts: Sequence[str], *, enough: int | None = None) -> list[list[int]]:
        """Return each text's token ids without special tokens, by the backend's fastest way.

        Args:
            enough: of a text with more tokens, at least so many of them; None for all.
        """
        items = checked_texts(texts, "texts")
        if enough is None:
            return self._ids(items)
        heads = [text[: self._cut(text, _CHARS_PER_TOKEN * enough)] for text in items]
        found = self._ids(heads)
        # Of words that are long, or unknown.
        short = [
            row
            for row, head in enumerate(heads)
            if len(head) < len(items[row]) and len(found[row]) < enough
        ]
        rests = self._ids([items[row][len(heads[row]) :] for row in short])
        for row, rest in zip(short, rests, strict=True):
            found[row] += rest
        return found

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in texts]
        for group in self._groups(texts):
            pieces = [piece for _, _, piece in group]
            encodings = self._backend.encode_batch_fast(pieces, add_special_tokens=False)
            for (row, _, _), encoding in zip(group, encodings, strict=True):
                found[row] += encoding.ids
        return found

    def check_embeddings(self, n_embeddings: int, where: object) -> None:
        """Refuse a tokenizer with ids that a table of so many embeddings has no row for."""
        largest = max(self.vocab_size - 1, *self.special_ids)
        if largest >= n_embeddings:
            raise TokenizerError(
                f"{where}: has token ids up to {largest}, expected at most {n_embeddings - 1}, the "
                "model's last embedding; the tokenizer must be that of the checkpoint"
            )

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Join tokens to a text; what the normaliser took away does not come back."""
        for place, i in enumerate(ids):
            if not 0 <= i < self.vocab_size:
                raise TokenizerError(f"ids[{place}] is {i}, expected 0 to {self.vocab_size - 1}")
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def id_to_token(self, token_id: int) -> str | None:
        return self._backend.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def pad(
        self, encodings: Sequence[Encoding], *, multiple_of: int = 1
    ) -> "dict[str, torch.Tensor]":
        """Stack encodings into a batch, padded on the right.

        Returns: `input_ids`, `attention_mask` (1 attend, 0 padding) and `token_type_ids`, int64 of
        shape (batch, seq); seq is the longest's, rounded up to a multiple of `multiple_of`.
        """
        # Here, so that who only tokenises does not wait for torch.
        import torch

        if multiple_of < 1:
            raise TokenizerError(f"multiple_of is {multiple_of}, expected 1 or more")
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        seq = -(-longest // multiple_of) * multiple_of

        def stack(rows: list[list[int]], filler: int) -> torch.Tensor:
            full = [row + [filler] * (seq - len(row)) for row in rows]
            return torch.tensor(full, dtype=torch.long).reshape(len(rows), seq)

        return {
            "input_ids": stack([e.ids for e in encodings], self.pad_id),
            "attention_mask": stack([[1] * len(e.ids) for e in encodings], 0),
            "token_type_ids": stack([e.token_type_ids for e in encodings], 0),
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and its companions, so that `transformers` opens the folder.

        vocab.txt is left out only where a token holds a line end, which it cannot say.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = {f"{role}_token": name for role, name in self._names.items()}
        config: dict[str, object] = {"tokenizer_class": _GENERIC_CLASSES[0], **names}
        normalizer = self._backend.normalizer
        if isinstance(normalizer, normalizers.BertNormalizer):
            config["tokenizer_class"] = "BertTokenizer"
            config["do_lower_case"] = normalizer.lowercase
            config["strip_accents"] = normalizer.strip_accents
            config["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        files = {
            "tokenizer.json": self._backend.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(config, indent=2),
            "special_tokens_map.json": json.dumps(names, indent=2),
        }
        vocab = {i: token for token, i in self._backend.get_vocab(with_added_tokens=False).items()}
        # An id without token was a line whose token stands again further down, which any later
        # token is when it is put there.
        last = max(vocab)
        lines = [vocab.get(i, vocab[last]) for i in range(last + 1)]
        if not any("\n" in line or "\r" in line for line in lines):
            files["vocab.txt"] = "\n".join(lines)
        with replacing_all(*(folder / name for name in files)) as parts:
            for part, text in zip(parts, files.values(), strict=True):
                part.write_text(text + "\n", encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """Return the whole backend as JSON with sorted keys: the same for equal tokenizers."""
        return json.dumps(json.loads(self._backend.to_str()), sort_keys=True, ensure_ascii=False)

    def _tokenize(
        self,
        texts: Sequence[str | list[str]],
        *,
        offsets: bool = False,
        words: bool = False,
        keep: int | None = None,
    ) -> list[_Tokens]:
        """Tokenise texts, or lists of words, and keep the first `keep` tokens of each.

        Beside what is kept, memory grows only with the longest run that has no place to cut.
        """
        encode = self._backend.encode_batch if words else self._backend.encode_batch_fast
        found = [_Tokens([], [] if offsets else None, [] if words else None) for _ in texts]
        for group in self._groups(texts):
            pieces = [piece for _, _, piece in group]
            split = isinstance(pieces[0], list)
            encodings = encode(pieces, is_pretokenized=split, add_special_tokens=False)
            for (row, start, _), encoding in zip(group, encodings, strict=True):
                tokens = found[row]
                room = None if keep is None else keep - len(tokens.ids)
                tokens.n += len(encoding)
                tokens.ids += encoding.ids[:room]
                if tokens.offsets is not None:
                    tokens.offsets += [(a + start, b + start) for a, b in encoding.offsets[:room]]
                if tokens.words is not None:
                    first = start if split else tokens.n_words
                    # None is for special tokens, of which there are none yet.
                    numbers = [first + n for n in encoding.word_ids if n is not None]
                    tokens.words += numbers[:room]
                    tokens.n_words = numbers[-1] + 1 if numbers else first
        return found

    def _groups(
        self, texts: Sequence[str | list[str]]
    ) -> Iterator[list[tuple[int, int, str | list[str]]]]:
        """Yield what one call of the backend gets: (row, start, piece), of a bounded length."""
        group: list[tuple[int, int, str | list[str]]] = []
        n_chars = 0
        for row, text in enumerate(texts):
            is_long = len(text) > _PIECE_CHARS
            for start, piece in self._pieces(text) if is_long else [(0, text)]:
                group.append((row, start, piece))
                n_chars += 1 + (len(piece) if isinstance(piece, str) else sum(map(len, piece)))
                if n_chars >= _CALL_CHARS:
                    yield group
                    group, n_chars = [], 0
        if group:
            yield group

    def _pieces(self, text: str | list[str]) -> Iterator[tuple[int, str | list[str]]]:
        start = 0
        while start < len(text):
            stop = start + _PIECE_CHARS
            if isinstance(text, str):
                stop = self._cut(text, stop)
            yield start, text[start:stop]
            start = stop

    def _cut(self, text: str, start: int) -> int:
        """The first place from `start` on whose both sides have the same tokens when apart."""
        cut = self._cut_after and self._cut_after.search(text, start)
        return cut.end() if cut else len(text)

    def _truncate(
        self, row: int, room: int | None, truncation: Truncation, parts: tuple[_Tokens, ...]
    ) -> Encoding:
        n_all, n_special = sum(part.n for part in parts), 1 + len(parts)
        if room is None or n_all <= room:
            return self._join(*parts)
        n_second = parts[1].n if len(parts) > 1 else 0
        lengths = truncated_lengths(parts[0].n, n_second, room=room, truncation=truncation)
        if lengths is None:
            raise TextError(
                f"texts[{row}] has {n_all + n_special} tokens with the special ones, expected at "
                f"most {room + n_special} with truncation={truncation!r}: shorten it"
            )
        kept = [part.cut(0, length) for part, length in zip(parts, lengths, strict=False)]
        return self._join(*kept, n_truncated=n_all - room)

    def _join(self, *parts: _Tokens, n_truncated: int = 0) -> Encoding:
        """Put the special tokens around one text or two."""
        ids, types, offsets = [self.cls_id], [0], [(0, 0)]
        words: list[int | None] = [None]
        sequences: list[int | None] = [None]
        for number, part in enumerate(parts):
            n = len(part.ids)
            ids += [*part.ids, self.sep_id]
            types += [number] * (n + 1)
            sequences += [*[number] * n, None]
            offsets += [*(part.offsets or []), (0, 0)]
            words += [*(part.words or []), None]
        return Encoding(
            ids,
            types,
            [] if parts[0].offsets is None else offsets,
            [] if parts[0].words is None else words,
            sequences,
            n_truncated,
        )


def truncated_lengths(
    n_first: int, n_second: int, *, room: int, truncation: Truncation
) -> tuple[int, int] | None:
    """Return how many tokens of each text stay, so that at most `room` do; None where it cannot.

    "longest_first" cuts the longer text down to the shorter one, then both alike; of an odd `room`
    the longer keeps one more, and of two texts too long by the same count the second does.
    "only_first" and "only_second" leave the other text alone and need one token to stay.
    Source: `tokenizers`, truncate_encodings.  Differs: google-research/bert gives the odd token to
    the first text.
    """
    n_over = n_first + n_second - room
    if n_over <= 0:
        return n_first, n_second
    if truncation == "longest_first":
        shorter = min(n_first, n_second, room // 2)
        longer = room - shorter
        return (shorter, longer) if n_first <= n_second else (longer, shorter)
    if truncation == "only_first" and n_first > n_over:
        return n_first - n_over, n_second
    if truncation == "only_second" and n_second > n_over:
        return n_first, n_second - n_over
    return None


def window_spans(n: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return the (start, stop) of windows of `size` over `n` tokens, sharing `overlap` each."""
    if n <= size:
        return [(0, n)]
    return [(start, min(start + size, n)) for start in range(0, n - overlap, size - overlap)]


def _safe_cuts(backend: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """Return what matches characters after which a text may be cut and tokenised in parts.

    BERT ends a word after white space, ASCII punctuation and Chinese characters, whatever
    follows.  Only an added token may reach across, so its characters are left out, and there is
    no safe cut beside one that looks at its neighbours or holds white space.
    """
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer) or not isinstance(
        backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer
    ):
        return None
    taken = set()
    for token in backend.get_added_tokens_decoder().values():
        taken |= {*token.content, *normalizer.normalize_str(token.content)}
        if token.lstrip or token.rstrip or token.single_word or any(map(str.isspace, taken)):
            return None
    marks = "".join(sorted({*" \t\n\r", *string.punctuation} - taken))
    # An added token that holds one also holds white space once it is normalised.
    chinese = "\u4e00-\u9fff" if normalizer.handle_chinese_chars else ""
    return re.compile(f"[{re.escape(marks)}{chinese}]")


def _room(max_length: int | None, *, n_special: int) -> int | None:
    if max_length is None:
        return None
    if _checked_int(max_length, "max_length") <= n_special:
        raise TokenizerError(
            f"max_length is {max_length}, expected at least {n_special + 1}: "
            f"{n_special} special tokens and one of the text"
        )
    return max_length - n_special


def _checked_int(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return value


def _checked_list(items: object, name: str, what: str) -> list[Any]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        kind = type(items).__name__
        raise TypeError(f"{name} must be a list of {what}, got {kind}: put it into a list")
    return list(items)


def checked_texts(texts: object, name: str) -> list[str]:
    """Return the texts as a list, each a str that UTF-8 can say.

    Raises: TypeError for anything else, TextError for a lone surrogate; both name the index.
    """
    items = _checked_list(texts, name, "str")
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"{name}[{i}] must be str, got {type(item).__name__}")
        if not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise TextError(
                    f"{name}[{i}] has the lone surrogate {item[error.start]!a} at position "
                    f"{error.start}, expected valid Unicode: decode it with errors='replace'"
                ) from None
    return items


def _checked_columns(texts: object, pairs: object) -> list[list[str]]:
    columns = [checked_texts(texts, "texts")]
    if pairs is not None:
        columns.append(checked_texts(pairs, "pairs"))
        n, expected = len(columns[1]), len(columns[0])
        if n != expected:
            raise TokenizerError(f"pairs has {n} items, expected one for each text: {expected}")
    return columns
