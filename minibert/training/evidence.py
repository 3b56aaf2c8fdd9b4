"""What rows show that are to be trained on: a sentence for each thing that one should know."""

from collections.abc import Sequence

import numpy as np

from minibert.lines import listed
from minibert.training.roles import Roles
from minibert.training.survey import Column, Survey
from minibert.training.task_choice import TaskChoice, label_counts

_SHOWN_CHARS = 60
_LINE_CHARS = 97
_SHOWN_COLUMNS = 40
_SHOWN_VALUES = 6
_SHOWN_LABELS = 12


def plural(n: int, what: str) -> str:
    """A number of things: "1 row", "2 rows"."""
    return f"{n:,} {what}{'s' * (n != 1)}"


# ---- columns


def column_lines(survey: Survey) -> list[str]:
    """A line for each column: how many values it has, and which, or one of them."""
    columns = list(survey.columns.values())
    lines = [
        _clipped(f"  {column.key!r}: {_shown(column, survey)}", _LINE_CHARS)
        for column in columns[:_SHOWN_COLUMNS]
    ]
    if len(columns) > _SHOWN_COLUMNS:
        lines.append(f"  and {len(columns) - _SHOWN_COLUMNS} more")
    return lines


def _shown(column: Column, survey: Survey) -> str:
    empty = f"; {column.n_empty:,} are empty" if column.n_empty else ""
    example = next((row[column.key] for row in survey.sample if row.get(column.key)), "")
    if column.is_lists:
        return f"lists, such as {_clipped(repr(example))}{empty}"
    if column.counts is not None and 0 < len(column.counts) <= _SHOWN_VALUES:
        counts = column.counts.most_common()
        return ", ".join(f"{_clipped(repr(value))} {n:,}" for value, n in counts) + empty
    return (
        f"{plural(survey.n_distinct(column.key), 'different value')}, such as "
        f"{_clipped(repr(example))}{empty}"
    )


def _clipped(text: str, n_chars: int = _SHOWN_CHARS) -> str:
    return text if len(text) <= n_chars else f"{text[:n_chars]}…"


# ---- labels


def balance(choice: TaskChoice, n_rows: int) -> tuple[str, float]:
    """How often each label occurs, and how many times the most frequent does for the rarest."""
    counts = sorted(choice.counts.items(), key=lambda item: -item[1])
    present = [n for _, n in counts if n]
    ratio = present[0] / present[-1] if present else 1.0
    unit = "words" if choice.task == "tokens" else "rows"
    total = sum(choice.counts.values()) if choice.task == "tokens" else n_rows
    if len(counts) > _SHOWN_LABELS:
        half = _SHOWN_LABELS // 2
        said = f"{_each(counts[:half], total)}, …, {_each(counts[-half:], total)}"
    else:
        said = _each(counts, total)
    if len(present) < 2:
        return f"{said}.", ratio
    times = f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
    return f"{said}: of the most frequent {times} times as many {unit} as of the rarest.", ratio


def _each(counts: Sequence[tuple[str, int]], total: int) -> str:
    return ", ".join(f"{name!r} {n:,} ({n / total:.1%})" for name, n in counts)


# ---- rows


def repetition(survey: Survey, roles: Roles, *, has_classes: bool) -> list[str]:
    """Rows of equal texts, and those among them that contradict each other."""
    n_texts = survey.n_distinct(*roles.texts)
    n_repeated = survey.n_compared - n_texts
    if not n_repeated:
        return []
    among = "" if survey.n_compared == survey.n_rows else f" of the first {survey.n_compared:,}"
    has = "has the texts" if len(roles.texts) == 2 else "has the text"
    said = [f"{plural(n_repeated, 'row')}{among} {has} of an earlier one."]
    if n_repeated > 1:
        said = [said[0].replace(" has ", " have ").replace("an earlier one", "earlier ones")]
    if has_classes:
        n_answers = survey.n_distinct(*roles.texts, *roles.labels) - n_texts
        if n_answers:
            said.append(f"Among them are {n_answers:,} whose labels contradict an earlier one's.")
    return said


def unusable(survey: Survey, roles: Roles, choice: TaskChoice | None) -> list[tuple[int, str]]:
    """What training refuses: of each reason how many rows, and what is wrong with them."""
    found: list[tuple[int, str]] = []
    if survey.first_bad is not None:
        bad = survey.first_bad
        found.append((survey.n_bad, f"cannot be read, the first {bad.place}: {bad.message}"))
    if choice is None or choice.task != "tokens":
        for key in roles.texts:
            n_others = survey.n_rows - survey.columns[key].kinds["str"]
            found.append((n_others, f"with no text in {key!r}"))
    if choice is not None:
        found += _unusable_labels(survey, roles, choice)
    return [(n, f"{plural(n, 'row')} {why}") for n, why in found if n]


def _unusable_labels(survey: Survey, roles: Roles, choice: TaskChoice) -> list[tuple[int, str]]:
    found = []
    for key in roles.labels if choice.task != "tokens" else ():
        column = survey.columns[key]
        # Several labels may be none; only a table has a way to write that.
        n_empty = column.kinds["NoneType"] if choice.task == "multilabel" else column.n_empty
        found.append((n_empty, f"with nothing in {key!r}"))
        if choice.task == "regression":
            numbers = column.numbers
            found.append((numbers.n_others, f"with no number in {key!r}: {numbers.other[:40]!r}"))
    counts = label_counts([survey.columns[key] for key in roles.labels], choice)
    unknown = {name: n for name, n in counts.items() if name not in choice.counts}
    said = f"with labels that the training data lacks: {listed(list(unknown))}"
    return [*found, (sum(unknown.values()), said)]


def n_shared(survey: Survey, other: Survey, roles: Roles) -> int:
    """How many rows of another survey have texts that stand in this one."""
    return int(np.isin(other.hashes(*roles.texts), survey.hashes(*roles.texts)).sum())
