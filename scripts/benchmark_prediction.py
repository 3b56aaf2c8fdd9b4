"""What `benchmark.py` measures of prediction: a classifier by PyTorch, and by the kernels."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from benchmark_finetuning import sst2
from benchmark_report import told

from minibert import TextClassifier, Tokenizer
from minibert.heads import BertForSequenceClassification
from minibert.prediction.settings import PredictionSettings

CONTENDERS = (
    ("float32", "pytorch"), ("float32", "kernels"), ("int16", "kernels"), ("int8", "kernels"),
)  # fmt: skip


def compare_prediction(model: Path, data: Path, rounds: int, threads: int) -> None:
    """The test sentences of sst2 through one network with a fresh head, in turn."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    texts = [text for text, _ in sst2(data, "test")]
    network = BertForSequenceClassification.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        Tokenizer.from_pretrained(model).save_pretrained(folder)
        PredictionSettings(task="binary", max_length=128).save(folder)
        classifiers = {
            f"{dtype} by {engine}": TextClassifier.from_pretrained(
                folder, dtype=dtype, engine=engine
            )
            for dtype, engine in CONTENDERS
        }
    seconds: dict[str, list[float]] = {name: [] for name in classifiers}
    exact = network.double()
    expected = TextClassifier(
        exact, classifiers["float32 by pytorch"].tokenizer, PredictionSettings(task="binary")
    ).logits(texts)
    errors = {
        name: float((each.logits(texts) - expected).abs().max())
        for name, each in classifiers.items()
    }
    for number in range(rounds):
        for name, classifier in classifiers.items():
            start = time.perf_counter()
            classifier.classify(texts, show_progress_bar=False)
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    plain = seconds["float32 by pytorch"]
    print("| | texts/s | faster by | largest error of a logit |")
    print("|---|---|---|---|")
    for name, found in seconds.items():
        faster = told([a / b for a, b in zip(plain, found, strict=True)], ".2f")
        speed = len(texts) / statistics.median(found)
        print(f"| {name} | {speed:,.0f} | {faster} | {errors[name]:.1e} |")
