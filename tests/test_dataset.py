"""From files to examples: parts and splits, bad rows told together, lines about what was read."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import small_tokenizer
from small_runs import ids_of, run_of

from minibert.errors import DataError, LabelError, RunError
from minibert.tokenizer import Tokenizer
from minibert.training.dataset import (
    Dataset,
    dialect_of,
    read_dataset,
    read_examples,
    read_side,
    training_texts,
)
from minibert.training.dialect import Dialect
from minibert.training.run_config import RunConfig

GOOD = [{"text": f"{word} film", "label": "pos"} for word in ("good", "fine", "the", "is")]
BAD = [{"text": f"{word} film", "label": "neg"} for word in ("bad", "poor", "odd")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_conll(path: Path, *sentences: str) -> None:
    lines = [[f"{each.rsplit('/', 1)[0]}\t{each.rsplit('/', 1)[1]}" for each in s.split()]
             for s in sentences]  # fmt: skip
    path.write_text("\n\n".join("\n".join(each) for each in lines) + "\n", encoding="utf-8")


def lines(run: RunConfig, tokenizer: Tokenizer) -> list[str]:
    """What is said of the data of a run."""
    return read_dataset(run, tokenizer).notes


# ---- parts


def test_parts_are_read_from_their_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "train.csv", GOOD + BAD)
    write_csv(tmp_path / "dev.csv", GOOD[:1])
    write_csv(tmp_path / "test-1.csv", BAD[:1])
    write_csv(tmp_path / "test-2.csv", GOOD[:1])
    run = run_of(
        "binary", tmp_path, data={"validation": "dev.csv", "test": ["test-1.csv", "test-2.csv"]}
    )
    found = read_dataset(run, tokenizer)
    assert found.labels == ("neg", "pos")
    assert found.train.ids[0] == ids_of("[CLS] good film [SEP]")
    assert found.train.targets == [1, 1, 1, 1, 0, 0, 0]
    assert found.validation is not None
    assert found.test is not None
    assert (found.validation.targets, found.test.targets) == ([1], [0, 1])
    assert (found.split, found.problems.bad) == ({}, [])
    assert found.notes == [
        "train: 7 rows, 4.0 tokens a text, none cut",
        "validation: 1 rows, 4.0 tokens a text, none cut",
        "test: 2 rows, 4.0 tokens a text, none cut",
        "labels: pos 4, neg 3",
    ]
    alone = read_dataset(run_of("binary", tmp_path), tokenizer)
    assert alone.validation is alone.test is None
    few = run_of(
        "binary", tmp_path, data={"train_rows": 5, "validation": "train.csv", "validation_rows": 2}
    )
    assert len(read_dataset(few, tokenizer).train) == 5
    validation = read_dataset(few, tokenizer).validation
    assert validation is not None
    assert len(validation) == 2


def test_share_of_train_is_split_and_said_by_place_or_name(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [{**row, "n": f"r{i}"} for i, row in enumerate(GOOD + BAD)]
    write_csv(tmp_path / "train.csv", rows)
    found = read_dataset(run_of("binary", tmp_path, data={"validation": 0.3}), tokenizer)
    assert found.validation is not None
    assert (len(found.train), len(found.validation)) == (5, 2)
    assert sorted(found.validation.targets) == [0, 1]  # of each label its share
    assert set(found.split) == {"train", "validation"}
    places = [*found.split["train"], *found.split["validation"]]
    assert sorted(places) == [f"{tmp_path}/train.csv: line {n}" for n in range(2, 9)]
    by_name = run_of("binary", tmp_path, data={"validation": 0.3, "id": "n"})
    names = read_dataset(by_name, tokenizer).split
    lines = {f"r{i}": f"{tmp_path}/train.csv: line {i + 2}" for i in range(7)}
    assert [lines[name] for name in names["validation"]] == found.split["validation"]
    other = run_of("binary", tmp_path, data={"validation": 0.3}, training={"seed": 1})
    splits = [read_dataset(run, tokenizer).split for run in (by_name, other)]
    assert len({tuple(each["validation"]) for each in splits}) == 2


def test_groups_and_documents_stay_on_one_side(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{**row, "who": f"{i % 3}", "n": f"{i % 3}"} for i, row in enumerate(GOOD + BAD)]
    run = run_of("binary", data={"train": rows, "validation": 0.3, "group": "who", "id": "n"})
    sides = read_dataset(run, tokenizer).split
    assert not set(sides["train"]) & set(sides["validation"])
    (tmp_path / "a.txt").write_text("good film\nfine film\n\nbad film\npoor film\n\nodd\nfilm\n")
    run = run_of("masked_lm", tmp_path, data={"train": "a.txt", "validation": 0.34})
    sides = read_dataset(run, tokenizer).split
    assert [len(sides[name]) for name in ("train", "validation")] == [4, 2]
    numbers = [int(place.rsplit(" ", 1)[1]) for place in sides["validation"]]
    assert numbers[1] == numbers[0] + 1


def test_same_rows_have_one_identity(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def identity(rows: list[dict[str, Any]], validation: Any = None) -> str:
        data = {"train": rows} | ({} if validation is None else {"validation": validation})
        return read_dataset(run_of("binary", data=data), tokenizer).identity

    assert identity(GOOD + BAD) == identity(GOOD + BAD)
    assert identity(GOOD + BAD) != identity(BAD + GOOD)
    assert identity(GOOD + BAD) != identity([*GOOD, *BAD[1:], {**BAD[0], "text": "x"}])
    assert identity(GOOD + BAD, GOOD) != identity(GOOD + BAD, BAD)


def test_what_is_not_there_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "train.csv", GOOD + BAD)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"train": ""}, RunError, 'data.train is missing, expected a file, as train = "train.csv"'),
        ({"train": []}, DataError, "data.train has no row that can be used, expected at least one"),
        ({"train": [{"text": "a", "label": ""}]}, LabelError, "the data has no label at all; is "),
        ({"test": "gone.csv"}, DataError, f"{tmp_path}/gone.csv"),
        ({"label": "gold"}, DataError, "has no column 'gold'"),
        ({"text": "txt"}, DataError, "has no column 'txt'"),
        ({"validation": 0.01}, DataError, "leaves none for validation"),
        ({"train": GOOD[:1], "validation": 0.5}, DataError, "of 1 rows leaves none"),
        ({"validation": [{"text": 3, "label": "pos"}]}, DataError, "column 'text' is 3, expected"),
    ]
    for data, kind, said in cases:
        with pytest.raises(kind) as caught:
            read_dataset(run_of("binary", tmp_path, data=data), tokenizer)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bad_rows_of_all_parts_are_told_at_once_or_set_aside(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_csv(tmp_path / "train.csv", [*GOOD, {"text": "odd", "label": "Pos"}, *BAD])
    write_csv(tmp_path / "dev.csv", [*GOOD, {"text": "odd", "label": ""}])
    with (tmp_path / "train.csv").open("a") as file:
        file.write("one,two,three\n")
    data = {"labels": ["neg", "pos"], "validation": "dev.csv"}
    with pytest.raises(DataError) as caught:
        read_dataset(run_of("binary", tmp_path, data=data), tokenizer)
    assert "3 of 14 rows are bad; 2 of kind 'unknown label', first " in str(caught.value)
    assert "train.csv: line 6: the label is 'Pos'" in str(caught.value)
    assert 'or set bad_rows = "quarantine" to go on without them' in str(caught.value)
    (tmp_path / "run").mkdir()
    run = run_of("binary", tmp_path, data={**data, "bad_rows": "quarantine"})
    found = read_dataset(run, tokenizer)
    assert (len(found.train), len(found.problems.bad)) == (7, 3)
    with (tmp_path / "run" / "rejected.csv").open(newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)].count("unknown label") == 2
    none = {**data, "bad_rows": "quarantine", "validation": [{"text": "a", "label": "x"}]}
    with pytest.raises(DataError, match=r"^data\.validation has no row that can be used, expected"):
        read_dataset(run_of("binary", tmp_path, data=none), tokenizer)


def test_rows_without_a_column_are_told_with_the_others(tokenizer: Tokenizer) -> None:
    rows = [*GOOD, {"text": "odd"}, {"label": "neg"}, {"text": None, "label": "neg"}]
    with pytest.raises(DataError) as caught:
        read_dataset(run_of("binary", data={"train": rows}), tokenizer)
    assert (
        "3 of 7 rows are bad; 2 of kind 'missing column', first row 5: has no column 'label'"
        in (str(caught.value))
    )
    assert "1 of kind 'no text', first row 7" in str(caught.value)
    spans = [{"text": "who", "c": "anna", "label": "anna"}] * 2
    data = {"train": spans, "text_pair": "c", "answer_start": "at"}
    with pytest.raises(
        DataError, match=r"2 of kind 'missing column', first row 1: has no column 'at'"
    ):
        read_dataset(run_of("spans", data=data), tokenizer)


# ---- what a saved model is measured on


def test_side_is_read_as_it_was(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "train.csv", [*GOOD, *BAD])
    write_csv(tmp_path / "dev.csv", GOOD)
    for validation in (0.3, "dev.csv"):
        data = {"validation": validation, "test": "dev.csv"}
        run = run_of("binary", tmp_path, data=data)
        whole = read_dataset(run, tokenizer)
        for side, expected in (("validation", whole.validation), ("test", whole.test)):
            found = read_side(run, side, whole.labels, tokenizer)
            assert expected is not None
            assert (found.examples.ids, found.examples.targets) == (expected.ids, expected.targets)
            assert found.split == (whole.split if side == "validation" else {})


def test_side_needs_no_other_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "dev.csv", GOOD)
    data = {"train": "gone.csv", "validation": "dev.csv", "test": "lost.csv"}
    run = run_of("binary", tmp_path, data=data)
    assert len(read_side(run, "validation", ("neg", "pos"), tokenizer).examples) == 4
    for side, name in (("test", "lost.csv"), ("validation", "gone.csv")):
        shared = run_of("binary", tmp_path, data={**data, "validation": 0.5})
        with pytest.raises(DataError, match=name):
            read_side(shared, side, ("neg", "pos"), tokenizer)


def test_side_leaves_out_what_the_run_set_aside(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "dev.csv", [*GOOD, {"text": "odd", "label": "x"}])
    data = {"validation": "dev.csv", "bad_rows": "quarantine"}
    found = read_side(
        run_of("binary", tmp_path, data=data), "validation", ("neg", "pos"), tokenizer
    )
    assert len(found.examples) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.csv"]  # nothing is written
    run = run_of("binary", tmp_path, data={**data, "bad_rows": "error"})
    with pytest.raises(DataError, match="1 of 5 rows are bad"):
        read_side(run, "validation", ("neg", "pos"), tokenizer)


def test_other_rows_are_read_as_those_of_the_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_csv(tmp_path / "new.csv", GOOD)
    run = run_of("binary", tmp_path, data={"bad_rows": "quarantine"})
    for source in ("new.csv", tmp_path / "new.csv", GOOD):
        found = read_examples(run, source, ("neg", "pos"), tokenizer)
        assert (len(found), found.targets) == (4, [1] * 4)
    with pytest.raises(DataError) as caught:
        read_examples(run, [*GOOD, {"text": "odd", "label": "x"}], ("neg", "pos"), tokenizer)
    assert str(caught.value) == (
        "1 of 5 rows are bad; 1 of kind 'unknown label', first row 5: the label is 'x', expected "
        "one of 'neg', 'pos'; mend them, or leave them out"
    )
    with pytest.raises(DataError, match=r"^there is no row to evaluate on, expected at least one$"):
        read_examples(run, [], ("neg", "pos"), tokenizer)


def test_words_are_judged_by_their_first_piece_wherever_it_is_measured(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_conll(tmp_path / "train.conll", "films/B-x", "film/O")
    data = {"train": "train.conll", "validation": "train.conll", "label_all_pieces": True}
    run = run_of("tokens", tmp_path, data=data)
    found = read_dataset(run, tokenizer)
    assert found.validation is not None
    assert found.train.targets[0] == [-100, 0, 0, -100]
    first = [-100, 0, -100, -100]
    assert found.validation.targets[0] == first
    assert read_side(run, "validation", found.labels, tokenizer).examples.targets[0] == first
    assert read_examples(run, "train.conll", found.labels, tokenizer).targets[0] == first


def test_words_and_tags_stand_in_any_columns(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.conll").write_text("films\tNN\tB-x\nfilm\tVB\tO\n", encoding="utf-8")
    rows = [{"words": ["films", "film"], "pos": ["NN", "VB"], "words.2": ["a", "b"]}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    sources: list[tuple[Any, dict[str, str]]] = [
        ("a.conll", {"tags": "2"}),
        ("a.jsonl", {"words": "words", "tags": "pos"}),
        (rows, {"words": "words", "tags": "pos"}),
    ]
    for source, columns in sources:
        found = read_dataset(
            run_of("tokens", tmp_path, data={"train": source, **columns}), tokenizer
        )
        assert found.labels == ("NN", "VB")
        assert found.train.targets[0] == [-100, 0, -100, 1, -100]
    wrong = run_of("tokens", data={"train": [{"words": "films", "tags": ["O"]}], "words": "words"})
    with pytest.raises(DataError, match="column 'words' is 'films', expected a list of words"):
        read_dataset(wrong, tokenizer)
    schemed = {"train": "a.conll", "tag_scheme": "BIOES"}
    found = read_dataset(run_of("tokens", tmp_path, data=schemed), tokenizer)
    assert found.labels == ("B-x", "E-x", "I-x", "O", "S-x")


# ---- texts for a vocabulary


def test_texts_of_train_alone_are_for_the_vocabulary(tmp_path: Path) -> None:
    pairs = [{"text": "good film", "b": "fine", "label": 1}, {"text": 3, "b": "odd", "label": 0}]
    data = {"train": pairs, "text_pair": "b", "validation": "gone.csv", "test": "gone.csv"}
    run = run_of("similarity", tmp_path, data=data)
    assert list(training_texts(run)) == ["good film", "fine", "odd"]
    write_conll(tmp_path / "train.conll", "the/O film/B-x", "odd/O")
    run = run_of("tokens", tmp_path, data={"train": "train.conll"})
    assert list(training_texts(run)) == ["the film", "odd"]
    split = run_of("binary", data={"train": GOOD + BAD, "validation": 0.3})
    assert len(list(training_texts(split))) == 5


# ---- lines about the rows


OFTEN = "warning: 'often' is over 4 times as frequent as 'rare'"
REMEDY = f"{OFTEN}; if rare labels matter, set loss."


@pytest.mark.parametrize(
    ("n_often", "n_rare", "task", "tables", "said"),
    [
        (8, 2, "binary", {}, []),
        (9, 2, "binary", {}, [f'{REMEDY}class_weights = "balanced"']),
        (9, 2, "multiclass", {}, [f'{REMEDY}class_weights = "balanced"']),
        (9, 2, "binary", {"head": {"num_labels": 1}}, [f'{REMEDY}pos_weight = "balanced"']),
        (9, 2, "multilabel", {}, [f'{REMEDY}pos_weight = "balanced"']),
        (9, 2, "binary", {"loss": {"class_weights": "balanced"}}, [OFTEN]),
        (9, 2, "multilabel", {"loss": {"pos_weight": [1.0, 2.0]}}, [OFTEN]),
        (9, 2, "multilabel", {"loss": {"name": "focal", "focal_alpha": 0.9}}, [OFTEN]),
        (9, 2, "binary", {"data": {"sampling": "over"}}, [OFTEN]),
        (
            5, 0, "binary", {},
            ["warning: every row of train is 'often': nothing else can be learnt"],
        ),
        (5, 0, "multilabel", {}, []),
        (
            5, 4, "multiclass", {"data": {"labels": ["often", "rare", "never"]}},
            ["warning: no row of train is 'never': it cannot be learnt"],
        ),
    ],
)  # fmt: skip
def test_unequal_labels_are_told_with_a_remedy(
    n_often: int, n_rare: int, task: str, tables: dict[str, Any], said: list[str],
    tokenizer: Tokenizer,
) -> None:  # fmt: skip
    labels = ["often"] * n_often + ["rare"] * n_rare
    rows = [{"text": f"film {i}", "label": label} for i, label in enumerate(labels)]
    data = {"train": rows, **tables.get("data", {})}
    found = lines(run_of(task, **{**tables, "data": data}), tokenizer)
    assert found[1].startswith(f"labels: often {n_often}")
    assert found[2:] == said


def test_lines_name_the_most_frequent_labels_alone(tokenizer: Tokenizer) -> None:
    rows = [{"text": f"{i}", "label": f"l{i % 9}"} for i in range(9)]
    found = lines(
        run_of("multiclass", data={"train": [*rows, {"text": "", "label": "l4"}]}), tokenizer
    )
    assert found[1:] == ["labels: l4 2, l8 1, l7 1, l6 1, l5 1, l3 1, l2 1, l1 1, …"]


def test_numbers_and_tags_have_no_balance(tmp_path: Path, tokenizer: Tokenizer) -> None:
    numbers = [{"text": "a", "label": float(i == 0)} for i in range(9)]
    assert len(lines(run_of("regression", data={"train": numbers}), tokenizer)) == 1
    write_conll(tmp_path / "train.conll", "film/O " * 9 + "odd/B-x")
    run = run_of("tokens", tmp_path, data={"train": "train.conll"})
    assert len(lines(run, tokenizer)) == 1


def test_windows_are_counted_where_texts_have_several(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"text": "good fine bad poor odd", "label": "a"}, {"text": "film", "label": "b"}]
    data = {"train": rows, "max_length": 5, "long_text": "windows", "window_overlap": 1}
    assert lines(run_of("binary", data=data), tokenizer)[0] == (
        "train: 2 rows in 3 windows, 5.0 tokens a text, none cut"
    )
    assert lines(run_of("binary", data={**data, "max_length": 50}), tokenizer)[0] == (
        "train: 2 rows, 5.0 tokens a text, none cut"
    )
    pairs = [{"text": "who", "c": "anna", "label": "anna"}]  # which always are windows
    run = run_of("spans", data={"train": pairs, "text_pair": "c"})
    assert lines(run, tokenizer) == ["train: 1 rows, 5.0 tokens a text, none cut"]
    (tmp_path / "a.txt").write_text("good fine bad poor odd\n")
    run = run_of("masked_lm", tmp_path, data={"train": "a.txt", "max_length": 4})
    assert lines(run, tokenizer) == ["train: 1 rows, 5.0 tokens a text, none cut"]


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("anna/B-x smith/I-x lives/O", "tags of train: 3 in BIO, learnt as BIOES"),
        ("anna/I-x smith/B-x lives/O", "tags of train: 3 in IOB1, learnt as BIOES"),
        ("anna/B-x smith/L-x lives/U-y", "tags of train: 3 in BILOU, learnt as BIOES"),
        (
            "anna/B-x smith/I-x lives/B-y in/O paris/I-y",
            "tags of train: 5 in BIO, learnt as BIOES; 1 of them broke it and were mended",
        ),
    ],
)
def test_scheme_of_tags_is_told_with_what_was_mended(
    tmp_path: Path, tokenizer: Tokenizer, sentence: str, line: str
) -> None:
    write_conll(tmp_path / "train.conll", sentence)
    run = run_of("tokens", tmp_path, data={"train": "train.conll", "tag_scheme": "BIOES"})
    assert lines(run, tokenizer)[1:] == [line]
    as_they_stand = run_of("tokens", tmp_path, data={"train": "train.conll"})
    assert len(lines(as_they_stand, tokenizer)) == 1


def test_tags_are_learnt_in_the_scheme_that_is_asked_for(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_conll(tmp_path / "train.conll", "anna/B-x smith/I-x lives/B-x", "film/O")
    write_conll(tmp_path / "dev.conll", "anna/I-x")  # in another scheme, of a tag that train lacks
    data = {"train": "train.conll", "validation": "dev.conll", "tag_scheme": "BIOES"}
    found: Dataset = read_dataset(run_of("tokens", tmp_path, data=data), tokenizer)
    assert found.labels == ("B-x", "E-x", "I-x", "O", "S-x")
    assert found.train.targets == [[-100, 0, 1, 4, -100], [-100, 3, -100]]
    assert found.validation is not None
    assert found.validation.targets == [[-100, 4, -100]]
    nothing = tmp_path / "none.conll"
    write_conll(nothing, "film/O odd/O")
    run = run_of("tokens", tmp_path, data={"train": "none.conll", "tag_scheme": "BIO"})
    assert lines(run, tokenizer)[1:] == []
    write_conll(nothing, "film/NN odd/JJ", "anna/NN")
    with pytest.raises(
        DataError, match=r"2 of 2 rows are bad; 2 of kind 'bad tag', first .*: line 1"
    ):
        read_dataset(run, tokenizer)


def test_several_labels_that_stand_in_one_are_asked_about(tokenizer: Tokenizer) -> None:
    rows = [{"text": f"{i}", "label": label} for i, label in enumerate(["joy,fear", "joy,fear"])]
    asked = "warning: 'joy,fear' is taken for one label; if it is several, set data.label_separator"
    assert asked in lines(run_of("multilabel", data={"train": rows}), tokenizer)
    separated = run_of("multilabel", data={"train": rows, "label_separator": ","})
    assert asked not in lines(separated, tokenizer)


def test_first_row_that_may_be_no_header_is_asked_about(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "a.csv").write_text("good film,pos\nbad film,neg\nfine,pos\nodd,neg\n")
    data = {"train": "a.csv", "text": "1", "label": "2"}
    run = run_of("binary", tmp_path, data=data)
    assert lines(run, tokenizer)[0].startswith("columns are chosen by number, and the first row ")
    run = run_of("binary", tmp_path, data={**data, "header": False})
    assert lines(run, tokenizer)[0].startswith("train: 4 rows")
    named = [{"1": "good", "2": "a"}, {"1": "odd", "2": "b"}]
    assert len(lines(run_of("binary", data={**data, "train": named}), tokenizer)) == 2


def test_scores_beyond_a_cosine_are_refused(tokenizer: Tokenizer) -> None:
    pairs = [{"text": "a", "b": "b", "label": score} for score in (0.0, 4.0)]
    data = {"train": pairs, "text_pair": "b", "validation": [{**pairs[0], "label": 5.0}]}
    run = run_of("similarity", data=data, loss={"name": "cosine"})
    with pytest.raises(
        RunError, match=r"data\.validation has the score 5, expected at most 4, the"
    ):
        read_dataset(run, tokenizer)
    read_dataset(
        run_of("similarity", data={**data, "score_scale": 5.0}, loss={"name": "cosine"}), tokenizer
    )
    read_dataset(run_of("similarity", data=data), tokenizer)


def test_files_are_read_as_the_run_says() -> None:
    said: dict[str, Any] = {
        "format": "tsv", "encoding": "latin-1", "delimiter": "|", "quoting": False,
        "header": False, "columns": 3, "extra_columns": "join",
    }  # fmt: skip
    assert dialect_of(run_of("binary", data=said).data) == Dialect(**said)


def test_jsonl_with_a_text_for_words_is_a_bad_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": "a b", "tags": ["O", "X"]}]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(
        DataError, match=r"line 2: column 'tokens' is 'a b', expected a list of words"
    ):
        read_dataset(run_of("tokens", tmp_path, data={"train": "train.jsonl"}), tokenizer)
    path.write_text(json.dumps({"words": ["a"], "tags": ["O"]}) + "\n")
    with pytest.raises(DataError) as caught:
        read_dataset(run_of("tokens", tmp_path, data={"train": "train.jsonl"}), tokenizer)
    assert str(caught.value).startswith(
        "data.train has no row that can be used, expected at least one; 1 of 1 rows are bad; 1 of "
        "kind 'missing column', first "
    )
    assert "line 1: has no column 'tokens'" in str(caught.value)
