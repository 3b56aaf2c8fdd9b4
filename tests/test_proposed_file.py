"""The text of a proposed run file, made from what was found, put together by hand."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minibert import BertConfig, BertModel
from minibert.training.dialect import Dialect
from minibert.training.proposed_file import Found, written
from minibert.training.roles import Roles
from minibert.training.rows import read_rows
from minibert.training.run_config import RunConfig
from minibert.training.survey import survey
from minibert.training.task_choice import TaskChoice

ABSENT = "/no/such/model"


def found(choice: TaskChoice | None, n_rows: int = 40, **changes: Any) -> Found:
    """A table of a text and a label."""
    texts = ({"text": f"text number {n}", "label": "ab"[n % 2]} for n in range(n_rows))
    return replace(
        Found(
            name="a.csv",
            sources={"train": ["a.csv"]},
            why={},
            dialect=Dialect("csv", delimiter=",", quoting=True, columns=2, extra_columns="error"),
            reading=["All bytes are UTF-8.", "A header."],
            survey=survey(read_rows(list(texts))),
            roles=Roles(["text"], ["label"], why={"text": ["Text it is."], "label": ["A label."]}),
            choice=choice,
            is_clean=True,
        ),
        **changes,
    )


def both() -> TaskChoice:
    return TaskChoice("binary", {"a": 20, "b": 20}, why=["Two labels."], flags=["Look at b."])


def values(given: Found, model: str = ABSENT) -> dict[str, Any]:
    text = written(given, model, "run")
    RunConfig.from_dict(tomllib.loads(text))
    return tomllib.loads(text)


def reason(given: Found, key: str, model: str = ABSENT) -> str:
    """The comment right above a key, in one line."""
    lines = written(given, model, "run").splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(rf"(# )?{key} = ", line))
    start = at
    while lines[start - 1].startswith("# "):
        start -= 1
    return " ".join(line[2:] for line in lines[start:at])


def test_file_says_all_that_was_found() -> None:
    assert values(found(both())) == {
        "task": "binary",
        "model": ABSENT,
        "output": "run",
        "data": {
            "train": "a.csv", "validation": 0.1, "format": "csv", "encoding": "utf-8",
            "delimiter": ",", "quoting": True, "header": True, "columns": 2,
            "extra_columns": "error", "text": "text", "label": "label", "labels": ["a", "b"],
            "max_length": 128,
        },
    }  # fmt: skip


def test_reasons_stand_above_their_keys() -> None:
    given = found(both(), why={"train": ["Of many."]})
    assert reason(given, "task") == "Two labels."
    assert reason(given, "text") == "Text it is."
    assert reason(given, "label") == "A label."
    assert reason(given, "format") == "All bytes are UTF-8. A header."
    assert reason(given, "train").startswith(
        "Of many. 40 rows, of these columns:   'text': 40 diff"
    )
    said = reason(given, "labels")
    assert said.startswith("'a' 20 (50.0%), 'b' 20 (50.0%): ")
    assert said.endswith("Look at b. The second one counts as the positive one.")
    assert "by words times 1.3" in reason(given, "max_length")
    assert "To be cut are none at 128. Short texts" in reason(given, "max_length")
    first = written(given, ABSENT, "run").split("\n\n")[0].replace("\n# ", " ")
    assert first.startswith("# Proposed by minibert init for a.csv: ")
    assert "minibert train --print-config binary lists" in first


def test_other_tasks_have_their_keys() -> None:
    several = TaskChoice("multilabel", {"a": 20, "b": 1}, ",", ["Values such as 'a,b'."])
    made = values(found(several))
    assert (made["data"]["label_separator"], made["loss"]) == (",", {"pos_weight": "balanced"})
    said = reason(found(several), "pos_weight")
    assert "balanced counts 'b' 39.00 times and 'a' 1.00 times where it is present." in said
    assert reason(found(several), "label_separator") == "Values such as 'a,b'."
    number = TaskChoice("regression", why=["Numbers."], flags=["One is odd."])
    made = values(found(number))
    assert "labels" not in made["data"]
    assert "loss" not in made
    assert reason(found(number), "task") == "Numbers. One is odd."
    rows = survey(read_rows([{"n": str(n), "s": "x", "t": "y", "x": 0, "y": 1} for n in range(9)]))
    roles = Roles(["s", "t"], ["x", "y"], id="n", why={"id": ["Each its own."]})
    pair = found(TaskChoice("multilabel", {"x": 9, "y": 9}), roles=roles, survey=rows)
    made = values(pair)["data"]
    assert (made["text"], made["text_pair"], made["label"]) == ("s", "t", ["x", "y"])
    assert (made["id"], reason(pair, "id")) == ("n", "Each its own.")


def test_tags_have_no_columns_to_name_and_no_weights() -> None:
    tags = TaskChoice("tokens", {"B-x": 3, "O": 97})
    rows = survey(read_rows([{"tokens": ["x", "y"], "tags": ["B-x", "O"]}] * 40))
    given = found(
        tags, roles=Roles(["tokens"], ["tags"]), survey=rows, dialect=Dialect("conll", columns=2)
    )
    made = values(given)
    assert made["data"] == {
        "train": "a.csv", "validation": 0.1, "format": "conll", "encoding": "utf-8", "columns": 2,
        "labels": ["B-x", "O"], "max_length": 128,
    }  # fmt: skip
    assert made["loss"] == {}
    said = reason(given, "class_weights")
    assert "balanced counts 'B-x' 16.67 times and 'O' 0.52 times" in said
    assert said.endswith("so it is left open here.")


@pytest.mark.parametrize(
    ("counts", "weighs"), [((40, 10), False), ((41, 10), True), ((9, 1), True), ((5, 5), False)]
)
def test_labels_above_four_to_one_are_weighed(counts: tuple[int, int], weighs: bool) -> None:
    choice = TaskChoice("multiclass", {"a": counts[0], "b": counts[1], "c": counts[1]})
    assert values(found(choice)).get("loss") == ({"class_weights": "balanced"} if weighs else None)


def test_many_labels_are_left_to_train() -> None:
    names = [f"l{n:03}" for n in range(301)]
    choice = TaskChoice("multiclass", dict.fromkeys(names, 2))
    assert values(found(choice))["data"]["labels"] == []
    assert reason(found(choice), "labels").endswith("All 301 are read from train, sorted:")
    choice.counts.pop("l300")
    assert values(found(choice))["data"]["labels"] == names[:300]


def test_few_rows_have_another_share_and_one_has_none() -> None:
    assert values(found(both(), 10))["data"]["validation"] == 0.1
    assert values(found(both(), 9))["data"]["validation"] == 0.3
    assert "validation" not in values(found(both(), 1))["data"]
    said = reason(found(both()), "validation")
    assert said.startswith(
        "No file beside it is named as validation data. A share of train, of each"
    )


def test_files_beside_it_are_named() -> None:
    sources = {"train": ["r/neg", "r/pos"], "validation": ["d"], "test": ["t/neg", "t/pos"]}
    given = found(both(), sources=sources, why={"validation": ["D it is."], "test": ["T it is."]})
    made = values(given)["data"]
    assert (made["train"], made["validation"], made["test"]) == (
        ["r/neg", "r/pos"], "d", ["t/neg", "t/pos"],
    )  # fmt: skip
    assert (reason(given, "validation"), reason(given, "test")) == ("D it is.", "T it is.")
    why = {"validation": ["It is not taken: x."], "test": ["It is not taken: y."]}
    said = reason(found(both(), why=why), "validation")
    assert said.startswith("It is not taken: x. A share of train")
    assert said.endswith("It is not taken: y.")


def test_unclean_rows_are_set_aside() -> None:
    assert values(found(both(), is_clean=False))["data"]["bad_rows"] == "quarantine"
    assert "set aside in rejected.csv" in reason(found(both(), is_clean=False), "bad_rows")
    torn = found(TaskChoice("binary", {"a": 20, "c": 0}))
    assert "Not to be used: 20 rows with labels that the training data lacks: 'b'." in (
        reason(torn, "train")
    )


def test_groups_are_comments() -> None:
    roles = Roles(["text"], ["label"], group="text", why={"group": ["Perhaps:"]})
    given = found(both(), roles=roles)
    assert "group" not in values(given)["data"]
    assert '# Perhaps:\n# group = "text"\n' in written(given, ABSENT, "run")


def test_small_models_take_a_higher_rate(tmp_path: Path) -> None:
    for hidden, rate in ((384, {"learning_rate": 1e-4}), (388, None)):
        folder = tmp_path / str(hidden)
        config = BertConfig(
            vocab_size=5, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=1,
            intermediate_size=4, max_position_embeddings=4,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
        made = values(found(both()), str(folder))
        assert made.get("optimizer") == rate
        assert made["data"]["max_length"] == 4
        said = reason(found(both()), "max_length", str(folder))
        assert "To be cut are 100.0% at 4. 4 is the most that the model takes." in said


def test_long_texts_are_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from minibert.training import proposed_file

    monkeypatch.setattr(proposed_file, "_MEASURED", 100)
    assert "Tokens of 7 texts drawn from all, by words" in reason(found(both()), "max_length")


def test_text_without_labels_is_for_masked_lm() -> None:
    text = written(found(None, roles=Roles(["text"])), ABSENT, "run")
    made = tomllib.loads(text)
    assert (made["task"], made["data"]["text"]) == ("masked_lm", "text")
    assert not {"label", "labels"} & set(made["data"])
