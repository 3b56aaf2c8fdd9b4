"""Two tokenizers compared on a corpus: how many texts differ, where first, and by which rule.

    texts -> ids of both -> first token that differs -> stage at which it differs -> rule

A tokenizer takes typed special tokens out of a text, normalises and splits the rest into words,
looks these up in its vocabulary, and cuts.  What the words are is seen through a *probe*: the same
tokenizer with single bytes for a vocabulary, so that nothing is unknown and all that was done to a
character shows.  Where the probes agree, the vocabulary is at fault; where they do not, the
characters at which they part are changed (lower-cased, spaces put round them …) until they agree,
and the change that mends it names the rule.  No setting of a tokenizer is looked at.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, combinations, zip_longest
from typing import Any, Literal, NamedTuple, get_args

import tokenizers
from tokenizers import models

from minibert.errors import TokenizerError
from minibert.tokenizer import Tokenizer, checked_texts

Rule = Literal[
    "lower-casing",
    "accents",
    "CJK",
    "control characters",
    "punctuation",
    "whitespace",
    "special tokens",
    "unknown",
    "vocabulary",
    "truncation",
    "other",
]
RULES: tuple[Rule, ...] = get_args(Rule)

# What tokenizers are known to disagree on; a line each, and what is too long for a line behind.
HOSTILE_TEXTS = (
    "the quick brown fox jumps over the lazy dog",
    "The Quick BROWN fox; iPhone, McDonald, NASA",
    "İstanbul ΑΣ ΣΊΣΥΦΟΣ STRASSE straße ǅ Ⅷ",
    "café naïve résumé Ångström Zoë",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "ÉCOLE ÜBER ñandú Đặng Việt",
    "привет ёлка Й й שָׁלוֹם مَرْحَبًا हिन्दी",
    "今天天气很好 hello世界 東京タワー 3月",
    "豈更 \U0002070e\U0002b820\U0002b920 〇々",
    "한국어 안녕하세요 \u1112\u1161\u11ab",
    "zero\u200bwidth soft\u00adhyphen nul\x00 bell\x07 \ufeffmark \ufffd\u200e",
    "line\x0bfeed form\x0cfeed next\x85line unit\x1fseparator",
    "tab\tand\nnewline\rreturn no\xa0break\u2003em\u3000ideographic\u2028line",
    "don't e-mail U.S.A. $3.50 50% a_b #tag @you x=y+1 ~^`|",
    "¿qué? «oui» “quoted” — dash… 、。「日本」！",
    "€5 ©2024 ½ x² ≠ → ☃ ♥ ﬁne Ｆｕｌｌ",
    "😀 👩🏽‍💻 🇫🇷 ☃\ufe0f text👍text",
    "typed [SEP] and[MASK]glued [CLS] [PAD] [UNK] [sep] [unused0] <mask> </s>",
    "pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaft",
    "a" * 100 + " " + "a" * 101 + " " + "a" * 201,
    "",
    " \t\n",
    "\u0301\u200b",
    "word " * 600,
)

# What is taken at once: so many texts, or so many characters.
_CHUNK_TEXTS = 1 << 10
_CHUNK_CHARS = 1 << 20
# Tokens shown on either side of the first that differs; of its word, so many are looked at.
_SHOWN_BEFORE, _SHOWN_AFTER = 3, 4
_AHEAD = 32
# Of a word, so many characters are looked at: enough for all that fit a vocabulary.
_WORD_CHARS = 1 << 12
# And beside it so many, up to the next blank.
_CONTEXT_CHARS = 1 << 6
# Words repeat themselves in a corpus, and their rules with them.
_KNOWN_WORDS = 1 << 14

# Ids of the probes' bytes: above those of any added token.
_FIRST_BYTE = 1 << 24

# Source: google-research/bert tokenization.py, _is_chinese_char.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two tokenizers part on one text, and why.

    `row` is the text's place in the corpus, from 0.  `index` is that of the character concerned; it
    is None where only the special tokens put around the text differ.  The tokens are those around
    the first that differs, `n_agreeing` of which come before it.
    """

    row: int
    text: str
    rule: Rule
    index: int | None
    evidence: str
    n_agreeing: int
    tokens_a: tuple[str, ...]
    tokens_b: tuple[str, ...]
    ids_a: tuple[int, ...]
    ids_b: tuple[int, ...]

    @property
    def character(self) -> str | None:
        return None if self.index is None else self.text[self.index]

    @property
    def character_name(self) -> str | None:
        """Its code point and name in Unicode: "U+00E9 LATIN SMALL LETTER E WITH ACUTE"."""
        if self.character is None:
            return None
        category = unicodedata.category(self.character)
        name = unicodedata.name(self.character, f"(without a name, category {category})")
        return f"U+{ord(self.character):04X} {name}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can say of it."""
        return {
            "row": self.row,
            "text": self.text,
            "rule": self.rule,
            "index": self.index,
            "character": self.character,
            "character_name": self.character_name,
            "evidence": self.evidence,
            "n_agreeing": self.n_agreeing,
            "tokens_a": list(self.tokens_a),
            "tokens_b": list(self.tokens_b),
            "ids_a": list(self.ids_a),
            "ids_b": list(self.ids_b),
        }

    def __str__(self) -> str:
        lines = [
            f"texts[{self.row}], {self.rule}: {self.evidence}",
            f"  text  {_excerpt(self.text, self.index)}",
            f"  at    {self.place}",
            f"  A     {self._marked(self.tokens_a, self.ids_a)}",
            f"  B     {self._marked(self.tokens_b, self.ids_b)}",
        ]
        return "\n".join(lines)

    @property
    def place(self) -> str:
        """The character concerned, in words."""
        if self.index is None:
            return "no character of the text"
        return f"character {self.index}, {self.character!r} {self.character_name}"

    def _marked(self, tokens: Sequence[str], ids: Sequence[int]) -> str:
        """The tokens in a line, the first that differs in »«, and ids where pieces do not tell."""
        shown = [_printable(token) for token in tokens]
        if self.rule == "vocabulary":
            shown = [f"{token}({i})" for token, i in zip(shown, ids, strict=True)]
        first = shown[self.n_agreeing] if self.n_agreeing < len(shown) else ""
        return " ".join([*shown[: self.n_agreeing], f"»{first}«", *shown[self.n_agreeing + 1 :]])


@dataclass(frozen=True, slots=True)
class RuleCount:
    """How many texts part first by one rule, and the first of them."""

    texts: int
    example: Difference

    def to_dict(self) -> dict[str, Any]:
        return {"texts": self.texts, "example": self.example.to_dict()}


@dataclass(frozen=True, slots=True)
class TokenizerComparison:
    """What two tokenizers make of a corpus.

    Each of the `differing` texts counts once in `by_rule`: under the rule by which the first token
    that differs does.  Rules without texts are left out.
    """

    texts: int
    differing: int
    by_rule: Mapping[Rule, RuleCount]
    first: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can say of it."""
        return {
            "texts": self.texts,
            "differing": self.differing,
            "by_rule": {rule: count.to_dict() for rule, count in self.by_rule.items()},
            "first": None if self.first is None else self.first.to_dict(),
        }

    def __str__(self) -> str:
        lines = [f"{self.differing} of {self.texts} texts differ"]
        if self.first is None:
            return lines[0]
        lines += ["", f"{'rule':<20}{'texts':>9}  first at"]
        for rule, count in self.by_rule.items():
            where = f"texts[{count.example.row}], {count.example.place}"
            lines.append(f"{rule:<20}{count.texts:>9}  {where}")
        return "\n".join([*lines, "", f"first: {self.first}"])


def compare_tokenizers(
    a: Tokenizer, b: Tokenizer, texts: Iterable[str], *, max_length: int | None = None
) -> TokenizerComparison:
    """Tokenise texts with both and say which differ in a token id, where first, and by which rule.

    Both cut at `max_length` tokens; with None, each at its own model_max_length.  Texts are taken
    in chunks, so that memory does not grow with their number.

    Raises: TokenizerError for a `max_length` that leaves no room; TypeError and TextError for what
    is no text.
    """
    pair = _Pair(a, b, max_length)
    n_texts = 0
    counts: dict[Rule, int] = {}
    examples: dict[Rule, Difference] = {}
    for chunk in _chunks(texts):
        checked_texts(chunk, f"texts[{n_texts}:]" if n_texts else "texts")
        for difference in pair.differences(chunk, first_row=n_texts):
            counts[difference.rule] = counts.get(difference.rule, 0) + 1
            examples.setdefault(difference.rule, difference)
        n_texts += len(chunk)
    return TokenizerComparison(
        texts=n_texts,
        differing=sum(counts.values()),
        by_rule={r: RuleCount(counts[r], examples[r]) for r in RULES if r in counts},
        first=min(examples.values(), key=lambda found: found.row, default=None),
    )


class _Token(NamedTuple):
    """A token, the characters that it stands for, and the number of its word."""

    id: int
    start: int
    end: int
    word: int | None


class _Unit(NamedTuple):
    """What the probe makes of a character: a byte of a word, or a whole special token's text."""

    content: int | str
    start: int
    end: int
    opens_word: bool


class _Parting(NamedTuple):
    """Where the probes part: at a character, because of those from `start` to `end`."""

    at: int
    start: int
    end: int
    special: str | None  # what one of them took for a special token


class _Change(NamedTuple):
    """A change to a text that leaves nothing for its rule to do."""

    rule: Rule
    done: str
    apply: Callable[[str], str]
    is_removal: bool = False


@dataclass(frozen=True, slots=True)
class _Cause:
    rule: Rule
    index: int | None
    evidence: str


class _Side:
    """One of the two tokenizers, with its cut and its probe."""

    def __init__(self, name: str, tokenizer: Tokenizer, max_length: int | None) -> None:
        limit = tokenizer.model_max_length if max_length is None else max_length
        try:
            tokenizer.encode([], max_length=limit)
        except TokenizerError as error:
            where = f"the model_max_length of {name}: " if max_length is None else ""
            raise TokenizerError(f"{where}{error}") from None
        self.name = name
        self.tokenizer = tokenizer
        self.room = None if limit is None else limit - 2

    @cached_property
    def _probe(self) -> tokenizers.Tokenizer:
        probe = tokenizers.Tokenizer.from_str(self.tokenizer.to_json())
        vocab = {f"<0x{byte:02X}>": _FIRST_BYTE + byte for byte in range(256)}
        probe.model = models.BPE(vocab=vocab, merges=[], byte_fallback=True)
        return probe

    def units(self, text: str) -> list[_Unit]:
        """What is left of a text's characters in its words, before any vocabulary."""
        encoding = self._probe.encode(text, add_special_tokens=False)
        found: list[_Unit] = []
        last = None
        rows = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.word_ids, strict=True)
        for i, token, (start, end), word in rows:
            content = i if i >= _FIRST_BYTE else token
            found.append(_Unit(content, start, end, word != last))
            last = word
        return found

    def tokens(self, text: str, n: int) -> list[_Token]:
        """The first `n` tokens of a text, or those before its cut."""
        n = n if self.room is None else min(n, self.room)
        (found,) = self.tokenizer.encode([text], max_length=n + 2, offsets=True)
        rows = zip(found.ids, found.offsets, found.word_ids, strict=True)
        return [_Token(i, *span, word) for i, span, word in rows][1:-1]

    def cut(self, ids: list[int]) -> list[int]:
        return ids if self.room is None or len(ids) <= self.room else ids[: self.room]

    def piece(self, token_id: int) -> str:
        piece = self.tokenizer.id_to_token(token_id)
        return str(token_id) if piece is None else piece


class _Pair:
    """Both tokenizers, and what is known of the words that they part on."""

    def __init__(self, a: Tokenizer, b: Tokenizer, max_length: int | None) -> None:
        self.a, self.b = _Side("A", a, max_length), _Side("B", b, max_length)
        self._same_ends = (a.cls_id, a.sep_id) == (b.cls_id, b.sep_id)
        self._cause_in_words = lru_cache(maxsize=_KNOWN_WORDS)(self._find_cause_in_words)

    def differences(self, texts: list[str], *, first_row: int) -> Iterator[Difference]:
        rows = zip(texts, self.a.tokenizer.ids(texts), self.b.tokenizer.ids(texts), strict=True)
        for row, (text, ids_a, ids_b) in enumerate(rows, first_row):
            if not self._same_ends or self.a.cut(ids_a) != self.b.cut(ids_b):
                yield self._explain(row, text, ids_a, ids_b)

    def _explain(self, row: int, text: str, ids_a: list[int], ids_b: list[int]) -> Difference:
        kept_a, kept_b = self.a.cut(ids_a), self.b.cut(ids_b)
        n_same = _n_same(kept_a, kept_b)
        tokens_a = self.a.tokens(text, n_same + _AHEAD)
        tokens_b = self.b.tokens(text, n_same + _AHEAD)
        apart = (i for i in range(n_same) if _is_apart(tokens_a[i : i + 2], tokens_b[i : i + 2]))
        at = next(apart, n_same)
        if at == len(kept_a) == len(kept_b):
            cause = _Cause("vocabulary", None, "the special tokens around a text have other ids")
        elif at == len(kept_a) < len(ids_a):
            cause = self._cut_by(self.a, tokens_b[at])
        elif at == len(kept_b) < len(ids_b):
            cause = self._cut_by(self.b, tokens_a[at])
        else:
            cause = self._cause(text, tokens_a, tokens_b, at)
        shown_a = [self.a.tokenizer.cls_id, *kept_a, self.a.tokenizer.sep_id]
        shown_b = [self.b.tokenizer.cls_id, *kept_b, self.b.tokenizer.sep_id]
        first = 0 if shown_a[0] != shown_b[0] and cause.index is None else at + 1
        start = max(0, first - _SHOWN_BEFORE)
        around = slice(start, first + _SHOWN_AFTER)
        return Difference(
            row=row,
            text=text,
            rule=cause.rule,
            index=cause.index,
            evidence=cause.evidence,
            n_agreeing=first - start,
            tokens_a=tuple(self.a.piece(i) for i in shown_a[around]),
            tokens_b=tuple(self.b.piece(i) for i in shown_b[around]),
            ids_a=tuple(shown_a[around]),
            ids_b=tuple(shown_b[around]),
        )

    def _cut_by(self, side: _Side, token: _Token) -> _Cause:
        kept = (side.room or 0) + 2
        return _Cause("truncation", token.start, f"same ids, but {side.name} keeps {kept} tokens")

    def _cause(self, text: str, tokens_a: list[_Token], tokens_b: list[_Token], at: int) -> _Cause:
        """Why the tokens at place `at` differ, one of which may be missing."""
        a, b = (tokens[at] if at < len(tokens) else None for tokens in (tokens_a, tokens_b))
        index = min(token.start for token in (a, b) if token)
        if a and b and a.id != b.id and self.a.piece(a.id) == self.b.piece(b.id):
            return _Cause("vocabulary", index, "the same piece has another id")
        word_a, word_b = _word(tokens_a, at), _word(tokens_b, at)
        start = min(word[0].start for word in (word_a, word_b) if word)
        end = max(word[-1].end for word in (word_a, word_b) if word)
        end = min(end, start + _WORD_CHARS)
        left = start - len(text[max(0, start - _CONTEXT_CHARS) : start].split(" ")[-1])
        right = end + len(text[end : end + _CONTEXT_CHARS].split(" ")[0])
        cause = self._cause_in_words(text[left:right], start - left, end - left)
        if cause is not None:
            return replace(cause, index=left + (cause.index or 0))
        if a is None or b is None:
            return _Cause("other", index, "the words are the same, but one has no token for them")
        a_unknown = a.id == self.a.tokenizer.unk_id
        b_unknown = b.id == self.b.tokenizer.unk_id
        if a_unknown and not b_unknown:
            return _Cause("unknown", index, _why_unknown(self.a, self.b, word_b))
        if b_unknown and not a_unknown:
            return _Cause("unknown", index, _why_unknown(self.b, self.a, word_a))
        return _Cause("vocabulary", index, "the same word has other pieces")

    def _find_cause_in_words(self, text: str, start: int, end: int) -> _Cause | None:
        """Why the words between two characters differ; None where they do not."""
        parting = self._parting(text, start)
        if parting is None or parting.at >= end:
            return None
        old = text[parting.start : parting.end]
        if parting.special is not None:
            index = parting.at + len(old) - len(old.lstrip())
            evidence = f"only one takes {_printable(parting.special)} for a special token"
            return _Cause("special tokens", index, evidence)
        able = [change for change in _CHANGES if change.apply(old) != old]
        for changes in chain.from_iterable(combinations(able, n) for n in (1, 2, 3)):
            new = old
            for change in changes:
                new = change.apply(new)
            changed_text = text[: parting.start] + new + text[parting.end :]
            # Without the character any two agree; that is evidence only if one took no notice.
            if any(change.is_removal for change in changes) and not any(
                _words(side.units(text)) == _words(side.units(changed_text))
                for side in (self.a, self.b)
            ):
                continue
            then = self._parting(changed_text, start)
            if then is None or then.at >= parting.start + len(new):
                apply = changes[0].apply
                changed = (i for i, c in enumerate(old, parting.start) if apply(c) != c)
                done = " and ".join(change.done for change in changes)
                evidence = f"both find the same words once {done}"
                return _Cause(changes[0].rule, next(changed, parting.at), evidence)
        return _Cause("other", parting.at, "the words differ, and no change tried mends that")

    def _parting(self, text: str, start: int) -> _Parting | None:
        """Where the probes first part, from a character on; None where they do not."""
        a, b = (
            [unit for unit in side.units(text) if unit.end > start] for side in (self.a, self.b)
        )
        before: list[_Unit] = []
        for one, other in zip_longest(a, b):
            units = [unit for unit in (one, other) if unit is not None]
            is_same = len(units) == 2 and one.content == other.content
            is_same = is_same and _is_overlapping(one, other)
            if is_same and one.opens_word == other.opens_word:
                before = units
                continue
            at = min(unit.start for unit in units)
            units = units if is_same else [unit for unit in units if unit.start == at]
            special = next((u.content for u in units if isinstance(u.content, str)), None)
            end = max(unit.end for unit in units)
            if len({unit.opens_word for unit in units}) > 1:
                # A border between this and what comes before, which may be why.
                at_border = min(unit.start for unit in (*before, *units))
                return _Parting(at, at_border, end, None if is_same else special)
            return _Parting(at, at, end, special)
        return None


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts, each of a bounded length; a longer text is one by itself."""
    if isinstance(texts, str):
        raise TypeError("texts must be an iterable of str, got str: put it into a list")
    chunk: list[str] = []
    n_chars = 0
    for text in texts:
        chunk.append(text)
        n_chars += len(text) if isinstance(text, str) else 0
        if len(chunk) >= _CHUNK_TEXTS or n_chars >= _CHUNK_CHARS:
            yield chunk
            chunk, n_chars = [], 0
    if chunk:
        yield chunk


def _n_same(one: list[int], other: list[int]) -> int:
    """How many ids two lists begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(one), len(other)))


def _is_overlapping(one: _Token | _Unit, other: _Token | _Unit) -> bool:
    spans = (one.start, one.end), (other.start, other.end)
    return spans[0] == spans[1] or (one.start < other.end and other.start < one.end)


def _is_apart(one: list[_Token], other: list[_Token]) -> bool:
    """Whether two tokens, each with the one behind it, stand for other characters.

    One [UNK] is like the other, so that tokens may part before their ids do.
    """
    if not _is_overlapping(one[0], other[0]):
        return True
    return _begins_inside(one, other[0]) or _begins_inside(other, one[0])


def _begins_inside(tokens: list[_Token], other: _Token) -> bool:
    """Whether the token behind the first begins inside another, and not inside the first."""
    return len(tokens) > 1 and tokens[0].end <= tokens[1].start < other.end


def _word(tokens: list[_Token], at: int) -> list[_Token]:
    """The tokens of the word that one belongs to."""
    if at >= len(tokens):
        return []
    start = at
    while start > 0 and tokens[start - 1].word == tokens[at].word:
        start -= 1
    return [token for token in tokens[start:] if token.word == tokens[at].word]


def _words(units: list[_Unit]) -> list[tuple[int | str, bool]]:
    """What words there are, wherever they stand."""
    return [(unit.content, unit.opens_word) for unit in units]


def _why_unknown(lacking: _Side, having: _Side, word: list[_Token]) -> str:
    """What keeps one tokenizer from a word that the other has pieces for."""
    pieces = [having.piece(token.id) for token in word]
    absent = [piece for piece in pieces if lacking.tokenizer.token_to_id(piece) is None]
    if absent:
        return f"the vocabulary of {lacking.name} lacks {_printable(absent[0])}"
    n = word[-1].end - word[0].start
    return (
        f"a word of {n} characters is too long for {lacking.name}, whose vocabulary has its pieces"
    )


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    is_other = category in ("Cc", "Cf", "Co") and character not in "\t\n\r"
    return is_other or character == "\ufffd"


def _is_cjk(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _CJK)


def _is_punctuation(character: str) -> bool:
    """Whether some splitter takes it for punctuation: marks, symbols, ½, what is too new here."""
    category = unicodedata.category(character)
    return (category[0] in "PS" or category in ("No", "Cn")) and character != "\ufffd"


def _replacing(chosen: Callable[[str], bool], new: str) -> Callable[[str], str]:
    """What puts something in the place of each chosen character, its "{}" the character."""
    return lambda text: "".join(new.format(c) if chosen(c) else c for c in text)


def _lower(text: str) -> str:
    return "".join(character.lower() for character in text)


def _strip_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if unicodedata.category(part) != "Mn")


_CHANGES = (
    _Change("lower-casing", "it is lower-cased", _lower),
    _Change("accents", "accents are stripped", _strip_accents),
    _Change("CJK", "blanks stand round CJK characters", _replacing(_is_cjk, " {} ")),
    _Change(
        "control characters",
        "control characters are dropped",
        _replacing(_is_control, ""),
        is_removal=True,
    ),
    _Change("punctuation", "blanks stand round punctuation", _replacing(_is_punctuation, " {} ")),
    _Change(
        "punctuation",
        "punctuation is dropped",
        _replacing(_is_punctuation, " "),
        is_removal=True,
    ),
    _Change("whitespace", "whitespace is a blank", _replacing(str.isspace, " ")),
    _Change("whitespace", "whitespace is dropped", _replacing(str.isspace, "")),
)


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _excerpt(text: str, index: int | None, n_chars: int = 40) -> str:
    """The text around a character, as a literal."""
    at = index or 0
    start, end = max(0, at - n_chars), at + n_chars
    ends = "…" if start > 0 else "", "…" if end < len(text) else ""
    return f"{ends[0]}{text[start:end]!r}{ends[1]}"
