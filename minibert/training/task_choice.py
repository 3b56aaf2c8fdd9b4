"""Which task the labels of a file are for, and what a careful person would see in them."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minibert.errors import DataError
from minibert.lines import listed
from minibert.training.labels import label_names
from minibert.training.survey import Column, Survey, as_number

_LABEL_CHARS = 60  # of a name that stands with others in one value
_CLASSES = 10  # whole numbers up to so many are classes, whatever their column is called
_NUMBERED = 500  # up to so many, numbers without a gap from 0 or 1 are those of classes
_AMOUNTS = re.compile(r"(score|rating|similarity|points?|grade|age|year|price)s?$", re.IGNORECASE)
_DECIMAL_COMMA = r"-?\d+,\d+"
_TRUE = ("1", "1.0", "true")


@dataclass
class TaskChoice:
    """A task and its labels: `counts` has the rows of each, in the order of their ids."""

    task: str
    counts: dict[str, int] = field(default_factory=dict)
    separator: str | None = None
    why: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # what is to be looked at in the data


def choose_task(survey: Survey, labels: Sequence[str], *, task: str | None = None) -> TaskChoice:
    """The task that columns of labels are for, or how they serve the one that is given.

    Raises: DataError for what holds no labels, or none for the task given; LabelError for a third
        label of a binary one.
    """
    columns = [survey.columns[name] for name in labels]
    several = len(columns) > 1 or columns[0].is_lists
    if several and task not in (None, "multilabel"):
        raise DataError(f"{_named(columns)}: any number of labels a row, expected task multilabel")
    if len(columns) > 1:
        choice = _of_columns(columns)
    elif several:
        choice = _of_parts(columns[0], None)
    else:
        choice = _of_values(columns[0], survey.n_rows, task)
    choice.flags += label_flags(choice)
    return choice


def _named(columns: Sequence[Column]) -> str:
    keys = listed([column.key for column in columns])
    return f"the labels in {keys}" if len(columns) > 1 else f"the label in column {keys}"


def label_counts(columns: Sequence[Column], choice: TaskChoice) -> Mapping[str, int]:
    """How often each label of a choice, or another one, stands in columns; none of amounts."""
    if choice.task == "regression" or len(columns) > 1:
        return {}
    if columns[0].is_lists:
        return columns[0].parts or {}
    if choice.separator is not None:
        return _split(columns[0], choice.separator)
    return _values(columns[0])


# ---- several labels a row


def _of_columns(columns: Sequence[Column]) -> TaskChoice:
    """A column of 0 and 1 for each label."""
    counts = {}
    for column in columns:
        values = {value.casefold(): value for value in column.counts or {}}
        if column.counts is None or set(values) - {"0", "1", "0.0", "1.0", "true", "false"}:
            raise DataError(f"column {column.key!r} has {listed(list(values))}, expected 0 and 1")
        counts[column.key] = sum(column.counts[values[each]] for each in _TRUE if each in values)
    why = [f"{len(columns)} columns of 0 and 1, so that a row may have any number of labels."]
    return TaskChoice("multilabel", counts, why=why)


def _of_parts(column: Column, separator: str | None) -> TaskChoice:
    """Lists of labels, or labels in one value."""
    parts = column.parts if separator is None else _split(column, separator)
    if not parts:
        raise DataError(f"{_named([column])}: no labels, or over 10,000 different ones")
    names = label_names("multilabel", [list(parts)])
    what = "Lists" if separator is None else f"Values such as {_longest(column, separator)!r}"
    why = [f"{what} have any number of labels, of {len(names):,} in all."]
    numbers = (value.replace(",", ".") for value in _values(column))
    if separator == "," and all(as_number(number) is not None for number in numbers):
        why.append("If these are numbers with a decimal comma, write them with a point.")
    counts = {name: parts[name] for name in names}
    return TaskChoice("multilabel", counts, separator, why)


def _values(column: Column) -> Mapping[str, int]:
    return column.counts or {}


def _longest(column: Column, separator: str) -> str:
    return max(_values(column), key=lambda value: value.count(separator))


def _split(column: Column, separator: str) -> Counter[str]:
    """How many rows have each label."""
    found: Counter[str] = Counter()
    for value, times in _values(column).items():
        for part in {part.strip() for part in value.split(separator)} - {""}:
            found[part] += times
    return found


def _separator(column: Column) -> str | None:
    """What parts the labels of one value, if anything does: the parts must be labels elsewhere."""
    values = _values(column)
    for separator in (",", ";", "|", "/", "+", " "):
        together = [value for value in values if separator in value]
        if sum(values[value] for value in together) < 0.01 * column.n_filled or not together:
            continue
        parts = _split(column, separator)
        alone = sum(part in values for part in parts) / len(parts)
        if separator == "," and not alone and _share(column, _DECIMAL_COMMA) == 1:
            continue
        recur = separator in ",;|" and len(parts) <= len(values) / 2
        enough = 0.5 if separator in ",;|" else 1.0
        if separator == " " and not all(part.isdecimal() for part in parts):
            continue  # the words of a name come again too
        if max(map(len, parts)) <= _LABEL_CHARS and (recur or alone >= enough):
            return separator
    return None


# ---- one value a row


def _of_values(column: Column, n_rows: int, task: str | None) -> TaskChoice:
    values, numbers = _values(column), column.numbers
    if any(value.startswith("[") for value in values) and _share(column, r"\[.*\]") > 0.9:
        raise DataError(
            f"{_named([column])}: lists written as text, such as {min(values)!r}, expected labels "
            "with a separator, such as joy,anger, or lists in jsonl"
        )
    separator = _separator(column) if task in (None, "multilabel") else None
    if separator is not None:
        return _of_parts(column, separator)
    if numbers.are_most:
        guess, why = _of_numbers(column)
    elif _share(column, _DECIMAL_COMMA) > 0.5 and task in (None, "regression"):
        raise DataError(
            f"{_named([column])}: {min(values)!r} looks like a number with a decimal comma, "
            "expected a point; convert the file"
        )
    else:
        guess = "binary" if column.n_values <= 2 else "multiclass"
        why = f"{column.n_values} different labels, one a row."
    task = task or guess
    if task == "regression":
        if not numbers.are_most:
            raise DataError(
                f"{_named([column])}: {numbers.n_others:,} rows have no number, such as "
                f"{numbers.other[:40]!r}, expected numbers for task regression"
            )
        return TaskChoice("regression", why=[why if guess == task else "As asked for."])
    if column.counts is None or (column.n_values > n_rows / 2 and column.n_values > 20):
        n_values = "over 10,000" if column.counts is None else f"{column.n_values:,}"
        raise DataError(
            f"{_named([column])}: {n_values} different values in {n_rows:,} rows, expected labels "
            "that come again; name another column with --label"
        )
    names = label_names(task, values)
    why = why if guess == task else "As asked for."
    return TaskChoice(task, {name: values.get(name, 0) for name in names}, why=[why])


def _share(column: Column, pattern: str) -> float:
    """The share of the values, each counted once, that are of a form."""
    values = _values(column)
    return sum(bool(re.fullmatch(pattern, value)) for value in values) / max(1, len(values))


def _of_numbers(column: Column) -> tuple[str, str]:
    """Whether numbers are classes or amounts, and how to take them as the other."""
    numbers, n_values = column.numbers, column.n_values
    span = (
        f"from {numbers.low:g} to {numbers.high:g} (mean {numbers.mean:.3g}, standard deviation "
        f"{numbers.deviation:.3g})"
    )
    if n_values <= 2:
        return "binary", f"{n_values} different labels, one a row."
    if numbers.n_fractions:
        return "regression", f"{n_values:,} different numbers {span}, with fractions."
    gapless = numbers.low in (0, 1) and n_values == numbers.high - numbers.low + 1
    is_amount = bool(_AMOUNTS.search(column.key))
    if n_values <= _CLASSES or (gapless and n_values <= _NUMBERED and not is_amount):
        return "multiclass", (
            f"{n_values} whole numbers {span}, taken as names of classes; task = "
            '"regression" takes them as amounts, 4 between 3 and 5 (or --task regression).'
        )
    return "regression", (
        f'{n_values:,} whole numbers {span}, taken as amounts; task = "multiclass" takes '
        "each as the name of a class (or --task multiclass)."
    )


# ---- what to look at


def label_flags(choice: TaskChoice) -> list[str]:
    """What is suspicious in the labels' names and numbers."""
    flags = []
    alike: dict[str, list[str]] = defaultdict(list)
    for name in choice.counts:
        alike[_plain(name)].append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(f"{name!r} ({choice.counts[name]:,})" for name in names[:4])
            flags.append(f"{shown} look like one label written in different ways: mend the data.")
    once = [name for name, count in choice.counts.items() if count == 1]
    if once:
        flags.append(
            f"{len(once)} label{'s have' if len(once) > 1 else ' has'} one row alone "
            f"({listed(once)}): too little to learn it, or to measure how well."
        )
    if sum(count > 0 for count in choice.counts.values()) == 1:
        flags.append("There is one label alone, so there is nothing to tell apart.")
    return flags


def type_flags(column: Column) -> list[str]:
    """What is odd in how labels are written where numbers and texts differ, as in JSON."""
    kinds = column.kinds
    if kinds["str"] and kinds["int"] + kinds["float"]:
        said = f"are numbers in {kinds['int'] + kinds['float']:,} rows and text in {kinds['str']:,}"
        return [f"The labels {said}; 1 and '1' count as one label."]
    if kinds["str"] and column.numbers.are_most:
        return ["The labels are numbers written as text."]
    return []


def _plain(name: str) -> str:
    """What is left of a name when case, blanks, signs and forms of letters do not count."""
    number = as_number(name)
    if number is not None:
        return f"{number:g}"
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_.-]+", "", folded) or folded
