"""The commands of prediction: what they print, what they write, and their line for bad input."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from small_models import hand_made, save_small, small_config

from minibert import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    PredictionSettings,
    cli,
)
from minibert.cli import predictions as module
from minibert.cli.predictions import number

COMMANDS = ("classify", "score", "tag", "answer", "fill-mask")
SENTIMENT = {"bad": 1, "poor": 1, "good": 2, "fine": 2}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of hand-made models: sentiment, topics, stars, names, answers, words."""
    root = tmp_path_factory.mktemp("models")

    def put(name: str, model: Any, settings: PredictionSettings | None = None) -> None:
        (root / name).mkdir(parents=True)
        save_small(model, root / name, settings)

    classes = BertForSequenceClassification
    put("sentiment", hand_made(classes, SENTIMENT, attends=True, strength=40))
    put("run/model", hand_made(classes, SENTIMENT, attends=True, strength=40))
    (root / "run" / "run.json").write_text("{}")
    topics = {"bad": 1, "good": 2, "odd": 3}
    several = hand_made(
        classes, topics, labels=("bad", "good", "odd one"), attends=True, strength=40,
        problem_type="multi_label_classification",
    )  # fmt: skip
    put("topics", several)
    put("stars", hand_made(classes, {"good": 1}, labels=("score",), attends=True, strength=40))
    pairs = PredictionSettings(task="regression", max_length=32, pairs=True)
    put("likeness", hand_made(classes, {"good": 1}, labels=("score",), attends=True), pairs)
    tags = {"anna": 2, "smith": 3, "paris": 4, "lives": 1, "in": 1, ".": 1}
    labels = ("O", "B-PER", "I-PER", "B-LOC")
    put("names", hand_made(BertForTokenClassification, tags, labels=labels))
    put("kinds", hand_made(BertForTokenClassification, tags, labels=("NN", "VB", "JJ", "DT")))
    put("answers", hand_made(BertForQuestionAnswering, {"anna": 1, "smith": 2}))
    masked = BertForMaskedLM(small_config()).eval()
    with torch.no_grad():
        for parameter in masked.predictions.dense.parameters():
            parameter.zero_()
        assert masked.predictions.bias is not None
        masked.predictions.bias[5:8] = torch.tensor([1.0, 3.0, 2.0])  # good, fine, bad
    put("words", masked)
    return root


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], models: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs the command in this process, beside the models."""
    monkeypatch.chdir(models)

    def call(*args: str | Path) -> Outcome:
        capfd.readouterr()
        code = cli.main([str(arg) for arg in args])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(run: Callable[..., Outcome]) -> Callable[..., str]:
    """Runs the command, which must refuse in one line and print nothing else; gives the line."""

    def call(*args: str | Path) -> str:
        outcome = run(*args)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("minibert: ")
        assert outcome.err.count("\n") == 1
        return outcome.err.removeprefix("minibert: ").removesuffix("\n")

    return call


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


# ---- the commands themselves


@pytest.mark.parametrize("dtype", ["int16", "int8", "bfloat16"])
def test_dtypes_say_what_float32_says(run: Callable[..., Outcome], dtype: str) -> None:
    texts = ("a good film", "a bad film")
    wide, narrow = (
        lines(run("classify", "sentiment", *texts, "--json", "--dtype", each))
        for each in ("float32", dtype)
    )
    assert [each["label"] for each in narrow] == [each["label"] for each in wide]
    assert len({each["label"] for each in narrow}) == 2


@pytest.mark.slow
def test_help_imports_nothing_slow() -> None:
    script = """
import sys
from minibert.cli import main
for name in sys.argv[1:]:
    assert main([name, "--help"]) == 0
slow = {"torch", "tokenizers", "huggingface_hub", "numpy", "safetensors", "tqdm", "jaxtyping"}
print("imported:", sorted(slow & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, *COMMANDS], capture_output=True, text=True, check=True
    )
    assert found.stdout.endswith("imported: []\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_listed_and_explains_itself(run: Callable[..., Outcome], name: str) -> None:
    assert f"\n  {name} " in run("--help").out
    shown = run(name, "--help").out
    assert shown.startswith(f"Usage: minibert {name} [OPTIONS] MODEL")
    for option in ("--input", "--output", "--max-length", "--long-text", "--device", "--encoding"):
        assert option in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["classify"], "Missing argument 'MODEL'"),
        (["classify", "sentiment"], "got neither texts nor --input, expected one of them"),
        (["classify", "sentiment", "a", "--input", "b"], "got texts and --input, expected one of"),
        (["classify", "sentiment", "a", "--output", "b.csv"], "--output is for a file, given with"),
        (["classify", "sentiment", "a", "--text", "b"], "--text is for a file, given with --input"),
        (["score", "stars", "a", "--encoding", "cp1252"], "--encoding is for a file, given with"),
        (["tag", "names", "a", "--no-header"], "--header is for a file, given with --input"),
        (["score", "stars", "--input", "a.csv", "--pair", "b"], "--pair is for texts, not for a f"),
        (["answer", "answers", "--question", "a"], "got neither --context nor --input"),
        (["answer", "answers", "--context", "a"], "missing --question, or a file of questions"),
        (["answer", "answers", "--context", "a", "--context-file", "b", "--question", "c"],
         "got --context and --context-file, expected one of them"),
        (["answer", "answers", "--context", "a", "--context-column", "b"], "--context-column is"),
        (["fill-mask", "words", "a", "--top-k", "0"], "Invalid value for '--top-k'"),
        (["classify", "sentiment", "a", "--max-length", "2"], "Invalid value for '--max-length'"),
        (["classify", "sentiment", "a", "--device", "cuda:99"], "device is 'cuda:99', which is"),
        (["classify", "sentiment", "a", "--max-length", "999"], "max_length is 999, expected"),
        (["classify", "sentiment", "a", "--sha256", "00"], "the pinned one is 00"),
        (["classify", "nonsense", "a"], "no model 'nonsense'"),
        (["classify", "names", "a"], "is a model for task 'tokens', expected binary or"),
        (["tag", "sentiment", "a"], "minibert classify takes it, and in Python TextClassifier"),
        (["score", "likeness", "a"], "the model takes pairs of texts, got texts alone"),
        (["fill-mask", "words", "a"], "text 0 has no [MASK], put one where a word is missing"),
        (["classify", "sentiment", "--input", "absent.csv"], "absent.csv: cannot be read"),
        (["classify", "sentiment", "--input", "a.csv", "--output", "b.npy"], "the suffix '.npy'"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(refused: Callable[..., str], args: list[str], said: str) -> None:
    assert said in refused(*args)


# ---- texts


def test_classify_prints_label_and_probability(run: Callable[..., Outcome]) -> None:
    assert run("classify", "sentiment", "good film") == (0, "pos\t0.9186\n", "")
    assert run("classify", "run", "good film").out == "pos\t0.9186\n"
    both = run("classify", "sentiment", "good film", "bad\n film").out
    assert both == "pos\t0.9186\tgood film\nneg\t0.9186\tbad film\n"


def test_classify_prints_rankings(run: Callable[..., Outcome]) -> None:
    assert run("classify", "sentiment", "good film", "--proba").out == "0.9186\tpos\n0.0814\tneg\n"
    assert run("classify", "topics", "odd", "bad", "--top-k", "1").out == (
        "odd\n  0.9684\todd one\nbad\n  0.9684\tbad\n"
    )


def test_classify_prints_all_labels_of_a_text(run: Callable[..., Outcome]) -> None:
    assert run("classify", "topics", "odd bad", "the film").out == (
        "bad, odd one\t0.9480, 0.9480\todd bad\n(none)\t\tthe film\n"
    )
    (found,) = lines(run("classify", "topics", "odd bad", "--json"))
    assert found["label"] == ["bad", "odd one"]


def test_classify_prints_json(run: Callable[..., Outcome]) -> None:
    (found,) = lines(run("classify", "sentiment", "gööd good film", "--json"))
    assert found["text"] == "gööd good film"
    assert list(found) == ["text", "label", "probability", "truncated"]
    (full,) = lines(run("classify", "sentiment", "good", "--json", "--proba", "--top-k", "2"))
    assert full["probability_pos"] == full["label_1_probability"] == full["probability"]
    assert (full["label_1"], full["label_2"]) == ("pos", "neg")
    assert full["probability_neg"] == pytest.approx(1 - full["probability"], abs=1e-6)


def test_texts_that_are_cut_are_told(run: Callable[..., Outcome]) -> None:
    text = "good good good bad bad bad bad"
    cut = run("classify", "sentiment", text, "good", "--max-length", "5")
    assert cut.out.splitlines()[0].startswith("pos\t")
    assert cut.err == (
        "minibert: 1 of 2 were longer than the model reads at once, and cut; --long-text windows "
        "reads all of a text\n"
    )
    whole = run("classify", "sentiment", text, "--max-length", "5", "--long-text", "windows")
    assert whole.out.startswith("neg\t")
    assert whole.err == ""


def test_length_of_the_command_goes_before_that_of_the_model(
    run: Callable[..., Outcome], models: Path
) -> None:
    asked = PredictionSettings(task="binary", max_length=30, window_overlap=15)
    model = hand_made(BertForSequenceClassification, SENTIMENT, attends=True)
    (models / "shared").mkdir()
    save_small(model, models / "shared", asked)
    done = run("classify", "shared", "good bad bad bad bad", "--max-length", "3")
    assert done.out.startswith("pos\t")
    assert "1 of 1 were longer" in done.err


def test_score_prints_numbers(run: Callable[..., Outcome]) -> None:
    alone = run("score", "stars", "good").out
    assert float(alone) > 3
    assert (
        run("score", "stars", "good", "the film").out
        == f"{alone.strip()}\tgood\n0.0000\tthe film\n"
    )
    (found,) = lines(run("score", "likeness", "good", "--pair", "film", "--json"))
    assert list(found) == ["text", "text_pair", "score", "truncated"]
    compared = run(
        "score",
        "all-MiniLM-L6-v2",
        "How do I sleep better?",
        "--pair",
        "Ways to rest well at night",
    )
    assert compared.out == "0.6860\n"


def test_tag_prints_entities_or_words(run: Callable[..., Outcome]) -> None:
    text = "Anna Smith lives in Paris."
    assert run("tag", "names", text).out == "PER\t0.9990\tAnna Smith\nLOC\t0.9990\tParis\n"
    assert run("tag", "names", text, "lives").out == (
        f"{text}\n  PER\t0.9990\tAnna Smith\n  LOC\t0.9990\tParis\nlives\n  (none)\n"
    )
    words = run("tag", "names", text, "--words").out.splitlines()
    assert words[:3] == ["B-PER\t0.9990\tAnna", "I-PER\t0.9990\tSmith", "O\t0.9990\tlives"]
    assert run("tag", "kinds", "anna in").out == "VB\t0.9990\tanna\nNN\t0.9990\tin\n"
    (found,) = lines(run("tag", "names", text, "--json"))
    assert found["tags"] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    assert found["entities"][1]["text"] == "Paris"
    assert "entities" not in lines(run("tag", "kinds", "anna", "--json"))[0]


def test_answer_prints_answers(run: Callable[..., Outcome], tmp_path: Path) -> None:
    asked = ("answer", "answers", "--question", "who ?")
    context = "the film is in paris . anna smith lives"
    assert run(*asked, "--context", context).out == "0.9947\tanna smith\n"  # (e⁸ / (e⁸ + 8))²
    two = run(*asked, "--context", context, "--top-k", "2").out.splitlines()
    assert [line.split("\t")[1] for line in two] == [
        "anna smith", "the film is in paris . anna smith"
    ]  # fmt: skip
    path = write(tmp_path / "context.txt", f"{context}\n" * 40)
    (found,) = lines(run(*asked, "--context-file", path, "--json", "--max-length", "20"))
    assert (found["answer"], found["start"], found["truncated"]) == ("anna smith", 23, False)
    assert run(*asked, "--context", " ").out == "(none)\n"
    assert run(*asked, "--context", "film", "--no-answer").out == "0.2500\t(none)\n"


def test_context_file_that_cannot_be_read(refused: Callable[..., str], tmp_path: Path) -> None:
    asked = ("answer", "answers", "--question", "who ?", "--context-file")
    assert refused(*asked, tmp_path / "absent").endswith(
        "cannot be read: No such file or directory"
    )
    (tmp_path / "bad").write_bytes(b"ab\xff")
    assert "byte 2 is no UTF-8" in refused(*asked, tmp_path / "bad")


def test_fill_mask_prints_words(run: Callable[..., Outcome]) -> None:
    found = run("fill-mask", "words", "The film is [MASK].", "--top-k", "2").out
    assert [line.split("\t")[1:] for line in found.splitlines()] == [
        ["fine", "The film is fine."],
        ["bad", "The film is bad."],
    ]
    assert len(run("fill-mask", "words", "[MASK]").out.splitlines()) == 5
    both = run("fill-mask", "words", "a [MASK]", "[MASK] [MASK]", "--top-k", "1").out
    assert [line.split("\t")[-1] for line in both.splitlines()] == [
        "a [MASK]", "a fine", "[MASK] [MASK]", "fine [MASK]", "[MASK] fine"
    ]  # fmt: skip
    (full,) = lines(run("fill-mask", "words", "[MASK] film", "--json", "--top-k", "2"))
    assert full["filled"] == "fine film"
    assert [each["token"] for each in full["candidates"][0]] == ["fine", "bad"]


# ---- files


def test_classify_adds_columns_to_a_table(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", 'id,review\n1,good film\n2,"bad, ""bad"""\n3,\n')
    output = tmp_path / "out.csv"
    done = run("classify", "sentiment", "--input", source, "--text", "review", "--output", output)
    assert done.code == 0
    assert done.err.startswith("minibert: 3 rows in ")
    assert done.err.endswith(f" s -> {output}\n")
    rows = table(output)
    assert list(rows[0]) == ["id", "review", "label", "probability", "truncated"]
    assert [row["review"] for row in rows] == ["good film", 'bad, "bad"', ""]
    assert [row["label"] for row in rows] == ["pos", "neg", "neg"]
    alone = lines(run("classify", "sentiment", *(row["review"] for row in rows), "--json"))
    assert [float(row["probability"]) for row in rows] == [each["probability"] for each in alone]
    assert {row["truncated"] for row in rows} == {"false"}


def test_classify_of_pairs_and_probabilities(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.tsv", "a\tb\ngood\tfilm\nfilm\tbad\n")
    found = lines(
        run("classify", "sentiment", "--input", source, "--text", "a", "--text-pair", "b",
            "--proba", "--top-k", "1", "--json")
    )  # fmt: skip
    assert [each["label"] for each in found] == ["pos", "neg"]
    (alone,) = lines(run("classify", "sentiment", "good", "--pair", "film", "--json", "--proba"))
    assert found[0]["probability_pos"] == alone["probability_pos"]
    assert found[1]["label_1"] == "neg"


def test_several_labels_go_in_one_column(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "odd bad", "n": 1}\n{"text": "film", "n": 2}\n')
    run("classify", "topics", "--input", source, "--output", tmp_path / "out.csv")
    assert [row["label"] for row in table(tmp_path / "out.csv")] == ["bad,odd one", ""]
    found = lines(run("classify", "topics", "--input", source))
    assert [each["label"] for each in found] == [["bad", "odd one"], []]
    assert found[1]["n"] == 2


def test_score_adds_a_column(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.txt", "good\n\nfilm\n")
    found = lines(run("score", "stars", "--input", source))
    assert [each["text"] for each in found] == ["good", "", "film"]
    assert found[0]["score"] > 3
    assert [each["score"] for each in found[1:]] == [0, 0]
    pairs = write(tmp_path / "in.csv", "a,b\ngood,film\n")
    shown = run("score", "likeness", "--input", pairs, "--text", "a", "--text-pair", "b").out
    assert shown.splitlines()[0] == "a,b,score,truncated"


def test_tag_adds_words_tags_and_entities(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text\nAnna Smith.\n")
    run("tag", "names", "--input", source, "--output", tmp_path / "out.csv")
    (row,) = table(tmp_path / "out.csv")
    assert row["words"] == "Anna Smith ."
    assert row["tags"] == "B-PER I-PER O"
    assert json.loads(row["entities"])[0]["text"] == "Anna Smith"
    sentences = write(tmp_path / "in.conll", "anna O\nlives O\n\nparis O\n")
    found = lines(run("tag", "names", "--input", sentences))
    assert [each["predicted_tags"] for each in found] == [["B-PER", "O"], ["B-LOC"]]
    words = write(tmp_path / "in.jsonl", '{"words": ["anna", "in"]}\n{"words": "in paris"}\n')
    found = lines(run("tag", "names", "--input", words, "--text", "words"))
    assert [each["tags"] for each in found] == [["B-PER", "O"], ["O", "B-LOC"]]


def test_answer_reads_questions_and_contexts(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "question,context\nwho?,in anna smith\nwhere?,\n")
    output = tmp_path / "out.jsonl"
    assert run("answer", "answers", "--input", source, "--output", output).code == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["answer"] for each in found] == ["anna smith", ""]
    assert (found[0]["start"], found[0]["end"]) == (3, 13)
    texts = write(tmp_path / "in.txt", "in anna smith\n")
    (one,) = lines(
        run("answer", "answers", "--input", texts, "--question", "who?", "--context-column", "text",
            "--top-k", "2")
    )  # fmt: skip
    assert [each["answer"] for each in one["candidates"]] == ["anna smith", "in anna smith"]


def test_fill_mask_adds_columns(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text\nThe [MASK].\n[MASK] or [MASK]\n")
    output = tmp_path / "out.tsv"
    assert run("fill-mask", "words", "--input", source, "--output", output).code == 0
    rows = [line.split("\t") for line in output.read_text().splitlines()]
    assert rows[0] == ["text", "filled", "token", "probability", "truncated"]
    assert [row[1:3] for row in rows[1:]] == [["The fine.", "fine"], ["fine or fine", "fine fine"]]


def test_rows_come_from_standard_input_and_go_to_standard_output(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    give("good\nbad\n")
    assert [each["label"] for each in lines(run("classify", "sentiment", "--input", "-"))] == [
        "pos", "neg"
    ]  # fmt: skip
    give("text\ngood\n")
    shown = run("classify", "sentiment", "--input", "-", "--format", "csv", "--output", "-").out
    assert shown.splitlines()[0] == "text,label,probability,truncated"
    give("")
    assert run("classify", "sentiment", "--input", "-").err.endswith(
        "holds no row, expected one at least\n"
    )


def test_files_of_any_size_are_read_in_chunks(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'good' if i % 3 else 'bad'} film" for i in range(20)]
    source = write(tmp_path / "in.txt", "\n".join(texts) + "\n")
    whole = run("classify", "sentiment", "--input", source).out
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    parts = run("classify", "sentiment", "--input", source, "--batch-tokens", "9")
    assert parts.out == whole
    assert [json.loads(line)["text"] for line in parts.out.splitlines()] == texts


# ---- what goes wrong


def test_bad_row_is_told_with_its_place_before_the_model_is_loaded(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.Loading, "open", lambda self, kind: pytest.fail("was loaded"))
    source = write(tmp_path / "in.csv", "id,text\n1,good\n2\n")
    said = refused("classify", "sentiment", "--input", source, "--output", tmp_path / "out.csv")
    assert said == f"{source}: line 3: has 1 column, expected 2 as in the header"
    assert not (tmp_path / "out.csv").exists()
    source = write(tmp_path / "in.jsonl", '{"text": "good"}\n{"text": null}\n')
    said = refused("classify", "sentiment", "--input", source)
    assert said == f"{source}: line 2: column 'text' is null, expected a text"


def test_text_that_is_refused_is_told_with_its_place(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    source = write(tmp_path / "in.txt", "good\nthe film is good good\n")
    said = refused(
        "classify", "sentiment", "--input", source, "--max-length", "5", "--long-text", "error"
    )
    assert said.startswith(f"{source}: line 2: the text has 7 tokens, expected at most 5; shorten")
    said = refused("fill-mask", "words", "--input", source)
    assert said.startswith(f"{source}: line 1: the text has no [MASK]")
    said = refused("score", "likeness", "--input", source)
    assert said.startswith(f"{source}: line 1: the model takes pairs of texts")


def test_output_that_exists_is_kept_unless_it_may_be_replaced(
    run: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    source, output = write(tmp_path / "in.txt", "good\n"), write(tmp_path / "out.csv", "mine")
    args = ("classify", "sentiment", "--input", source, "--output", output)
    assert refused(*args) == f"{output}: exists; --overwrite replaces it"
    assert output.read_text() == "mine"
    assert run(*args, "--overwrite").code == 0
    assert table(output)[0]["label"] == "pos"


def test_cut_rows_are_counted(run: Callable[..., Outcome], tmp_path: Path) -> None:
    source = write(tmp_path / "in.txt", "good\nthe film is good good\n")
    done = run("classify", "sentiment", "--input", source, "--max-length", "5")
    assert [each["truncated"] for each in lines(done)] == [False, True]
    assert "minibert: 1 of 2 were longer than the model reads at once" in done.err


def test_numbers_have_the_digits_of_a_float32() -> None:
    assert number(0.1234567891) == 0.1234568
    assert number(12345.6789) == 12345.68
    assert number(1e-12) == 1e-12
    assert number(-0.0) == 0
