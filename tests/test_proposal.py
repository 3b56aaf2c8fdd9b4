"""Run files proposed for rows: that they hold, what they choose, and what they say of it."""

import csv
import json
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibert import BertConfig, BertModel, Tokenizer, cli
from minibert.errors import DataError, LabelError, MinibertError
from minibert.training import proposal as module
from minibert.training.dataset import Dataset, read_dataset
from minibert.training.proposal import propose
from minibert.training.run import train
from minibert.training.run_config import RunConfig

WORDS = "good fine nice bad poor sad film the a is was in it so they went home then".split()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder with its vocabulary."""
    folder = tmp_path_factory.mktemp("small")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=200,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return folder


class Proposed:
    """A proposal, as text and as the run that it is."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self.said = " ".join(re.findall(r"(?m)^# ?(.*)$", text))
        (folder / "proposed.toml").write_text(text, encoding="utf-8")
        self.run = RunConfig.from_file(folder / "proposed.toml")
        self.data = self.run.data

    def read(self, small: Path) -> Dataset:
        self.run.path(self.run.output).mkdir(exist_ok=True)
        return read_dataset(self.run, Tokenizer.from_pretrained(small))


Propose = Callable[..., Proposed]


@pytest.fixture
def proposed(tmp_path: Path, small: Path) -> Propose:
    """Proposes a run for a file of this content, or for a path."""

    def call(content: Any, name: str = "a.csv", **given: Any) -> Proposed:
        path = content if isinstance(content, Path) else written(tmp_path / name, content)
        return Proposed(propose(path, **{"model": str(small), **given}), tmp_path)

    return call


def written(path: Path, content: Any) -> Path:
    """A file of a text, of rows as csv, or of objects as jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content[0], dict):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(content)
    return path


def sentence(seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choices(WORDS, k=chosen.randint(5, 12)))


def rows(header: Sequence[str], *columns: Any, n: int = 40) -> list[list[Any]]:
    """A table; a column is made by a function, or repeats a list."""
    made = [
        each if callable(each) else lambda i, each=each: each[i % len(each)] for each in columns
    ]
    return [list(header), *([each(i) for each in made] for i in range(n))]


# ---- anything at all

CELLS = st.one_of(
    st.sampled_from(["", "pos", "neg", "Pos ", "1", "0", "2.5", "nan", "a,b", '"', "x\ny", "[1]"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12),
    st.integers(0, 30).map(str),
    st.integers(0, 9).map(sentence),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_proposed_can_be_followed(
    tmp_path: Path, small: Path, data: st.DataObject
) -> None:
    kinds = st.sampled_from([CELLS, st.sampled_from(["a", "b"]), st.integers(0, 9).map(sentence)])
    columns = data.draw(st.lists(kinds, min_size=1, max_size=4))
    content = data.draw(st.lists(st.tuples(*columns).map(list), min_size=1, max_size=40))
    if data.draw(st.booleans()):
        content.insert(0, [f"c{i}" for i in range(len(columns))])
    path = written(tmp_path / "a.csv", content)
    text, found, refusal = "", None, ""
    try:
        text = propose(path, model=str(small))
        found = Proposed(text, tmp_path).read(small)
    except MinibertError as error:
        refusal = str(error)
    assert "\n" not in refusal
    if text and refusal:  # of a few rows those that can be used may all be on one side
        assert re.search("no row that can be used|all .* rows have one text", refusal)
    if found is None:
        return
    n_refused = len({bad.place for bad in found.problems.bad})
    assert len(found.train) + len(found.validation or ()) + n_refused == found.problems.n_rows
    assert 'bad_rows = "quarantine"' in text or not n_refused


# ---- tasks and columns


@pytest.mark.parametrize(
    ("header", "columns", "task", "keys"),
    [
        (["text", "label"], [sentence, ["a", "b"]], "binary", {"text": "text", "label": "label"}),
        (["x", "y"], [sentence, list("abc")], "multiclass", {"text": "x", "label": "y"}),
        (["review", "stars"], [sentence, range(1, 6)], "multiclass", {"label": "stars"}),
        (["review", "price"], [sentence, lambda i: 1.5 * i], "regression", {"label": "price"}),
        (["review", "score"], [sentence, range(20)], "regression", {"label": "score"}),
        (["review", "kind"], [sentence, range(20)], "multiclass", {"label": "kind"}),
        (["s1", "s2", "sim"], [sentence, lambda i: sentence(i + 99), lambda i: i / 8], "regression",
         {"text": "s1", "text_pair": "s2", "label": "sim"}),
        (["premise", "hypothesis", "gold_label"],
         [sentence, lambda i: sentence(i + 99), list("enc")], "multiclass",
         {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"}),
        (["t", "tags"], [sentence, ["a", "b", "a,b", "c", "b,c"]], "multilabel",
         {"label": "tags", "label_separator": ",", "labels": ["a", "b", "c"]}),
        (["id", "comment_text", "toxic", "insult"],
         [str, sentence, [0, 1], [1, 0, 0]], "multilabel",
         {"id": "id", "text": "comment_text", "label": ["toxic", "insult"]}),
    ],
)  # fmt: skip
def test_task_and_columns_are_read_off_a_table(
    proposed: Propose,
    small: Path,
    header: list[str],
    columns: list[Any],
    task: str,
    keys: dict[str, Any],
) -> None:
    found = proposed(rows(header, *columns))
    assert found.run.task == task
    assert {name: getattr(found.data, name) for name in keys} == keys
    data = found.read(small)
    assert (len(data.train), len(data.validation or ())) == (36, 4)


def test_jsonl_of_lists_is_multilabel(proposed: Propose, small: Path) -> None:
    made = [
        {"text": sentence(i), "moods": [["joy"], [], ["joy", "fear"]][i % 3]} for i in range(30)
    ]
    found = proposed(made, "a.jsonl")
    assert (found.run.task, found.data.label, found.data.format) == ("multilabel", "moods", "jsonl")
    assert found.read(small).labels == ("fear", "joy")


def test_labels_that_json_writes_as_text_are_told(proposed: Propose) -> None:
    made = [{"text": sentence(i), "label": str(i % 2)} for i in range(30)]
    assert "The labels are numbers written as text." in proposed(made, "a.jsonl").said
    table = rows(["text", "label"], sentence, ["0", "1"])
    assert "written as text" not in proposed(table).said


def test_tags_are_read_off_conll_and_jsonl(proposed: Propose, small: Path) -> None:
    lines = [f"{word}\t{'B-x' if word == 'film' else 'O'}" for word in sentence(1).split()]
    found = proposed("\n\n".join(["\n".join(lines)] * 12 + ["a\tO"]), "a.conll")
    assert (found.run.task, found.data.labels) == ("tokens", ["B-x", "O"])
    assert "# class_weights" in found.text or "[loss]" not in found.text
    assert found.read(small).labels == ("B-x", "O")
    made = [{"tokens": ["a", "film"], "tags": ["O", "B-x"]}, {"tokens": ["so"], "tags": ["O"]}]
    found = proposed(made * 6, "b.jsonl")
    assert (found.run.task, found.data.format) == ("tokens", "jsonl")
    assert found.read(small).train.targets[0]
    with pytest.raises(DataError, match="expected for task tokens one column of lists of words"):
        proposed(rows(["text", "label"], sentence, ["a", "b"]), task="tokens")
    with pytest.raises(DataError, match="expected for task tokens one column of lists of words"):
        proposed(made * 6, "d.jsonl", task="tokens", text_pair="tokens")


def test_lists_of_words_and_tags_have_any_name(proposed: Propose, small: Path) -> None:
    tags = ["O", "B-x"]
    made = [{"tokens": [f"{i}", "film"], "ner_tags": tags} for i in range(12)]
    found = proposed(made, "a.jsonl")
    assert (found.run.task, found.data.words, found.data.tags) == ("tokens", "tokens", "ner_tags")
    assert "words =" not in found.text
    assert found.read(small).labels == ("B-x", "O")
    two = [
        {"id": i, "words": [f"{i}", "film"], "pos": ["DT", "NN"], "ner": tags} for i in range(12)
    ]
    with pytest.raises(DataError, match="'ner' are words and tags, name them with --text, --label"):
        proposed(two, "b.jsonl")
    found = proposed(two, "b.jsonl", text="words", labels=["pos"])
    assert (found.run.task, found.data.words, found.data.tags) == ("tokens", "words", "pos")
    assert found.read(small).labels == ("DT", "NN")


def test_options_decide(proposed: Propose, small: Path) -> None:
    table = rows(["n", "a", "b", "kind", "stars"], str, sentence, sentence, ["x", "y"], range(1, 6))
    found = proposed(table, text="2", labels=["stars"], task="regression", output="out")
    assert (found.data.text, found.data.text_pair, found.data.label) == ("a", None, "stars")
    assert (found.run.task, found.run.output, found.run.model) == ("regression", "out", str(small))
    assert found.data.labels == []
    found = proposed(table, text="a", text_pair="b", labels=["kind"])
    assert (found.data.text, found.data.text_pair, found.run.task) == ("a", "b", "binary")
    assert found.data.id == "n"
    with pytest.raises(DataError, match=r"a\.csv: has no column 'knid', perhaps 'kind'"):
        proposed(table, labels=["knid"])
    with pytest.raises(LabelError, match="the data has 5 labels"):
        proposed(table, labels=["stars"], task="binary")
    with pytest.raises(DataError, match=r"a\.csv: the label in .* expected numbers for task"):
        proposed(table, labels=["kind"], task="regression")


# ---- what is said


def test_numbers_of_the_data_are_told(proposed: Propose) -> None:
    label = lambda i: "spam" if i % 10 == 0 else "ham"  # noqa: E731
    table = rows(["text", "label"], lambda i: sentence(i % 38), label)
    found = proposed(table)
    assert "# 40 rows, of these columns:" in found.text
    assert "'label': 'ham' 36, 'spam' 4" in found.text
    assert "2 rows have the text of earlier ones." in found.said
    assert "'ham' 36 (90.0%), 'spam' 4 (10.0%): of the most frequent 9.0 times as many rows" in (
        found.said
    )
    assert found.run.loss.class_weights == "balanced"
    assert "balanced counts 'spam' 5.00 times and 'ham' 0.56 times in the loss" in found.said
    assert found.data.labels == ["ham", "spam"]
    assert "Tokens of 40 texts, by the tokenizer of" in found.said
    assert found.data.max_length == 128
    assert "To be cut are none at 128." in found.said
    assert found.run.optimizer.learning_rate == 1e-4
    assert "has 16 dimensions" in found.said


def test_contradictions_are_told(proposed: Propose) -> None:
    table = rows(
        ["text", "label"], lambda i: sentence(i // 2), lambda i: "ab"[i == 5 or i // 2 % 2]
    )
    said = proposed(table).said
    assert "20 rows have the text of earlier ones." in said
    assert "Among them are 1 whose labels contradict an earlier one's." in said


def test_balanced_labels_have_no_weights_and_multilabel_has_others(proposed: Propose) -> None:
    found = proposed(rows(["text", "label"], sentence, ["a", "b", "b", "b", "b"]))
    assert (found.run.loss.class_weights, "[loss]" in found.text) == (None, False)
    made = [{"text": sentence(i), "labels": ["b"] if i % 10 else ["a", "b"]} for i in range(40)]
    found = proposed(made, "a.jsonl")
    assert (found.run.loss.class_weights, found.run.loss.pos_weight) == (None, "balanced")
    assert "'b' 40 (100.0%), 'a' 4 (10.0%)" in found.said
    assert "balanced counts 'a' 9.00 times and 'b' 0.00 times where it is present" in found.said


def test_rows_that_cannot_be_used_are_set_aside_and_told(proposed: Propose, small: Path) -> None:
    table = rows(["text", "label"], sentence, ["a", "b"])
    table[3][1] = " "
    table[4] = ["torn"]
    table[5][0] = ""
    found = proposed(table)
    assert found.data.bad_rows == "quarantine"
    said = found.said
    assert "1 row cannot be read, the first " in said
    assert "line 5: has 1 column, expected 2 as set; 1 row with nothing in 'label'." in said
    assert "1 row with no text in 'text'." in said
    data = found.read(small)
    assert data.problems.counts() == {"columns": 1, "unknown label": 1}
    assert proposed(rows(["text", "label"], sentence, ["a", "b"])).data.bad_rows == "error"


def test_texts_longer_than_the_model_takes_are_told(proposed: Propose) -> None:
    found = proposed(rows(["text", "label"], lambda i: sentence(i) * (1 + i % 2 * 60), ["a", "b"]))
    assert found.data.max_length == 200
    assert "To be cut are 50.0% at 128, 50.0% at 200. 200 is the most that the model takes." in (
        found.said
    )
    found = proposed(rows(["text", "label"], sentence, ["a", "b"]), model="/no/such/folder")
    assert "by words times 1.3, for /no/such/folder is not here" in found.said
    assert found.run.optimizer.learning_rate == 3e-5


def test_groups_are_shown_and_not_taken(proposed: Propose) -> None:
    found = proposed(
        rows(["text", "label", "author"], sentence, ["a", "b"], [f"u{n}" for n in range(15)])
    )
    assert found.data.group is None
    assert '# group = "author"' in found.text
    assert found.data.label == "label"


def test_odd_characters_stay_in_their_place(proposed: Propose, small: Path) -> None:
    table = rows(['t"ex\\t', "la\nbel"], sentence, ["a\x7f", "b\u2028c", "#d"])
    found = proposed(table, 'we"ird # näme.csv')
    assert (found.data.text, found.data.label) == ('t"ex\\t', "la\nbel")
    assert found.data.labels == ["#d", "a\x7f", "b\u2028c"]
    assert len(found.read(small).train) == 36


# ---- files beside it


def test_files_beside_it_are_taken_where_they_fit(
    proposed: Propose, small: Path, tmp_path: Path
) -> None:
    table = rows(["text", "label"], sentence, ["a", "b"])
    written(
        tmp_path / "d" / "test.csv", rows(["text", "label"], lambda i: sentence(i + 39), ["a", "b"])
    )
    written(
        tmp_path / "d" / "dev.csv",
        [*rows(["text", "label"], lambda i: f"{i} so", ["a"]), ["x", "c"]],
    )
    found = proposed(written(tmp_path / "d" / "train.csv", table))
    assert (found.data.validation, found.data.test) == (
        str(tmp_path / "d" / "dev.csv"),
        str(tmp_path / "d" / "test.csv"),
    )
    assert (
        "It has 41 rows. Not to be used: 1 row with labels that the training data lacks: 'c'."
        in (found.said)
    )
    assert "The texts of 1 row of it are trained on too." in found.said
    assert found.data.bad_rows == "quarantine"
    data = found.read(small)
    assert [len(part or ()) for part in (data.train, data.validation, data.test)] == [40, 40, 40]


def test_files_beside_it_that_do_not_fit_are_left(proposed: Propose, tmp_path: Path) -> None:
    table = rows(["text", "label"], sentence, ["a", "b"])
    written(tmp_path / "d" / "test.csv", rows(["id", "text"], str, sentence))
    written(tmp_path / "d" / "dev.csv", rows(["text", "label"], sentence, ["a", "b", "c"]))
    found = proposed(written(tmp_path / "d" / "train.csv", table))
    assert (found.data.validation, found.data.test) == (0.1, None)
    assert "'test.csv' lies beside the training data. It is not taken: " in found.said
    assert "has no column 'label'" in found.said
    assert "It is not taken: 13 rows with labels that the training data lacks: 'c'." in found.said


def test_encodings_that_differ_are_told(proposed: Propose, tmp_path: Path) -> None:
    table = "text,label\n" + "".join(f"café {sentence(i)},{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_bytes(table.encode("latin-1"))
    (tmp_path / "d" / "test.csv").write_bytes(table.encode())
    found = proposed(tmp_path / "d")
    assert found.data.encoding == "latin-1"
    assert "Its bytes look like utf-8: convert it" in found.said


def test_folders_of_texts_are_rows(proposed: Propose, small: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            for i in range(10):
                written(tmp_path / "r" / part / label / f"{label}{i}.txt", sentence(hash(part) + i))
    written(tmp_path / "r" / "train" / "urls.txt", "x")
    found = proposed(tmp_path / "r")
    assert found.data.train == [str(tmp_path / "r" / "train" / name) for name in ("neg", "pos")]
    assert found.data.test == str(tmp_path / "r" / "test")
    assert (found.data.format, found.data.label, found.data.id) == ("folders", "label", "name")
    assert "Left out, for they are in no label's folder: 'urls.txt'." in found.said
    data = found.read(small)
    assert (len(data.train) + len(data.validation or ()), len(data.test or ())) == (20, 20)


# ---- no labels, no rows


def test_plain_text_is_for_masked_lm_where_that_is_a_task(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prose = written(tmp_path / "a.txt", "It is so.\nThey went home, then.\n\nThe film was bad.\n")
    table = written(tmp_path / "b.csv", rows(["id", "text"], str, sentence))
    monkeypatch.setattr(module, "TASKS", {"binary": ""})
    with pytest.raises(
        DataError, match=r"a\.txt: is plain text, 3 lines, expected rows with labels"
    ):
        propose(prose)
    with pytest.raises(
        DataError, match=r"b\.csv: is rows of 'id', 'text', of which no column looks"
    ):
        propose(table)
    monkeypatch.setattr(module, "TASKS", {"binary": "", "masked_lm": ""})
    for path, text in ((prose, "text"), (table, "text")):
        values = tomllib.loads(propose(path, model=str(small)))
        assert values["task"] == "masked_lm"
        assert values["data"]["text"] == text
        assert "label" not in values["data"]
    labelled = written(tmp_path / "c.csv", rows(["text", "label"], sentence, ["a", "b"]))
    values = tomllib.loads(propose(labelled, task="masked_lm", model=str(small)))
    assert (values["task"], "label" in values["data"]) == ("masked_lm", False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\n", "has no row that can be read"),
        ("1,2\n3,4\n5,6\n", "no column of '1', '2' looks like a text; name it with --text"),
        ("", "is empty"),
    ],
)
def test_what_nothing_can_be_proposed_for_is_refused(
    proposed: Propose, content: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        proposed(content)


# ---- the command


def test_command_prints_a_run_file_that_trains(
    small: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(tmp_path / "ü.csv", rows(["text", "label"], sentence, ["a", "b"]))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "ü.csv", "--model", str(small), "--output", "out"]) == 0
    out, err = capfdbinary.readouterr()
    assert err == b""
    (tmp_path / "run.toml").write_bytes(out)
    run = RunConfig.from_file("run.toml")
    assert run.data.train == "ü.csv"
    assert train(run, show_progress_bar=False).finished
    assert (tmp_path / "out" / "model" / "config.json").exists()


def test_command_takes_options_and_refuses_in_one_line(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path / "a.csv", rows(["a", "b", "x", "y"], sentence, sentence, [0, 1], [1, 0])
    )
    options = [
        "--text",
        "a",
        "--text-pair",
        "b",
        "--label",
        "x",
        "--label",
        "y",
        "--task",
        "multilabel",
    ]
    assert cli.main(["init", str(path), "--model", str(small), *options]) == 0
    values = tomllib.loads(capfd.readouterr().out)
    assert values["task"] == "multilabel"
    assert values["data"]["label"] == ["x", "y"]
    assert (values["data"]["text"], values["data"]["text_pair"]) == ("a", "b")
    assert cli.main(["init", str(tmp_path / "none.csv")]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(
        f"minibert: {tmp_path / 'none.csv'}: cannot be read: there is no such file"
    )


# ---- the public data sets

SST2 = {"format": "csv", "delimiter": " ", "header": False, "columns": 2}
SST2 |= {"text": "2", "label": "1", "text_pair": None}
EMOTIONS = {"format": "tsv", "quoting": True, "header": False, "columns": 3, "id": "3"}
EMOTIONS |= {"text": "1", "label": "2", "label_separator": ","}
STSB = {"format": "tsv", "quoting": False, "header": False, "extra_columns": "ignore"}
STSB |= {"text": "6", "text_pair": "7", "label": "5", "columns": 7}
MOVIES = {"format": "folders", "text": "text", "label": "label", "id": "name"}
REVIEWS = "movie_reviews/movie_reviews.zip"
KINDS = ("corporation", "creative-work", "group", "location", "person", "product")
LIMITS = {"train_rows": 200, "validation_rows": 50}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "n_rows", "n_labels", "keys"),
    [
        ("sst2/stsa.binary.train", "binary", 6920, 2, SST2),
        ("sst2/stsa.binary.dev", "binary", 872, 2, SST2),
        ("sst2/stsa.binary.test", "binary", 1821, 2, SST2),
        ("trec/TREC.train", "multiclass", 5452, 50, {**SST2, "encoding": "latin-1"}),
        ("trec/TREC.test", "multiclass", 500, 42, SST2),
        ("trec/TREC.train.all", "multiclass", 5452, 6, {**SST2, "encoding": "latin-1"}),
        ("trec/TREC.test.all", "multiclass", 500, 6, SST2),
        ("sms_spam/sms.tsv", "binary", 5574, 2, {"quoting": False, "text": "2", "label": "1"}),
        ("goemotions/train.tsv", "multilabel", 43410, 28, EMOTIONS),
        ("goemotions/dev.tsv", "multilabel", 5426, 28, EMOTIONS),
        ("goemotions/test.tsv", "multilabel", 5427, 28, EMOTIONS),
        ("stsb/sts-train.csv", "regression", 5749, 0, STSB),
        ("stsb/sts-dev.csv", "regression", 1500, 0, STSB),
        ("stsb/sts-test.csv", "regression", 1379, 0, STSB),
        ("wnut17/wnut17train.conll", "tokens", 3394, 13, {"format": "conll"}),
        ("wnut17/emerging.dev.conll", "tokens", 1009, 13, {"format": "conll"}),
        ("wnut17/emerging.test.annotated", "tokens", 1287, 13, {"format": "conll"}),
        ("movie_reviews/movie_reviews.zip", "binary", 2000, 2, MOVIES),
    ],
)
def test_data_sets_are_proposed_as_they_are(
    data: Path,
    tmp_path: Path,
    minilm: Path,
    name: str,
    task: str,
    n_rows: int,
    n_labels: int,
    keys: dict[str, Any],
) -> None:
    found = Proposed(propose(data / name), tmp_path)
    assert found.run.task == task
    assert {key: getattr(found.data, key) for key in keys} == keys
    assert f"# {n_rows:,} rows, of these columns:" in found.text
    assert len(found.data.labels) == n_labels
    assert found.data.bad_rows == "error"
    first = replace(found.data, train_rows=64, validation_rows=64, test=None)
    if isinstance(first.train, list):  # folders of one label each
        first = replace(first, train=[f"{each}/cv00*" for each in first.train])
    read = read_dataset(replace(found.run, data=first), Tokenizer.from_pretrained(minilm))
    assert len(read.labels) == n_labels


@pytest.mark.data
@pytest.mark.slow
def test_labels_of_data_sets_are_as_their_publishers_count_them(data: Path, tmp_path: Path) -> None:
    spam = Proposed(propose(data / "sms_spam/sms.tsv"), tmp_path)
    assert "'ham' 4,827 (86.6%), 'spam' 747 (13.4%)" in spam.said
    assert spam.run.loss.class_weights == "balanced"
    assert (spam.data.validation, spam.data.test) == (0.1, None)
    sst2 = Proposed(propose(data / "sst2"), tmp_path)
    assert "'1' 3,610 (52.2%), '0' 3,310 (47.8%)" in sst2.said
    assert sst2.run.loss.class_weights is None
    assert sst2.data.validation == str(data / "sst2/stsa.binary.dev")
    assert sst2.data.test == str(data / "sst2/stsa.binary.test")
    trec = Proposed(propose(data / "trec/TREC.train.all"), tmp_path)
    assert (trec.data.validation, trec.data.test) == (0.1, str(data / "trec/TREC.test.all"))
    assert "'1' 1,250 (22.9%), '3' 1,223 (22.4%)" in trec.said
    feelings = Proposed(propose(data / "goemotions"), tmp_path)
    assert "'27' 14,219 (32.8%)" in feelings.said
    assert "'16' 77 (0.2%): of the most frequent 185 times as many rows" in feelings.said
    assert feelings.run.loss.pos_weight == "balanced"
    entities = Proposed(propose(data / "wnut17"), tmp_path)
    assert entities.data.test == str(data / "wnut17/emerging.test.annotated")
    assert entities.run.loss.class_weights is None
    movies = Proposed(propose(data / "movie_reviews/movie_reviews.zip"), tmp_path)
    assert movies.data.max_length == 512
    assert "no label's folder: 'README'" in movies.said


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_rows"),
    [
        ("sst2", (6920, 872, 1821)),
        ("trec/TREC.train", (4907, 545, 500)),
        ("trec/TREC.train.all", (4907, 545, 500)),
        ("sms_spam", (5017, 557, 0)),
        ("goemotions", (43410, 5426, 5427)),
        ("stsb/sts-train.csv", (5749, 1500, 1379)),
        ("wnut17", (3394, 1009, 1287)),
        ("movie_reviews/movie_reviews.zip", (1800, 200, 0)),
    ],
)
def test_data_sets_are_read_whole_as_proposed(
    data: Path, tmp_path: Path, minilm: Path, name: str, n_rows: tuple[int, int, int]
) -> None:
    read = Proposed(propose(data / name), tmp_path).read(minilm)
    parts = (read.train, read.validation, read.test)
    assert tuple(len(part) if part else 0 for part in parts) == n_rows
    assert not read.problems.bad


TAGS = [f"{place}-{kind}" for kind in KINDS for place in "BI"]
BY_HAND = [
    ("binary", (200, 50), {"train": "sst2/stsa.binary.train", "validation": "sst2/stsa.binary.dev",
        "format": "csv", "delimiter": " ", "columns": 2, "header": False,
        "text": "2", "label": "1"}),
    ("multiclass", (180, 20), {"train": "trec/TREC.train.all", "validation": 0.1,
        "encoding": "latin-1", "format": "csv", "delimiter": " ", "columns": 2, "header": False,
        "text": "2", "label": "1"}),
    ("binary", (180, 20), {"train": "sms_spam/sms.tsv", "validation": 0.1, "quoting": False,
        "header": False, "text": "2", "label": "1", "labels": ["ham", "spam"]}),
    ("multilabel", (200, 50), {"train": "goemotions/train.tsv", "validation": "goemotions/dev.tsv",
        "header": False, "text": "1", "label": "2", "label_separator": ",", "id": "3",
        "labels": list(map(str, range(28)))}),
    ("regression", (200, 50), {"train": "stsb/sts-train.csv", "validation": "stsb/sts-dev.csv",
        "format": "tsv", "quoting": False, "header": False, "columns": 7,
        "extra_columns": "ignore", "text": "6", "text_pair": "7", "label": "5"}),
    ("tokens", (200, 50), {"train": "wnut17/wnut17train.conll",
        "validation": "wnut17/emerging.dev.conll", "labels": ["O", *TAGS]}),
    ("binary", (20, 20), {"train": [f"{REVIEWS}/neg/cv00*.txt", f"{REVIEWS}/pos/cv00*.txt"],
        "validation": f"{REVIEWS}/*/cv99*.txt", "format": "folders"}),
]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(
    ("task", "n_rows", "keys"), BY_HAND, ids=[str(keys["train"]) for *_, keys in BY_HAND]
)
def test_data_sets_need_no_rewriting(
    data: Path, minilm: Path, task: str, n_rows: tuple[int, int], keys: dict[str, Any]
) -> None:
    limits = {} if keys.get("format") == "folders" else LIMITS
    values = {"task": task, "data": {**keys, **limits, "max_length": 32}}
    read = read_dataset(RunConfig.from_dict(values, folder=data), Tokenizer.from_pretrained(minilm))
    assert (len(read.train), len(read.validation or ())) == n_rows
    assert not read.problems.bad
