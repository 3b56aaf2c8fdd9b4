"""What `benchmark.py` measures of tracing: a network that is watched, beside one that never was."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmark_report import told

from minibert import BertModel, Tokenizer, trace
from minibert.parity.recording import TEXTS, inputs_of


def compare_tracing(model: str, rounds: int, threads: int) -> None:
    """One batch through three copies of a network in turn; 51 times in each round."""
    torch.set_num_threads(threads)
    inputs = inputs_of(TEXTS, Tokenizer.from_pretrained(model), 128)
    untouched, before, during = (BertModel.from_pretrained(model) for _ in range(3))
    with torch.no_grad(), trace(before):
        before(**inputs)
    contenders: dict[str, tuple[BertModel, Callable[[], Any]]] = {
        "never traced": (untouched, contextlib.nullcontext),
        "traced before": (before, contextlib.nullcontext),
        "while every stage is captured": (during, lambda: trace(during)),
    }
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    batches: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(51):
            # In turns, for a network is slower behind one that has filled the cache.
            for name in (*contenders, *contenders)[turn % 3 : turn % 3 + 3]:
                network, context = contenders[name]
                with torch.no_grad(), context():
                    start = time.perf_counter()
                    network(**inputs)
                    seconds[name].append(time.perf_counter() - start)
        print(f"round {number}/{rounds}", file=sys.stderr, flush=True)
        if number:
            for name, found in seconds.items():
                # Neighbours in time share what else the machine does.
                pairs = zip(found, seconds["never traced"], strict=True)
                ratios[name].append(statistics.median(a / b for a, b in pairs))
                batches[name].append(statistics.median(found))
    print("| | ms a batch | of the one that never was |")
    print("|---|---|---|")
    for name, found in ratios.items():
        median = f"{statistics.median(batches[name]) * 1e3:.1f}"
        print(f"| {name} | {median} | {told(found, '.3f')} |")
