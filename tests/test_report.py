"""The page about a run: what is read from its folder, what is drawn, and what is left out."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from report_folders import FINDINGS, PARTS, log_lines, looks, made_run, write
from small_runs import row_of, run_of, save_encoder

from minibert import cli
from minibert.doctor.findings import finding
from minibert.errors import RunError, TrainingError
from minibert.training import report_page, run
from minibert.training.examples import Batch, Examples
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.metrics import Report
from minibert.training.report import Examined, RunReport, read_report
from minibert.training.report_page import heat_map, page, panels, settings, verdict, write_report
from minibert.training.run_config import RunConfig
from minibert.training.text_task import TextTask, text_task
from minibert.training.worst import examples_values, most_frequent, worst_answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder that a test may spoil."""
    return made_run(tmp_path / "run")


def changed(path: Path, **values: Any) -> None:
    write(path, {**json.loads(path.read_text()), **values})


def data_of(text: str) -> Any:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</', text)[1])


def panel_of(report: RunReport, title: str) -> report_page.Panel:
    (found,) = [each for each in panels(report) if each.title == title]
    return found


# ---- what a folder says


def test_findings_are_read_root_causes_first(folder: Path) -> None:
    report = read_report(folder)
    assert report.doctor is not None
    names = [each.name for each in report.doctor.findings]
    assert names == ["labels-do-not-fit", "rate-too-high", "classes-unequal"]
    assert [report.n_findings(each) for each in ("error", "warning", "info")] == [1, 1, 1]
    high = report.doctor.findings[1]
    assert high.settings == (("optimizer.learning_rate", "2e-05"),)
    assert (high.step, high.remedy) == (40, FINDINGS[1].entry.remedy)


def test_findings_that_are_known_no_more_come_last(own: Path) -> None:
    found = [each.to_dict() for each in FINDINGS]
    odd = {**found[0], "name": "of another version", "severity": "dire"}
    changed(own / "doctor.json", findings=[odd, *found])
    report = read_report(own)
    assert report.doctor is not None
    assert report.doctor.findings[-1].name == "of another version"
    assert "dire" in page(report)


def test_verdict_is_how_far_it_came_and_how_good_it_is(own: Path) -> None:
    report = read_report(own)
    assert report.best == (80, 0.8)
    assert verdict(report) == (
        "It ended after update 100 of 100, with macro F1 0.8 at update 80, the best of 5 "
        "evaluations."
    )
    assert "early after update 100 of 120" in verdict(replace(report, total=120))
    stopped = replace(report, results=None, total=120)
    assert verdict(stopped).startswith("It has not ended: 100 of 120 updates are done, with")
    (own / "log.jsonl").write_text("")  # of a run that takes the place of this one
    assert verdict(read_report(own)) == "It has no update yet."
    (own / "log.jsonl").unlink()
    assert verdict(read_report(own)) == "It ended."
    (own / "results.json").unlink()
    assert verdict(read_report(own)) == "How far it came is not known."


def test_results_of_an_earlier_run_are_not_taken_for_its_own(own: Path) -> None:
    lines = [line for line in log_lines(100, every=20) if line["step"] <= 60]
    (own / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = read_report(own)
    assert report.results is None
    assert report.examples is None
    assert report.missing["results.json"] == "it is about an earlier run in this folder"
    text = page(report)
    assert "Figures of the saved model" not in text
    assert "the run has no results yet" in text
    # Nor where the same update was evaluated, and found to be worth something else.
    changed(own / "results.json", best_step=60, validation={"macro_f1": 0.2})
    assert read_report(own).results is None
    changed(own / "results.json", validation={"macro_f1": 0.75})
    assert read_report(own).results is not None


def test_results_without_validation_are_those_of_the_end(own: Path) -> None:
    changed(own / "results.json", best_step=0, test={"accuracy": 0.5})
    values = json.loads((own / "results.json").read_text())
    write(own / "results.json", {name: values[name] for name in ("best_step", "test")})
    assert read_report(own).results is not None
    changed(own / "run.json", updates=200)
    assert read_report(own).results is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("log.jsonl", "There are no curves"),
        ("doctor.json", "What the doctor found is not known"),
        ("results.json", "There is no confusion matrix"),
        ("examples.json", "There are no examples"),
    ],
)
@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"findings": [', b"[]\n", b"null\n", b'"a"\n', b"{}\n", b"\xff\n", b"9" * 5000],
    ids=["missing", "empty", "torn", "list", "null", "text", "bare", "no-utf-8", "huge-number"],
)
def test_file_that_is_missing_or_torn_leaves_its_section_out(
    own: Path, name: str, sentence: str, content: bytes | None
) -> None:
    (own / name).unlink()
    if content is not None:
        (own / name).write_bytes(content)
    text = page(read_report(own))
    assert f'data-missing="{"examples.json" if name == "results.json" else name}"' in text
    assert sentence in text
    why = {"results.json": "the run has no results yet"}.get(name)
    if why is None and name != "log.jsonl":
        why = "it is not there" if content is None else "it cannot be read"
    assert why is None or why in text
    others = {"Curves", "Findings", "Confusions", "Worst answers", "Data", "Settings"}
    assert others <= set(re.findall(r"<h2>(.*?)</h2>", text))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("doctor.json", {"findings": [{"name": "x"}]}),
        ("doctor.json", {"looks": [{"step": 1, "gradients": {"head": "steep"}}]}),
        ("doctor.json", {"facts": ["a"]}),
        ("examples.json", {"confusion": {"labels": ["a"], "counts": [], "others": [],
                                         "n_labels": 1}}),
        ("examples.json", {"worst": [{"text": "a"}]}),
        ("results.json", {"best_step": "soon"}),
    ],
)  # fmt: skip
def test_file_with_other_values_leaves_its_section_out(
    own: Path, name: str, values: Mapping[str, Any]
) -> None:
    changed(own / name, **values)
    report = read_report(own)
    assert report.missing[name].startswith("it cannot be read: ")
    page(report)


def test_log_with_other_values_is_left_out(own: Path) -> None:
    lines = log_lines(5, every=2)
    (own / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines)
                                   + json.dumps({**lines[0], "loss": "small"}) + "\n")  # fmt: skip
    assert read_report(own).missing["log.jsonl"] == (
        "it cannot be read: loss is 'small', expected a number"
    )


def test_line_that_is_being_written_is_waited_for(own: Path) -> None:
    with (own / "log.jsonl").open("a") as file:
        file.write('{"step": 101, "epo')
    assert read_report(own).log.step == 100


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run, expected the output folder of minibert trai"):
        write_report(tmp_path)


def test_page_that_cannot_be_written_is_refused(own: Path) -> None:
    (own / "report.html").mkdir()
    with pytest.raises(RunError, match=r"report\.html: cannot be written"):
        write_report(own)


# ---- the page


def test_page_says_what_there_is_in_the_order_of_its_worth(folder: Path) -> None:
    text = page(read_report(folder))
    for each in FINDINGS:
        assert each.entry.title in text
        assert each.entry.why.split("'")[0] in text
    assert "optimizer.learning_rate = 2e-05" in text
    order = ["1 error", "1 warning", "1 note", "<h2>Findings", "labels do not fit", "<h2>Curves",
             "<h2>Gradients", "<h2>Figures", "<h2>Confusions", "<h2>Worst", "<h2>Data",
             "<h2>Settings"]  # fmt: skip
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert "undefined" in text  # the area under a curve that there is none of
    assert "train.csv: line 7" in text


def test_hostile_text_is_text_and_nothing_is_fetched(folder: Path) -> None:
    text = page(read_report(folder))
    assert "<img" not in text
    assert "{{ 7*7 }}" in text
    assert "&lt;/script&gt;&lt;img src=x" in text
    assert text.count("</script>") == 2  # the data's and the script's own
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=[\"']?(https?:|//|/)", text)
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", text)


def test_settings_that_differ_stand_apart_from_the_defaults() -> None:
    config = run_of("binary", training={"epochs": 7}, head={"dropout": 0.3})
    differing = {key: (value, default) for key, value, default in settings(config, changed=True)}
    assert differing["training.epochs"] == ("7", "3")
    assert differing["head.dropout"] == ("0.3", "–")
    assert differing["task"] == ('"binary"', "–")
    same = {key for key, *_ in settings(config, changed=False)}
    assert "training.seed" in same
    assert not same & differing.keys()


# ---- curves


def test_curves_hold_the_figures_of_the_log(folder: Path) -> None:
    report = read_report(folder)
    titles = [each.title for each in panels(report)]
    assert titles == ["Loss", "Validation", "Learning rate", "Gradient norm"]
    loss, norm = panel_of(report, "Loss"), panel_of(report, "Gradient norm")
    known = [line for line in log_lines(100, every=20) if "loss" in line]
    assert [line.kind for line in loss.lines] == ["faint", "line", "points"]
    assert loss.lines[0].y == pytest.approx([line["loss"] for line in known], rel=1e-4)
    assert loss.lines[1].y[49] == pytest.approx(
        sum(line["loss"] for line in known[47:52]) / 5, rel=1e-4
    )
    assert loss.lines[2].x == [20, 40, 60, 80, 100]
    assert norm.rule == ("clipped to", 1.0)
    shown = panel_of(report, "Validation")
    assert [line.label for line in shown.lines] == ["macro F1", "accuracy"]
    assert shown.star == (80, 0.8)
    assert data_of(page(report))["epochs"] == [51]


def test_losses_that_are_no_number_are_counted_and_left_out(own: Path) -> None:
    lines = log_lines(10, every=5)
    for line in lines[2:4]:
        line["loss"] = line["grad_norm"] = None
    lines[4]["loss"] = math.nan  # as other programs write it
    (own / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = read_report(own)
    text = page(report)
    assert "2 of 10 updates had a loss that is\nno number" in text
    assert panel_of(report, "Loss").lines[0].x == [1, 2, 6, 7, 8, 9, 10]
    data_of(text)


@pytest.mark.slow
def test_long_run_gives_a_small_page_that_keeps_its_extremes(tmp_path: Path) -> None:
    n = 100_000
    folder = made_run(tmp_path / "run", n=n, every=500)
    lines = log_lines(n, every=500)
    lines[70_007]["loss"], lines[30_007]["loss"] = 77.0, 0.001
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = write_report(folder)
    assert path.stat().st_size < 1_000_000
    report = read_report(folder)
    faint = panel_of(report, "Loss").lines[0]
    assert len(faint.x) <= 2100
    assert (max(faint.y), min(faint.y)) == (77.0, 0.001)
    assert report.doctor is not None
    found = heat_map(report.doctor)
    assert found is not None
    assert len(found["first"]) <= 240
    assert (found["first"][0], found["last"][-1]) == (1, 99_996)


# ---- gradients


def test_map_of_gradients_has_parts_in_the_order_of_the_network() -> None:
    norms = {"head": 2.0, "layer 10": 1.0, "layer 2": 0.5, "pooler": 3.0}
    late = {**norms, "embeddings": 0.0, "layer 2": math.nan}
    doctor = Examined(findings=(), facts=(), looks=((1, norms), (5, late)))
    found = heat_map(doctor)
    assert found is not None
    assert found["parts"] == ["embeddings", "layer 2", "layer 10", "head", "pooler"]
    assert found["low"] == found["high"] == [[None, 0.0], [0.5, None], [1, 1], [2, 2], [3, 3]]
    assert found["broken"] == [(1, 1)]
    assert found["range"] == (0.5, 3.0)
    assert heat_map(Examined(findings=(), facts=(), looks=())) is None


def test_map_of_gradients_keeps_the_extremes_of_each_column() -> None:
    norms = [(step, {"head": 1.0 + step % 7}) for step in range(1000)]
    norms[503] = (503, {"head": 1e6})
    found = heat_map(Examined(findings=(), facts=(), looks=tuple(norms)))
    assert found is not None
    assert len(found["first"]) == 200  # of five looks each
    assert found["high"][0][100] == 1e6
    assert found["low"][0][100] == min(1.0 + step % 7 for step in (500, 501, 502, 504))
    assert (found["first"][100], found["last"][100]) == (500, 504)


def test_looks_are_those_of_the_doctor(folder: Path) -> None:
    report = read_report(folder)
    assert report.doctor is not None
    assert report.doctor.parts == list(PARTS)
    found = heat_map(report.doctor)
    assert found is not None
    assert found["first"] == [look["step"] for look in looks(100)]


# ---- examples


def task_of(name: str, labels: tuple[str, ...], targets: list[Any], **tables: Any) -> TextTask:
    return text_task(run_of(name, **tables), labels, targets)


def answers(
    task: TextTask,
    labels: tuple[str, ...],
    targets: list[Any],
    logits: list[Any],
    *,
    texts: list[int] | None = None,
    n: int = 20,
) -> list[Any]:
    """The worst of examples whose logits are given, a text or a window each, batched backwards."""
    windows = texts or []
    examples = Examples(
        [[2, 5, 3]] * len(targets), [[0, 0, 0]] * len(targets), targets, 1, windows,
        [0] * len(windows),
    )  # fmt: skip
    order = tuple(reversed(range(len(targets))))
    batch = Batch(*[torch.empty(0)] * 2, None, torch.empty(0), order)  # type: ignore[arg-type]
    found = {"logits": torch.tensor([logits[i] for i in order], dtype=torch.float)}
    n_texts = len(examples.windows)
    rows = [row_of(i, a=f"text {i}", b=f"more {i}") for i in range(n_texts)]
    return worst_answers(task, labels, examples, [(batch, found)], rows, ["a", "b"], n=n)


def test_worst_answers_of_classes_are_those_with_the_least_probable_label() -> None:
    task = task_of("multiclass", ("x", "y", "z"), [0, 1, 2])
    logits = [[0.0, 0.0, 0.0], [math.log(8), 0.0, 0.0], [0.0, 0.0, 5.0]]
    first, second = answers(task, ("x", "y", "z"), [0, 1, 2], logits, n=2)
    assert (first.label, first.answer, first.place) == ("y", "x", "row 1")
    assert first.probability == pytest.approx(0.8)
    assert first.loss == pytest.approx(math.log(10))
    assert first.text == "text 1\nmore 1"
    assert second.loss == pytest.approx(math.log(3))


def test_worst_answers_of_one_logit_name_absence_and_presence() -> None:
    task = task_of("binary", ("no", "yes"), [0, 1], head={"num_labels": 1})
    first, second = answers(task, ("no", "yes"), [1.0, 1.0], [-math.log(4), 2.0])
    assert (first.label, first.answer) == ("yes", "no")
    assert first.probability == pytest.approx(0.8)
    assert first.loss == pytest.approx(math.log(5))
    assert second.answer == "yes"


def test_worst_answers_of_several_labels_list_their_probabilities() -> None:
    task = task_of("multilabel", ("x", "y"), [[1.0, 0.0]])
    first, second = answers(
        task, ("x", "y"), [[0.0, 0.0], [1.0, 1.0]], [[0.0, math.log(3)], [-9.0, -9.0]]
    )
    assert (first.label, first.answer, first.probability) == ("x, y", "none", None)
    assert first.loss == pytest.approx(9.0, abs=1e-3)
    assert (second.label, second.answer) == ("none", "y 0.75")


def test_worst_answers_of_numbers_are_the_farthest() -> None:
    task = task_of("regression", (), [1.0, 3.0])  # of mean 2 and spread 1
    first, second = answers(task, (), [1.0, 3.0], [1.5, 5.0])
    assert (first.label, first.answer, first.probability) == ("3", "5", None)
    assert (first.loss, second.loss) == (4.0, 0.25)


def test_windows_of_a_text_are_one_answer() -> None:
    task = task_of("multiclass", ("x", "y"), [0, 1])
    found = answers(task, ("x", "y"), [0, 0, 1], [[0.0, 2.0], [0.0, 4.0], [0.0, 9.0]],
                    texts=[0, 0, 1])  # fmt: skip
    assert [each.label for each in found] == ["x", "y"]
    assert found[0].loss == pytest.approx(math.log(1 + math.exp(3)))


def test_confusions_of_many_labels_are_those_of_the_most_frequent() -> None:
    names = [f"label {i}" for i in range(40)]
    counts = [[i if i == j else 1 for j in range(40)] for i in range(40)]
    found = most_frequent(names, counts)
    assert found.labels == tuple(names[10:])
    assert found.n_labels == 40
    assert found.counts[0][:2] == (10, 1)
    assert set(found.others) == {10}  # answers that are none of them
    few = most_frequent(["a", "b"], [[1, 2], [3, 4]])
    assert (few.labels, few.counts, few.others) == (("a", "b"), ((1, 2), (3, 4)), (0, 0))


def test_page_shows_thirty_labels_and_the_others(own: Path) -> None:
    names = tuple(f"label {i}" for i in range(40))
    report = Report({}, 1, labels=names, confusion=[[1] * 40] * 40)
    write(own / "examples.json", examples_values(report, []))
    text = page(read_report(own))
    assert "30 most frequent of 40 labels" in text
    table = text[text.index('<table id="confusion">') :].split("</table>")[0]
    assert table.count("<tr>") == 31
    assert table.count("<td") == 30 * 31
    assert ">others<" in table


# ---- written by training, and by the command


def tiny(tmp_path: Path, task: str = "binary", **tables: Any) -> RunConfig:
    words = ["good", "fine", "bad", "poor", "odd"]
    labels = {"binary": ["pos", "neg"], "regression": [1.0, 2.0]}[task]
    rows = [{"text": f"{words[i % 5]} film", "label": labels[i % 2]} for i in range(20)]
    values = {
        "task": task, "model": str(save_encoder(tmp_path / "encoder")), "output": "run",
        "data": {"train": rows, "validation": rows[:10], "max_length": 8},
        "training": {"epochs": 1, "batch_size": 4, "evaluate_every": 2, "save_every": 2}, **tables,
    }  # fmt: skip
    return RunConfig.from_dict(values, folder=tmp_path)


def test_run_leaves_its_report_and_examples(tmp_path: Path) -> None:
    outcome = run.train(tiny(tmp_path))
    folder = tmp_path / "run"
    report = read_report(folder)
    assert report.missing == {}
    assert (report.metric, report.total, report.log.step) == ("macro_f1", 5, 5)
    assert report.examples is not None
    assert report.examples.confusion is not None
    assert outcome.validation is not None
    assert [list(row) for row in report.examples.confusion.counts] == outcome.validation.confusion
    worst = report.examples.worst
    assert len(worst) == 10
    assert [each.loss for each in worst] == sorted((each.loss for each in worst), reverse=True)
    assert all(each.text.endswith(" film") for each in worst)
    wrong = sum(each.label != each.answer for each in worst)
    assert wrong == round(10 * (1 - outcome.validation.figures["accuracy"]))
    assert (folder / "report.html").read_text(encoding="utf-8") == page(report)


def test_numbers_have_examples_and_no_confusion(tmp_path: Path) -> None:
    run.train(tiny(tmp_path, "regression"))
    report = read_report(tmp_path / "run")
    assert report.examples is not None
    assert report.examples.confusion is None
    first = report.examples.worst[0]
    assert first.loss == pytest.approx(
        ((float(first.answer) - float(first.label)) / 0.5) ** 2, 0.01
    )


class At(Observer):
    """Does something after an update."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == self.step:
            self.act(trainer)


def test_run_that_is_stopped_leaves_its_report(tmp_path: Path) -> None:
    stop = At(3, lambda trainer: setattr(trainer, "stopping", True))
    assert not run.train(tiny(tmp_path), observers=[stop]).finished
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "It has not ended: 3 of 5 updates are done" in text
    assert not (tmp_path / "run" / "examples.json").exists()


def test_run_that_the_doctor_ends_leaves_what_it_found(tmp_path: Path) -> None:
    grave = finding("rate-too-high", "the loss went up")

    def find(trainer: Trainer) -> None:
        trainer.observers[4].doctor.add([grave])  # type: ignore[attr-defined]

    with pytest.raises(TrainingError, match="stopped by the doctor at update 3"):
        run.train(tiny(tmp_path), observers=[At(3, find)], stop_on="error")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert grave.entry.title in text
    assert "the loss went up" in text


def test_run_that_the_doctor_does_not_begin_leaves_what_it_found(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="stopped by the doctor at update 0"):
        run.train(tiny(tmp_path), stop_on="warning")  # its texts have several labels each
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "It has no update yet" in text
    assert "equal texts have different labels" in text


def test_report_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise OSError("no\nroom")

    monkeypatch.setattr(run, "write_report", fail)
    assert run.train(tiny(tmp_path)).finished
    err = capfd.readouterr().err
    assert "run: the report was not written: OSError: no room; the run does not need it" in err
    assert (tmp_path / "run" / "results.json").exists()


def test_run_that_begins_anew_takes_leave_of_the_report_before(tmp_path: Path) -> None:
    run.train(tiny(tmp_path))

    def kill(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(tiny(tmp_path), overwrite=True, observers=[At(1, kill)])
    assert not (tmp_path / "run" / "report.html").exists()
    assert read_report(tmp_path / "run").results is None  # which are the earlier run's


def test_command_writes_the_page_anew(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(own)]) == 0
    path = own / "report.html"
    assert capfd.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n"
    assert cli.main(["report", str(own.parent)]) == 2
    assert "holds no run, expected the output folder of minibert train" in capfd.readouterr().err
    path.unlink()
    path.mkdir()
    assert cli.main(["report", str(own)]) == 2
    assert "report.html: cannot be written" in capfd.readouterr().err
