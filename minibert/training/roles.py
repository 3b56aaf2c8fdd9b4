"""Which column is the text, the second text, the label and the row's name; and what speaks for it.

Nothing of this is done while training: it is a proposal for a run file, so each choice comes with
sentences that say what it rests on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from minibert.lines import listed
from minibert.training.survey import Column, Survey

# Names that columns have, the likeliest first; the last word of a name counts.
_TEXTS = (
    "text", "texts", "sentence", "review", "comment", "content", "message", "body", "tweet",
    "question", "query", "premise", "hypothesis", "answer", "passage", "context", "document",
    "utterance", "post",
)  # fmt: skip
_LABELS = (
    "label", "labels", "class", "target", "category", "categories", "sentiment", "intent",
    "emotion", "emotions", "tag", "tags", "topic", "topics", "similarity", "score", "rating",
    "stars", "polarity", "gold", "y",
)  # fmt: skip
_GROUPS = (
    "author", "reviewer", "user", "speaker", "patient", "person", "document", "doc", "source",
    "session", "conversation", "thread", "group", "product", "movie", "film", "book", "domain",
    "site",
)  # fmt: skip
_IDS = ("id", "ids", "idx", "index", "guid", "uuid", "key", "name", "nr", "number")
_FIRST = ("premise", "question", "query", "post")
_SECOND = ("hypothesis", "answer", "sentence", "passage", "context", "document", "comment")
_TRUTHS = {"0", "1", "0.0", "1.0", "true", "false", "True", "False"}

_ID_CHARS = 64
_FEW_ROWS = 20  # in which anything may be distinct by chance
_PAIR_RATIO = 4  # of the mean lengths of two texts that are read together
_PAIR_WORDS = 3


@dataclass
class Roles:
    """The columns of a run; `why` has the evidence for each, by its key in a run file."""

    texts: list[str]  # one, or the two of a pair
    labels: list[str] = field(default_factory=list)  # none, one, or a column for each label
    id: str | None = None
    group: str | None = None  # what may be one: shown, not taken
    why: dict[str, list[str]] = field(default_factory=dict)


def find_roles(
    survey: Survey,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    labels: Sequence[str] = (),
    is_labelled: bool = True,
) -> Roles:
    """Propose a role for columns; those that are given have theirs.

    Args:
        text: where it is given, there is a second text only where that is given too.
        is_labelled: whether to look for a label at all.

    Returns: `texts` and `labels` are empty where no column looks like one.
    """
    roles = Roles([])
    given = {each for each in (text, text_pair, *labels) if each is not None}
    free = [column for key, column in survey.columns.items() if key not in given]
    named = [] if labels or not is_labelled else _named_labels(survey, free)
    _find_texts(survey, roles, [c for c in free if c not in named], text, text_pair)
    free = [column for column in free if column.key not in roles.texts]
    _find_id(survey, roles, free)
    free = [column for column in free if column.key != roles.id]
    if labels:
        roles.labels = list(labels)
        roles.why["label"] = ["As asked for."]
    elif is_labelled:
        _find_labels(survey, roles, free, [column for column in named if column in free])
    _find_group(survey, roles, [column for column in free if column.key not in roles.labels])
    return roles


# ---- texts


def _find_texts(
    survey: Survey, roles: Roles, free: list[Column], text: str | None, text_pair: str | None
) -> None:
    pool, why = _text_pool(survey, free)
    if text is None and pool:
        found = [max(pool, key=lambda column: column.mean_chars)]
        pair = None if text_pair else _pair(survey, pool)
        if pair is not None:
            *found, said = pair
            roles.why["text_pair"] = [said, "Without text_pair the text is read alone."]
        roles.texts = [column.key for column in found]
        roles.why["text"] = [f"{described(found[0], survey)}: {why}."]
    elif text is not None:
        roles.texts = [text]
        roles.why["text"] = [f"{described(survey.columns[text], survey)}; as asked for."]
    if text_pair is not None and roles.texts:
        roles.texts = [roles.texts[0], text_pair]
        roles.why["text_pair"] = ["As asked for."]
    others = [c for c in free if c.is_prose and c.key not in roles.texts and _may_be_text(c)]
    if others and len(roles.texts) == 1:
        keys = listed([column.key for column in others])
        roles.why["text"].append(f"Text too: {keys}; text_pair reads one of them with it.")


def _text_pool(survey: Survey, free: list[Column]) -> tuple[list[Column], str]:
    """The columns that may be the text, and why these."""
    texts = [column for column in free if _may_be_text(column)]
    prose = [column for column in texts if column.is_prose]
    named = [column for column in prose if last_word(column.key) in _TEXTS]
    if named:
        return named, "its name says that it is text"
    if prose:
        return prose, "the longest texts of several words"
    texts.sort(key=lambda column: -column.n_values)
    return texts[:1], "no column has several words, and this one the most values"


def _may_be_text(column: Column) -> bool:
    is_strings = column.kinds["str"] > sum(column.kinds.values()) / 2
    return is_strings and column.n_values > 1 and not column.numbers.are_most


def _pair(survey: Survey, pool: list[Column]) -> tuple[Column, Column, str] | None:
    """Two texts that are read together, and why."""
    for first in pool:
        for second in pool:
            if first is not second and _are_named_as_pair(first.key, second.key):
                return first, second, f"{first.key!r} and {second.key!r} are named as a pair."
    longest = sorted(pool, key=lambda column: -column.mean_chars)[:2]
    if len(longest) < 2:
        return None
    alike = longest[0].mean_chars <= _PAIR_RATIO * longest[1].mean_chars
    distinct = min(survey.n_distinct(column.key) for column in longest)
    if not alike or longest[1].mean_words < _PAIR_WORDS or distinct < survey.n_compared / 10:
        return None
    first, second = sorted(longest, key=lambda column: column.position)
    return first, second, f"{described(second, survey)}: a text of about the length of the other."


def _are_named_as_pair(first: str, second: str) -> bool:
    if first[:-1] == second[:-1] and (first[-1:] + second[-1:]).lower() in ("12", "ab"):
        return len(first) > 1
    return last_word(first) in _FIRST and last_word(second) in _SECOND


# ---- the name of a row, and groups


def _find_id(survey: Survey, roles: Roles, free: list[Column]) -> None:
    found = [
        column
        for column in free
        if not column.is_lists
        and not column.n_empty
        and not column.n_spaced
        and not (column.numbers.are_most and column.numbers.n_fractions)
        and column.mean_chars <= _ID_CHARS
        and (last_word(column.key) in _IDS or (survey.n_rows >= _FEW_ROWS and len(free) > 1))
        and survey.n_distinct(column.key) == survey.n_compared
    ]
    found.sort(key=lambda column: (last_word(column.key) not in _IDS, column.position))
    if found:
        roles.id = found[0].key
        roles.why["id"] = [f"{described(found[0], survey)}: another one on each row."]


def _find_group(survey: Survey, roles: Roles, free: list[Column]) -> None:
    for column in free:
        n_values = survey.n_distinct(column.key)
        by_name = bool(set(_words(column.key)) & set(_GROUPS))
        as_names = not survey.names.names and not column.is_prose and not column.numbers.are_most
        if column.is_lists or not 2 <= n_values <= 0.9 * survey.n_compared:
            continue
        if by_name or (as_names and n_values > 10):
            roles.group = column.key
            roles.why["group"] = [
                f"{described(column, survey)}: if rows of one value belong together (a person, a "
                "document), a split should keep them on one side:"
            ]
            return


# ---- labels


def _find_labels(survey: Survey, roles: Roles, free: list[Column], named: list[Column]) -> None:
    truths = [column for column in free if _is_truth(column)]
    lists = [column for column in free if column.is_lists and column.parts is not None]
    few = _few_valued(survey, free)
    numbers = [column for column in free if column.numbers.are_most and column.n_values > 2]
    fractions = [column for column in numbers if column.numbers.n_fractions]
    chosen: list[Column] = []
    if named:
        chosen, why = named[:1], "its name says that it is the label"
    elif lists:
        chosen, why = lists[:1], "a list on each row"
    elif len(truths) > 1:
        chosen, why = truths, "columns of 0 and 1 alone, a label each"
    elif len(roles.texts) == 2 and fractions:
        chosen, why = fractions[-1:], "a number with fractions beside a pair of texts"
    elif few:
        chosen, why = few[:1], "the fewest different values"
    elif numbers:
        chosen, why = (fractions or numbers)[-1:], "numbers"
    elif len(free) == 1:
        chosen, why = free, "the only other column"
    if not chosen:
        return
    roles.labels = [column.key for column in chosen]
    shown = described(chosen[0], survey) if len(chosen) == 1 else f"{len(chosen)} columns"
    roles.why["label"] = [f"{shown}: {why}."]
    others = [column.key for column in (*named, *few, *fractions) if column not in chosen]
    if others:
        keys = listed(list(dict.fromkeys(others)))
        roles.why["label"].append(f"Labels might stand in {keys} too; --label takes another one.")


def _named_labels(survey: Survey, free: list[Column]) -> list[Column]:
    """The columns that are named as labels are, and hold what may be some; the likeliest first."""
    found = [
        (rank, column)
        for column in free
        if (rank := _label_rank(column.key)) is not None
        and (
            column.is_lists
            or column.n_values <= max(survey.n_rows / 2, _FEW_ROWS)
            or column.numbers.are_most
        )
    ]
    return [column for _, column in sorted(found, key=lambda item: item[0])]


def _label_rank(key: str) -> tuple[int, int] | None:
    """How much a name is that of a label; None where it is not."""
    words = _words(key)
    numbered = 3 * any(word.isdigit() for word in words)
    words = [word for word in words if not word.isdigit()]
    if words[-1:] and words[-1] in _LABELS:
        return numbered + (len(words) > 1), _LABELS.index(words[-1])
    if words[1:] and words[-1] in (*_IDS, "text") and words[-2] in _LABELS:
        return numbered + 2, _LABELS.index(words[-2])
    return None


def _few_valued(survey: Survey, free: list[Column]) -> list[Column]:
    """Columns whose values come again and again, those of fewest values first."""
    found = [
        column
        for column in free
        if column.counts is not None
        and not column.is_lists
        and 2 <= column.n_values <= column.n_filled / 2
        and not (column.numbers.are_most and column.numbers.n_fractions)
    ]

    def unlikeliness(column: Column) -> tuple[bool, bool, int]:
        return _is_group_name(column.key), 2 * column.n_empty > survey.n_rows, column.n_values

    return sorted(found, key=unlikeliness)


def _is_truth(column: Column) -> bool:
    return column.counts is not None and column.n_values > 0 and not set(column.counts) - _TRUTHS


def _is_group_name(key: str) -> bool:
    return bool(set(_words(key)) & set(_GROUPS))


# ---- names, and words for columns


def described(column: Column, survey: Survey) -> str:
    """A column in a few words."""
    key = repr(column.key)
    if column.is_lists:
        n_parts = "over 10,000" if column.parts is None else f"{len(column.parts):,}"
        return f"{key} has lists of {n_parts} different values"
    n_distinct = survey.n_distinct(column.key)
    least = "at least " if survey.n_compared < survey.n_rows else ""
    about = f"{key} has {least}{n_distinct:,} different value{'s' * (n_distinct != 1)}"
    if column.is_prose:
        return f"{about} of {column.mean_words:.1f} words on average"
    if column.numbers.are_most:
        return f"{about}, numbers from {column.numbers.low:g} to {column.numbers.high:g}"
    return about


def _words(key: str) -> list[str]:
    """The words of a name: of "airlineSentiment_2" airline, sentiment and 2."""
    found = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", key)
    return [word.lower() for word in found]


def last_word(key: str) -> str:
    """The last word of a column's name, in small letters; numbers are none."""
    words = [word for word in _words(key) if not word.isdigit()]
    return words[-1] if words else ""
