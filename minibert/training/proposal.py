"""A run file proposed for labelled rows, with its evidence: what `minibert init` writes.

All guessing is here.  `minibert train` follows the file to the letter, so that whoever reads its
comments knows what the run rests on, and what to change.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from minibert.errors import DataError
from minibert.lines import listed
from minibert.training.dialect import Dialect
from minibert.training.evidence import n_shared, plural, unusable
from minibert.training.labels import label_names
from minibert.training.parts import find_parts
from minibert.training.proposed_file import Found, written
from minibert.training.roles import Roles, find_roles, last_word
from minibert.training.rows import BadRow, Row, read_rows
from minibert.training.run_keys import TASKS
from minibert.training.sniff import sniff
from minibert.training.survey import Column, Survey, survey
from minibert.training.task_choice import TaskChoice, choose_task, label_flags, type_flags

_MOST_UNUSABLE = 0.05  # of the rows of a file for validation or test


def propose(
    source: str | Path,
    *,
    task: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    labels: Sequence[str] = (),
    model: str = "all-MiniLM-L6-v2",
    output: str = "run",
) -> str:
    """A run file for a file of labelled rows, a folder or an archive, as TOML with its evidence.

    All rows are read once, a sample of them held; what is given is taken as it is.

    Raises: DataError for what cannot be read, or has no column that may be text or label.
    """
    parts = find_parts(source)
    sniffed = sniff(parts.sources["train"])
    rows = survey(_reading(parts.sources["train"], sniffed.dialect, "train"))
    if not rows.n_rows:
        said = "" if rows.first_bad is None else f": {rows.first_bad.message}"
        raise DataError(f"{source}: has no row that can be read{said}")
    name = str(source)
    roles, choice = _roles_and_task(name, rows, sniffed.dialect, task, (text, text_pair), labels)
    found = Found(
        name=name,
        sources=parts.sources,
        why=parts.why,
        dialect=sniffed.dialect,
        reading=sniffed.evidence,
        survey=rows,
        roles=roles,
        choice=choice,
        is_clean=not unusable(rows, roles, choice),
    )
    for part in ("validation", "test"):
        if part in parts.sources:
            _look_beside(found, part)
    return written(found, model, output)


def _reading(sources: list[str], dialect: Dialect, what: str) -> Iterator[Row | BadRow]:
    """Rows, with their number on a terminal where it takes a while."""
    from tqdm import tqdm

    rows = read_rows(sources, dialect)
    yield from tqdm(rows, desc=f"reading {what}", unit=" rows", disable=None, delay=1)


# ---- what is chosen


def _roles_and_task(
    name: str,
    rows: Survey,
    dialect: Dialect,
    task: str | None,
    texts: Sequence[str | None],
    labels: Sequence[str],
) -> tuple[Roles, TaskChoice | None]:
    """The columns, and what is learnt from them; no task where there are no labels."""
    text, text_pair = [None if each is None else rows.key_of(each, name) for each in texts]
    labels = [rows.key_of(each, name) for each in labels]
    chosen = [] if text is None else [text]
    words = chosen or _lists(rows, "tokens", "words")
    tags = labels or _lists(rows, "tags", "labels")
    are_tagged = len(words) == len(tags) == 1 and {*words, *tags} <= set(_lists(rows))
    if task == "tokens" or (task is None and are_tagged):
        if text_pair or not are_tagged:
            raise DataError(
                f"{name}: has {listed(list(rows.columns))}, expected for task tokens one column of "
                "lists of words and one of lists of their tags: name them with --text and --label"
            )
        return Roles(words, tags), _tags(rows.columns[tags[0]])
    if dialect.format == "txt":
        return _unlabelled(name, f"plain text, {plural(rows.n_rows, 'line')}", task), None
    roles = find_roles(
        rows, text=text, text_pair=text_pair, labels=labels, is_labelled=task != "masked_lm"
    )
    keys = listed(list(rows.columns))
    if not roles.texts:
        lists = _lists(rows)
        mend = "name it with --text"
        if len(lists) > 1:
            mend = (
                f"if its lists {listed(lists)} are words and tags, name them with --text, --label"
            )
        raise DataError(f"{name}: no column of {keys} looks like a text; {mend}")
    if roles.labels:
        try:
            choice = choose_task(rows, roles.labels, task=task)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        if dialect.format == "jsonl":
            choice.flags += type_flags(rows.columns[roles.labels[0]])
        return roles, choice
    about = f"rows of {keys}, of which no column looks like a label (name it with --label)"
    _unlabelled(name, about, task)
    return roles, None


def _unlabelled(name: str, what: str, task: str | None) -> Roles:
    """The text alone, where a task needs no more."""
    if "masked_lm" not in TASKS or task not in (None, "masked_lm"):
        raise DataError(f"{name}: is {what}, expected rows with labels for {_labelled_tasks()}")
    return Roles(["text"])


def _labelled_tasks() -> str:
    return ", ".join(task for task in TASKS if task != "masked_lm")


def _lists(rows: Survey, *names: str) -> list[str]:
    """The columns of lists; those alone whose name ends in one of these words, if there are any."""
    found = [key for key, column in rows.columns.items() if column.is_lists]
    return [key for key in found if not names or last_word(key) in names]


def _tags(column: Column) -> TaskChoice:
    """The tags of words."""
    parts = column.parts or Counter()
    names = label_names("tokens", [list(parts)])
    choice = TaskChoice("tokens", {tag: parts[tag] for tag in names}, why=["A tag for each word."])
    choice.flags = label_flags(choice)
    return choice


def _look_beside(found: Found, part: str) -> None:
    """Read what is for validation or test; leave it out where it does not fit."""
    sources, why = found.sources[part], found.why[part]
    try:
        other = survey(_reading(sources, found.dialect, part))
        for key in (*found.roles.texts, *found.roles.labels):
            other.key_of(key, sources[0])
        bad = unusable(other, found.roles, found.choice)
        wrong = "; ".join(said for _, said in bad)
        fits = sum(n for n, _ in bad) <= _MOST_UNUSABLE * (other.n_rows + other.n_bad)
    except DataError as error:
        fits, wrong = False, str(error)
    if not fits:
        del found.sources[part]
        why.append(f"It is not taken: {wrong}.")
        return
    n_shared_rows = n_shared(found.survey, other, found.roles)
    why.append(f"It has {plural(other.n_rows, 'row')}.")
    if n_shared_rows:
        why.append(f"The texts of {plural(n_shared_rows, 'row')} of it are trained on too.")
    encoding = sniff(sources).dialect.encoding
    if encoding != found.dialect.encoding and any(c.n_wide for c in other.columns.values()):
        why.append(f"Its bytes look like {encoding}: convert it, for a run has one encoding.")
    if wrong:
        found.is_clean = False
        why.append(f"Not to be used: {wrong}.")
