"""The text of a proposed run file: the keys that were chosen, each below what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minibert.training import toml_text
from minibert.training.dialect import Dialect
from minibert.training.evidence import balance, column_lines, plural, repetition, unusable
from minibert.training.roles import Roles
from minibert.training.run_keys import DataConfig
from minibert.training.survey import Survey
from minibert.training.task_choice import TaskChoice
from minibert.training.token_lengths import Lengths, measure_lengths

_UNEQUAL = 4.0  # rows of the most frequent label for one of the rarest; above, they are weighed
_LISTED = 300  # labels; more of them are left for train to read
_SMALL_HIDDEN = 384  # of models that take a higher rate
_MEASURED = 1 << 21  # characters, or words of sentences
_FEW_ROWS = 10  # of which a tenth is none


@dataclass
class Found:
    """What is known of the data when the file is written; `choice` is None without labels."""

    name: str
    sources: dict[str, list[str]]  # of train, and of validation and test where they are
    why: dict[str, list[str]]
    dialect: Dialect
    reading: list[str]  # what speaks for the dialect
    survey: Survey
    roles: Roles
    choice: TaskChoice | None
    is_clean: bool  # no row of any file is refused

    @property
    def task(self) -> str:
        return "masked_lm" if self.choice is None else self.choice.task


@dataclass(frozen=True)
class _Key:
    """A key, and why it has its value; one that is not taken is written as a comment."""

    name: str
    value: toml_text.Value
    why: Sequence[str] = ()
    is_taken: bool = True


def written(found: Found, model: str, output: str) -> str:
    """The run file, as TOML."""
    lengths = _lengths(found, model)
    head = [
        f"Proposed by minibert init for {found.name}: above a key stands what it rests on. Paths "
        "count from the folder of this file. Other keys have their defaults, which minibert train "
        f"--print-config {found.task} lists. Read it, then: minibert train run.toml"
    ]
    why = ["Text without labels."] if found.choice is None else _task_reasons(found.choice)
    tables = {
        "": [_Key("task", found.task, why), _Key("model", model), _Key("output", output)],
        "data": _data_keys(found, lengths),
        "loss": [] if found.choice is None else _loss_keys(found.choice, found.survey.n_rows),
        "optimizer": _optimizer_keys(lengths, model),
    }
    lines = toml_text.comment(head)
    for name, keys in tables.items():
        if keys:
            lines += ["", *([f"[{name}]"] if name else []), *_lines(keys)]
    return "\n".join([*lines, ""])


def _task_reasons(choice: TaskChoice) -> list[str]:
    return [*choice.why, *([] if choice.counts else choice.flags)]  # which else stand by the labels


def _lines(keys: Sequence[_Key]) -> list[str]:
    """Keys below their reasons; one that has none follows the one before."""
    lines: list[str] = []
    for key in keys:
        if key.why and lines:
            lines.append("")
        for each in key.why:
            is_table = each.startswith("  ")
            lines += [toml_text.comment_line(each)] if is_table else toml_text.comment([each])
        assigned = toml_text.assignment(key.name, key.value)
        lines += assigned if key.is_taken else [f"# {line}" for line in assigned]
    return lines


# ---- [data]


def _data_keys(found: Found, lengths: Lengths) -> list[_Key]:
    keys = [_train_key(found), *_held_out_keys(found), *_dialect_keys(found)]
    roles, choice = found.roles, found.choice
    if found.task == "tokens":
        named = {"words": roles.texts[0], "tags": roles.labels[0]}
        usual = DataConfig()
        keys += [_Key(key, name) for key, name in named.items() if name != getattr(usual, key)]
    else:
        keys.append(_Key("text", roles.texts[0], roles.why.get("text", ())))
        if len(roles.texts) > 1:
            keys.append(_Key("text_pair", roles.texts[1], roles.why.get("text_pair", ())))
        if roles.labels:
            label = roles.labels[0] if len(roles.labels) == 1 else roles.labels
            keys.append(_Key("label", label, roles.why.get("label", ())))
    if choice is not None:
        keys += _label_keys(choice, found.survey.n_rows)
    if roles.id is not None:
        keys.append(_Key("id", roles.id, roles.why["id"]))
    if roles.group is not None:
        keys.append(_Key("group", roles.group, roles.why["group"], is_taken=False))
    keys.append(_Key("max_length", lengths.proposed, _length_reasons(lengths, found.survey)))
    if not found.is_clean:
        why = ["Rows that cannot be used are set aside in rejected.csv; error refuses them all."]
        keys.append(_Key("bad_rows", "quarantine", why))
    return keys


def _train_key(found: Found) -> _Key:
    rows = found.survey
    wrong = [said for _, said in unusable(rows, found.roles, found.choice)]
    why = [*found.why.get("train", ()), f"{plural(rows.n_rows, 'row')}, of these columns:"]
    why += column_lines(rows)
    why += repetition(rows, found.roles, has_classes=found.task in ("binary", "multiclass"))
    empty = [key for key in found.roles.texts if rows.columns[key].n_empty]
    why += [f"{plural(rows.columns[key].n_empty, 'row')} with no text in {key!r}." for key in empty]
    if wrong:
        why.append(f"Not to be used: {'; '.join(wrong)}.")
    return _Key("train", _one_or_list(found.sources["train"]), why)


def _one_or_list(sources: list[str]) -> toml_text.Value:
    return sources[0] if len(sources) == 1 else sources


def _held_out_keys(found: Found) -> list[_Key]:
    """What the best checkpoint is chosen on, and what the model is tested on."""
    keys = []
    why = found.why.get("validation", [])
    if "validation" in found.sources:
        keys.append(_Key("validation", _one_or_list(found.sources["validation"]), why))
    elif found.survey.n_rows > 1:
        share = 0.1 if found.survey.n_rows >= _FEW_ROWS else 0.3
        drawn = "of each label alike, " if found.task in ("binary", "multiclass") else ""
        said = f"A share of train, {drawn}rows of one text on one side; the seed draws them."
        keys.append(
            _Key(
                "validation",
                share,
                [*(why or ["No file beside it is named as validation data."]), said],
            )
        )
    why = found.why.get("test", [])
    if "test" in found.sources:
        keys.append(_Key("test", _one_or_list(found.sources["test"]), why))
    elif why:
        keys[-1] = _Key(keys[-1].name, keys[-1].value, [*keys[-1].why, *why])
    return keys


def _dialect_keys(found: Found) -> list[_Key]:
    dialect, is_table = found.dialect, found.dialect.format in ("csv", "tsv")
    values: dict[str, Any] = {
        "format": dialect.format,
        "encoding": dialect.encoding,
        "delimiter": dialect.delimiter,
        "quoting": dialect.quoting,
        "header": dialect.header if is_table else None,
        "columns": dialect.columns,
        "extra_columns": dialect.extra_columns,
    }
    keys = [_Key(name, value) for name, value in values.items() if value is not None]
    return [_Key(keys[0].name, keys[0].value, [" ".join(found.reading)]), *keys[1:]]


def _label_keys(choice: TaskChoice, n_rows: int) -> list[_Key]:
    """The names of the labels, and what parts several."""
    keys = []
    if choice.separator is not None:
        keys.append(_Key("label_separator", choice.separator, choice.why))
    if not choice.counts:
        return keys
    why = [balance(choice, n_rows)[0], *choice.flags]
    if choice.task == "binary":
        why.append("The second one counts as the positive one.")
    is_taken = len(choice.counts) <= _LISTED
    names = list(choice.counts) if is_taken else []
    if not is_taken:
        why.append(f"All {len(choice.counts):,} are read from train, sorted:")
    return [*keys, _Key("labels", names, why)]


def _lengths(found: Found, model: str) -> Lengths:
    """The tokens of the sample's texts; of long ones not of all."""
    kind = list if found.task == "tokens" else str
    texts: list[list[Any]] = [
        [row.get(key) for key in found.roles.texts] for row in found.survey.sample
    ]
    whole = [each for each in texts if all(isinstance(text, kind) for text in each)]
    n_chars = sum(len(text) for each in whole for text in each)
    return measure_lengths(whole[:: 1 + n_chars // _MEASURED], model)


def _length_reasons(lengths: Lengths, survey: Survey) -> list[str]:
    n, middle, most = len(lengths.tokens), lengths.quantile(0.5), lengths.quantile(0.95)
    drawn = "" if n == survey.n_rows else " drawn from all"
    said = (
        f"Tokens of {plural(n, 'text')}{drawn}, {lengths.how}: median {middle:,}, 95th percentile "
        f"{most:,}, longest {lengths.tokens[-1]:,}."
    )
    steps = sorted({lengths.proposed, *(n for n in (128, 256, 512) if n <= lengths.positions)})
    cutting = [step for step in steps if lengths.cut_share(step)]
    shares = [f"{lengths.cut_share(step):.1%} at {step}" for step in cutting]
    if len(cutting) < len(steps):
        shares.append(f"none at {steps[len(cutting)]}")
    most_there_is = lengths.proposed == lengths.positions and cutting
    limit = f"{lengths.positions} is the most that the model takes." if most_there_is else ""
    cut = f"To be cut are {', '.join(shares)}. {limit}".strip()
    return [said, f"{cut} Short texts cost no more for it: batches have no padding."]


# ---- [loss] and [optimizer]


def _loss_keys(choice: TaskChoice, n_rows: int) -> list[_Key]:
    """Weights, where labels are very unequal."""
    _, ratio = balance(choice, n_rows)
    if choice.task == "regression" or ratio <= _UNEQUAL:
        return []
    present = {name: n for name, n in choice.counts.items() if n}
    rarest, most = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    if choice.task == "multilabel":
        weights = [(n_rows - present[name]) / present[name] for name in (rarest, most)]
        key = "pos_weight"
        said = "where it is present"
    else:
        weights = [_balanced(choice, name) for name in (rarest, most)]
        key, said = "class_weights", "in the loss"
    why = (
        f"The labels are unequal, over {_UNEQUAL:g} to 1: balanced counts {rarest!r} "
        f"{weights[0]:,.2f} times and {most!r} {weights[1]:,.2f} times {said}."
    )
    if choice.task == "tokens":
        why = f"{why} Most words of any text have the tag {most!r}, so it is left open here."
    return [_Key(key, "balanced", [why], is_taken=choice.task != "tokens")]


def _balanced(choice: TaskChoice, name: str) -> float:
    """The weight that training gives a label."""
    import torch

    from minibert.training.losses import balanced_weights

    counts = torch.tensor(list(choice.counts.values()))
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    return float(balanced_weights(labels, len(counts))[list(choice.counts).index(name)])


def _optimizer_keys(lengths: Lengths, model: str) -> list[_Key]:
    if lengths.hidden_size is None or lengths.hidden_size > _SMALL_HIDDEN:
        return []
    why = f"{model} has {lengths.hidden_size} dimensions; models so small take a higher rate."
    return [_Key("learning_rate", 1e-4, [why])]
