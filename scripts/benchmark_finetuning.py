"""Workload W6 of `benchmark.py`: fine-tuning on sst2 beside the Trainer of transformers.

The same sentences, encoder, batch size, schedule, weight decay, clipping and dropout; the batches
are those that each library makes by itself.  Every run is a process of its own, which loads,
prepares its data, trains, and is asked for the test accuracy at the end.  The clock starts when the
first update is done, so that neither loading nor warming up is counted; the peak of memory is that
of the process when the last one is done.
"""

import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmark_process import installed
from benchmark_report import ratios, told

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32
RATE, WARMUP, DECAY, MAX_LENGTH = 1e-4, 0.1, 0.01, 128

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

Row = tuple[str, int]


class Clock:
    """Seconds of wall and of all threads, from the end of the first update to that of the last."""

    def __init__(self) -> None:
        self.n_updates = 0

    def tick(self) -> None:
        """An update is done."""
        now = time.perf_counter(), time.process_time()
        if not self.n_updates:
            self.start = now
        self.n_updates += 1
        self.end = now
        self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def figures(self, n_examples: int) -> dict[str, float]:
        """What was measured, where the first batch was a full one."""
        wall, cpu = (end - start for start, end in zip(self.start, self.end, strict=True))
        counted = n_examples - BATCH
        return {
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "examples_per_second": counted / wall,
            "peak_bytes": self.peak_bytes,
        }


def train_minibert(task: dict[str, Any]) -> tuple[Clock, float]:
    """Train by minibert; the clock, and the test accuracy."""
    from minibert.training.loop import Observer, StepRecord, Trainer
    from minibert.training.run import train
    from minibert.training.run_config import RunConfig

    clock = Clock()

    class Ticks(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            clock.tick()

    def rows(part: str) -> list[dict[str, Any]]:
        return [{"text": text, "label": label} for text, label in task[part]]

    with tempfile.TemporaryDirectory() as place:
        outcome = train(
            RunConfig.from_dict(
                {
                    "task": "binary",
                    "model": task["folder"],
                    "output": str(Path(place) / "run"),
                    "data": {
                        "train": rows("train"),
                        "test": rows("test"),
                        "max_length": MAX_LENGTH,
                    },
                    "training": {
                        "epochs": task["epochs"],
                        "batch_size": BATCH,
                        "precision": task["precision"],
                        "seed": task["seed"],
                        "device": "cpu",
                    },
                    "optimizer": {"learning_rate": RATE, "weight_decay": DECAY},
                    "schedule": {"warmup_fraction": WARMUP},
                }
            ),
            observers=(Ticks(),),
            show_progress_bar=False,
        )
    assert outcome.test is not None
    return clock, outcome.test.figures["accuracy"]


def train_transformers(task: dict[str, Any]) -> tuple[Clock, float]:
    """Train by the Trainer of transformers; the clock, and the test accuracy."""
    from transformers import (
        AutoTokenizer,
        BertForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    clock = Clock()

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *about: Any, **more: Any) -> None:
            clock.tick()

    tokenizer = AutoTokenizer.from_pretrained(task["folder"])

    def encoded(part: str) -> list[dict[str, Any]]:
        texts, labels = zip(*task[part], strict=True)
        found = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)
        columns = zip(found["input_ids"], found["attention_mask"], labels, strict=True)
        return [{"input_ids": i, "attention_mask": m, "labels": y} for i, m, y in columns]

    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(
            model=BertForSequenceClassification.from_pretrained(task["folder"], num_labels=2),
            args=TrainingArguments(
                output_dir=place,
                num_train_epochs=task["epochs"],
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=64,
                learning_rate=RATE,
                warmup_steps=WARMUP,  # below 1 it is a share
                weight_decay=DECAY,
                bf16=task["precision"] == "bf16",
                use_cpu=True,
                seed=task["seed"],
                save_strategy="no",
                logging_steps=100_000,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=encoded("train"),
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[Ticks()],
        )
        trainer.train()
        prediction = trainer.predict(encoded("test"))
    return clock, float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())


class Peer(NamedTuple):
    """A library: what trains by it, and the packages whose versions stand beside its figures."""

    train: Callable[[dict[str, Any]], tuple[Clock, float]]
    packages: tuple[str, ...]


PEERS = {
    "minibert": Peer(train_minibert, ("minibert", "torch")),
    "transformers": Peer(train_transformers, ("transformers", "accelerate", "torch")),
}
CONTENDERS = (
    ("minibert", "bf16"),
    ("minibert", "fp32"),
    ("transformers", "bf16"),
    ("transformers", "fp32"),
)


def measure_doctor(folder: Path, data: Path, *, updates: int) -> None:
    """What the doctor takes of the time of training on sst2, and where."""
    from minibert.training.checkup import Checkup
    from minibert.training.loop import Observer, Trainer
    from minibert.training.preflight import preflight
    from minibert.training.run import set_up
    from minibert.training.run_config import RunConfig

    train = random.Random(0).sample(sst2(data, "train"), updates * BATCH)
    rows = [{"text": text, "label": label} for text, label in train]
    run = RunConfig.from_dict(
        {
            "task": "binary", "model": str(folder),
            "data": {"train": rows, "max_length": MAX_LENGTH},
            "training": {"epochs": 1.0, "batch_size": BATCH, "device": "cpu"},
            "optimizer": {"learning_rate": RATE, "weight_decay": DECAY},
        }
    )  # fmt: skip
    setup = set_up(run, folder, None)
    start = time.perf_counter()
    preflight(run, setup.data, setup.tokenizer)
    seconds_before = time.perf_counter() - start
    checkup = Checkup(setup.trainer, setup.task, None, folder=None, say=lambda line: None)
    seconds = {"after_loss": 0.0, "before_update": 0.0}

    class Timed(Observer):
        """Passes on what the doctor is told, and takes the time."""

        def after_loss(self, trainer: Trainer, *told: Any) -> None:
            start = time.perf_counter()
            checkup.after_loss(trainer, *told)
            seconds["after_loss"] += time.perf_counter() - start

        def before_update(self, trainer: Trainer) -> None:
            start = time.perf_counter()
            checkup.before_update(trainer)
            seconds["before_update"] += time.perf_counter() - start

    setup.trainer.observers = (Timed(),)
    start = time.perf_counter()
    setup.trainer.run()
    total = time.perf_counter() - start
    share = sum(seconds.values()) / total
    print(
        f"{updates} updates in {total:.1f} s, of which the doctor took {share:.2%} "
        f"({1e3 * sum(seconds.values()) / updates:.2f} ms an update); {seconds_before:.2f} s "
        "before the first"
    )


def compare_finetuning(
    folder: Path,
    data: Path,
    *,
    updates: int,
    epochs: float | None,
    rounds: int,
    pythons: dict[str, str],
    env: dict[str, str],
) -> None:
    """Interleaved rounds of all contenders, and their table.

    Args:
        folder: of the encoder.
        data: with the folder sst2.
        updates: of a run, on a sample of the training sentences that is drawn once.
        epochs: of a run on all of them, in place of `updates`.
        pythons: the interpreters of peers that have an environment of their own.
    """
    train, test = sst2(data, "train"), sst2(data, "test")
    if epochs is None:
        train = random.Random(0).sample(train, min(len(train), updates * BATCH))
    task = {"folder": str(folder), "train": train, "test": test, "epochs": epochs or 1.0}
    print(f"{len(train):,} sentences, {task['epochs']:g} epochs, batches of {BATCH}\n")
    from minibert.engine import load_kernels
    from minibert.kernels.build import KernelsUnavailableError

    # A run this short would not compile them, and the next one find those of another.
    with contextlib.suppress(KernelsUnavailableError):
        load_kernels()
    results: dict[tuple[str, str], list[dict[str, Any]]] = {each: [] for each in CONTENDERS}
    for number in range(rounds):
        for turn in range(len(CONTENDERS)):  # each round begins with another one
            library, precision = CONTENDERS[(turn + number) % len(CONTENDERS)]
            python = pythons.get(library, sys.executable)
            settings = {**task, "library": library, "precision": precision, "seed": number}
            result = run_alone(python, settings, env)
            results[library, precision].append(result)
            print(
                f"round {number + 1}/{rounds} {library} {precision}: "
                f"{result['examples_per_second']:.0f} examples/s, "
                f"{result['peak_bytes'] / 1e6:.0f} MB, accuracy {result['accuracy']:.4f}",
                file=sys.stderr,
                flush=True,
            )
    _print_table(results)


def _print_table(results: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Speed and memory, each beside those of the Trainer in the same precision and round."""
    print("| | examples/s | of the Trainer's | CPU time | peak memory | of it | test accuracy |")
    print("|---|---|---|---|---|---|---|")
    for (library, precision), found in results.items():
        peer = results["transformers", precision]

        def column(name: str, rows: Sequence[dict[str, Any]]) -> list[float]:
            return [row[name] for row in rows]

        def beside(
            name: str,
            rows: Sequence[dict[str, Any]] = found,
            others: Sequence[dict[str, Any]] = peer,
        ) -> str:
            return told(ratios(column(name, rows), column(name, others)))

        speed = statistics.median(column("examples_per_second", found))
        peak = statistics.median(column("peak_bytes", found)) / 1e6
        accuracy = statistics.mean(column("accuracy", found))
        print(
            f"| {library} {precision} | {speed:.0f} | {beside('examples_per_second')} "
            f"| {beside('cpu_seconds')} | {peak:.0f} MB | {beside('peak_bytes')} "
            f"| {accuracy:.4f} |"
        )
    print()
    for (library, precision), found in results.items():
        if precision == "bf16":
            versions = ", ".join(f"{name} {v}" for name, v in found[0]["versions"].items())
            print(f"{library}: {versions}")


def sst2(data: Path, part: str) -> list[Row]:
    """The sentences of a part, with 1 for positive."""
    with (data / "sst2" / f"stsa.binary.{part}").open(encoding="utf-8") as file:
        return [(line[2:].strip(), int(line[0])) for line in file]


def run_alone(python: str, settings: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    """Train in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "settings.json"
        path.write_text(json.dumps(settings))
        done = subprocess.run(
            [python, __file__, str(path)],
            env={**env, "PYTHONPATH": str(ROOT), **QUIET},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        answer = path.with_suffix(".answer")
        if done.returncode or not answer.exists():
            raise SystemExit(
                f"error: {settings['library']} ended with exit status {done.returncode}; is it "
                f"installed in this environment? --python {settings['library']}=PATH names another"
            )
        found: dict[str, Any] = json.loads(answer.read_text())
    return found


def main() -> None:
    """What a contender's process does."""
    import torch

    path = Path(sys.argv[1])
    task = json.loads(path.read_text())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    peer = PEERS[task["library"]]
    clock, accuracy = peer.train(task)
    figures = clock.figures(round(task["epochs"] * len(task["train"])))
    answer = {**figures, "accuracy": accuracy, "versions": installed(peer.packages)}
    path.with_suffix(".answer").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
