"""Pretrains a small BERT from nothing, and compares it with counts of words and their neighbours.

    python scripts/pretrain_small.py --data FOLDER [--minutes 15] [--work build/pretraining]

Of the books and articles of FOLDER/gutenberg and FOLDER/wikitext2 the last twentieth of each file
is held out.  A vocabulary of 8,000 is learnt of the rest, and a network of 4 layers, 256 wide, is
trained for masked words as `minibert train` does: WORK holds the texts and the run file, run.toml,
which that command follows too.  How many epochs fit into the minutes is measured first.

On the held-out text the network is compared with three models of the same training tokens, on the
same masked positions and over the same vocabulary, in nats a token:

    unigram           how frequent a word is
    left neighbour    what follows the word on the left, as it stands in the masked text
    both neighbours   that, and what goes before the word on the right: P(w|l) P(w|r) / P(w)

A neighbour that is masked says nothing.  Counts are smoothed towards the unigram model, and how
much is chosen on the held-out text itself, in favour of the counts.

Writes pretraining.json and pretraining.png to DOCS; --draw makes the picture of a file that is
there.
"""

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from minibert.checkpoint import Pretrained
from minibert.files import replacing
from minibert.tokenizer import Tokenizer
from minibert.training.dataset import Dataset, read_dataset
from minibert.training.examples import Examples, each_batch
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.losses import IGNORED
from minibert.training.masked_lm_task import MaskedLMTask, masked_lm_task
from minibert.training.run import train
from minibert.training.run_config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "gutenberg/alice_11-0.txt": "utf-8-sig",
    "gutenberg/pride_and_prejudice_1342-0.txt": "utf-8-sig",
    "gutenberg/sherlock_holmes_1661-8.txt": "latin-1",
    "wikitext2/valid.txt": "utf-8",
    "wikitext2/test.txt": "utf-8",
}
HELD_OUT = 0.05  # of each file
N_EVALUATIONS = 12
PROBE_UPDATES = 30
SPARED = 0.9  # of the time that is left is planned with
ALPHAS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

RUN = """\
task = "masked_lm"
model = "new"
output = "{output}"

[data]
train = "train.txt"
validation = "held-out.txt"
max_length = 32

[masking]
fraction = 0.3

[network]
positions = "sinusoidal"
vocab_size = 8000
hidden_size = 256
num_hidden_layers = 4
num_attention_heads = 4
intermediate_size = 1024
max_position_embeddings = 128

[training]
epochs = {epochs}
batch_size = 32
dropout = 0.0
evaluate_every = {evaluate_every}
save_every = {evaluate_every}

[optimizer]
learning_rate = 1e-3
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the public data sets")
    parser.add_argument("--minutes", type=float, default=15.0, help="all that it may take")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pretraining")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.draw:
        parser.error("--data is missing")
    results = arguments.docs / "pretraining.json"
    if not arguments.draw:
        found = measured(arguments.data, arguments.work, arguments.minutes)
        with replacing(results) as part:
            part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(results.read_text(encoding="utf-8"))
    print(table(found))
    draw(found, arguments.docs / "pretraining.png")


def measured(data: Path, work: Path, minutes: float) -> dict[str, Any]:
    """Train, compare, and say all that was found."""
    start = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    write_texts(data, work)
    probed = probe(work)
    left = SPARED * (60 * minutes - (time.monotonic() - start))
    n_updates = int((left - N_EVALUATIONS * probed.evaluation) / probed.update)
    if n_updates < N_EVALUATIONS:
        raise SystemExit(f"error: {minutes:g} minutes are too few here; give --minutes more")
    values = {
        "output": "run",
        "epochs": round(n_updates / probed.steps_per_epoch, 4),
        "evaluate_every": n_updates // N_EVALUATIONS,
    }
    (work / "run.toml").write_text(RUN.format(**values), encoding="utf-8")
    print(
        f"{probed.update:.3f} s an update, {probed.evaluation:.1f} s an evaluation: {n_updates:,} "
        f"updates, {values['epochs']:.2f} epochs"
    )
    run = RunConfig.from_file(work / "run.toml")
    curve = CurveOf(start)
    outcome = train(run, overwrite=True, observers=[curve])
    tokenizer = Tokenizer.from_pretrained(work / "run" / "model")
    dataset = read_dataset(run, tokenizer)
    assert dataset.validation is not None
    task = masked_lm_task(run, tokenizer, dataset.train)
    positions = judged_positions(task, outcome.model, dataset.validation)
    compared = comparison(Counts.of(dataset.train, tokenizer), positions, tokenizer.mask_id)
    return {
        **facts(run, dataset, outcome.model),
        "minutes_allowed": minutes,
        "minutes_taken": round((time.monotonic() - start) / 60, 2),
        "updates": n_updates,
        "curve": curve.points,
        "nats_per_token": compared,
    }


def facts(run: RunConfig, dataset: Dataset, model: Pretrained) -> dict[str, Any]:
    """What was trained, on what."""
    assert dataset.validation is not None
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
        "run": run.to_dict(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_tokens": sum(dataset.train.lengths),
        "held_out_tokens": sum(dataset.validation.lengths),
    }


# ---- texts


def write_texts(data: Path, work: Path) -> None:
    """train.txt and held-out.txt: a paragraph a line, an empty line between files."""
    sides: dict[str, list[str]] = {"train": [], "held-out": []}
    for name, encoding in SOURCES.items():
        text = (data / name).read_bytes().decode(encoding).replace("\r\n", "\n")
        found = articles(text) if name.startswith("wikitext2") else paragraphs(text)
        n_train = round((1 - HELD_OUT) * len(found))
        sides["train"] += [*found[:n_train], ""]
        sides["held-out"] += [*found[n_train:], ""]
    for side, lines in sides.items():
        (work / f"{side}.txt").write_text("\n".join(lines), encoding="utf-8")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a book of Project Gutenberg, without what stands before and behind it."""
    begin = text.index("\n", text.index("*** START OF"))
    book = text[begin : text.index("*** END OF")]
    return [" ".join(part.split()) for part in book.split("\n\n") if part.strip()]


def articles(text: str) -> list[str]:
    """The lines of wikitext, with the words that it left out as the token for them."""
    for marked, plain in ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), ("<unk>", "[UNK]")):
        text = text.replace(marked, plain)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


# ---- training


class CurveOf(Observer):
    """The figures of each evaluation, with the minutes since a start."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.points: list[dict[str, float]] = []
        self.n_tokens = 0

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.n_tokens += record.n_tokens

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self.points.append({
            "update": trainer.step,
            "minutes": round((time.monotonic() - self.start) / 60, 2),
            "tokens": self.n_tokens,
            "loss": round(metrics["loss"], 4),
            "perplexity": round(metrics["perplexity"], 2),
            "accuracy": round(metrics["accuracy"], 4),
        })  # fmt: skip


class Probe(Observer):
    """Ends training after an evaluation; how long that took, and each update before it."""

    def __init__(self) -> None:
        self.updates: list[float] = []
        self.evaluation = 0.0
        self._from = 0.0

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.updates.append(record.seconds)
        self._from = time.monotonic()

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self.evaluation = time.monotonic() - self._from
        self.steps_per_epoch = trainer.steps_per_epoch
        trainer.stopping = True


class Probed(NamedTuple):
    """Updates an epoch, and the seconds of an update and of an evaluation."""

    steps_per_epoch: int
    update: float
    evaluation: float


def probe(work: Path) -> Probed:
    """How fast this machine is: a run that ends with its first evaluation."""
    path = work / "probe.toml"
    values = {"output": "probe", "epochs": 1.0, "evaluate_every": PROBE_UPDATES}
    path.write_text(RUN.format(**values), encoding="utf-8")
    found = Probe()
    train(RunConfig.from_file(path), overwrite=True, observers=[found], show_progress_bar=False)
    path.unlink()
    shutil.rmtree(work / "probe")
    seconds = float(np.mean(found.updates[PROBE_UPDATES // 3 :]))
    return Probed(found.steps_per_epoch, seconds, found.evaluation)


# ---- models that count


Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Positions(NamedTuple):
    """Masked positions: the word that was there, what is shown there and on either side of it, and
    the network's loss."""

    wanted: Ints
    shown: Ints
    left: Ints
    right: Ints
    losses: Floats


@torch.no_grad()
def judged_positions(task: MaskedLMTask, model: Pretrained, examples: Examples) -> Positions:
    """What an evaluation looks at, word by word."""
    columns: list[list[Any]] = [[], [], [], [], []]
    for batch in each_batch(examples, 64, task.prepare):
        _, found = task.judged(model, batch)
        places = (batch.targets != IGNORED).nonzero()[:, 0]
        ids = batch.input_ids
        # No first and no last token of a sequence is masked, so neighbours are of the same one.
        for column, values in zip(
            columns,
            (batch.targets[places], ids[places], ids[places - 1], ids[places + 1], found["losses"]),
            strict=True,
        ):
            column.append(values.numpy())
    wanted, shown, left, right, losses = (np.concatenate(column) for column in columns)
    return Positions(wanted, shown, left, right, losses.astype(np.float64))


class Counts(NamedTuple):
    """How often each token of the vocabulary occurs, and each beside each."""

    words: Floats  # (vocab,)
    pairs: npt.NDArray[np.float32]  # (left, right)
    special: Ints

    @classmethod
    def of(cls, examples: Examples, tokenizer: Tokenizer) -> "Counts":
        n = tokenizer.vocab_size
        words, pairs = np.zeros(n), np.zeros((n, n), np.float32)
        for ids in examples.ids:
            row = np.asarray(ids)
            words += np.bincount(row, minlength=n)
            np.add.at(pairs, (row[:-1], row[1:]), 1)
        return cls(words, pairs, np.array(sorted(tokenizer.special_ids)))

    def unigram(self) -> Floats:
        """(count + 1) / (all + vocabulary), of the words that are ever masked."""
        smoothed = self.words + 1
        smoothed[self.special] = 0
        return smoothed / smoothed.sum()

    def beside(self, neighbours: Ints, *, on_left: bool) -> Floats:
        """How often each word is beside each of these neighbours: `(n, vocab)`."""
        rows = self.pairs[neighbours] if on_left else self.pairs[:, neighbours].T
        rows = rows.astype(np.float64)
        rows[:, self.special] = 0
        return rows


def comparison(counts: Counts, positions: Positions, mask_id: int) -> dict[str, Any]:
    """Nats a token of each model, over all positions and over those that show [MASK]."""
    hidden = positions.shown == mask_id
    losses = {"unigram": -np.log(counts.unigram()[positions.wanted])}
    alphas = {}
    for name, both in (("left neighbour", False), ("both neighbours", True)):
        found = losses_beside(counts, positions, mask_id, both=both)
        alphas[name] = min(found, key=lambda alpha: float(found[alpha].mean()))
        losses[name] = found[alphas[name]]
    losses["network"] = positions.losses
    return {
        "positions": len(hidden),
        "positions_that_show_mask": int(hidden.sum()),
        "alpha": alphas,
        "all": {name: round(float(each.mean()), 4) for name, each in losses.items()},
        "that_show_mask": {
            name: round(float(each[hidden].mean()), 4) for name, each in losses.items()
        },
    }


def losses_beside(
    counts: Counts, positions: Positions, mask_id: int, *, both: bool
) -> dict[float, Floats]:
    """By smoothing, the loss at each position of the model that sees the left neighbour, or both.

    P(w | a neighbour) = (count of both + α P(w)) / (count of the neighbour + α)
    """
    prior = counts.unigram()
    found: dict[float, list[Floats]] = {alpha: [] for alpha in ALPHAS}
    for part in _parts(len(positions.wanted)):
        sides = [(positions.left[part], True), (positions.right[part], False)]
        beside = [
            # Nothing is counted beside a mask, which leaves the unigram model.
            counts.beside(each, on_left=on_left) * (each != mask_id)[:, None]
            for each, on_left in sides[: 1 + both]
        ]
        wanted = positions.wanted[part]
        for alpha, losses in found.items():
            likely = [
                (rows + alpha * prior) / (rows.sum(axis=1, keepdims=True) + alpha)
                for rows in beside
            ]
            together = likely[0]
            if both:
                together = likely[0] * likely[1] / np.where(prior > 0, prior, 1)
                together /= together.sum(axis=1, keepdims=True)
            losses.append(-np.log(together[np.arange(len(wanted)), wanted]))
    return {alpha: np.concatenate(losses) for alpha, losses in found.items()}


def _parts(n: int, size: int = 512) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


# ---- what is shown


def table(found: Mapping[str, Any]) -> str:
    """The curve and the comparison, for the terminal."""
    lines = [
        f"{found['parameters']:,} parameters, {found['train_tokens']:,} tokens of train, "
        f"{found['minutes_taken']} of {found['minutes_allowed']:g} minutes",
        "",
        f"{'update':>8} {'minutes':>8} {'perplexity':>11} {'accuracy':>9}",
    ]
    lines += [
        f"{point['update']:>8} {point['minutes']:>8.2f} {point['perplexity']:>11.1f} "
        f"{point['accuracy']:>9.4f}"
        for point in found["curve"]
    ]
    compared = found["nats_per_token"]
    lines += [
        "",
        f"nats a token on {compared['positions']:,} masked positions of the held-out text, and on "
        f"the {compared['positions_that_show_mask']:,} that show [MASK]",
    ]
    lines += [
        f"{name:<16} {compared['all'][name]:>7.3f} {compared['that_show_mask'][name]:>7.3f}"
        for name in compared["all"]
    ]
    return "\n".join(lines)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Perplexity over the minutes, and that of the models that count."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points: Sequence[Mapping[str, float]] = found["curve"]
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    minutes = [point["minutes"] for point in points]
    axes.plot(minutes, [point["perplexity"] for point in points], marker="o", label="network")
    models = [name for name in found["nats_per_token"]["all"] if name != "network"]
    for name, style in zip(models, (":", "--", "-."), strict=True):
        perplexity = float(np.exp(found["nats_per_token"]["all"][name]))
        axes.axhline(perplexity, linestyle=style, color="0.4")
        axes.annotate(
            f"{name}, {perplexity:.0f}", (1, perplexity), xycoords=("axes fraction", "data"),
            xytext=(-4, -12), textcoords="offset points", color="0.3", ha="right",
        )  # fmt: skip
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis("{x:.0f}")
    axes.set_xlim(left=0)
    axes.set_xlabel(f"minutes since the start, {found['threads']} threads")
    axes.set_ylabel("perplexity of masked words, held-out text")
    axes.set_title("A BERT of 4 layers, 256 wide, from nothing", loc="left", fontsize="medium")
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
