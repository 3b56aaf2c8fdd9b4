"""Measures minibert beside its peers: the same texts, the same threads, interleaved in one run.

    python scripts/benchmark.py --data FOLDER [--workloads W1,W5] [--rounds 7] [--distinct]
    python scripts/benchmark.py --data FOLDER --workloads W6 [--updates 80 | --epochs 3]

Each contender runs in a process of its own, with the Python of its own environment, and waits while
another one works; a round runs each once, and what counts is the ratio of two contenders within a
round, for the speed of a shared machine drifts.  Accuracy stands beside every speed.

    W1  2,000 real sentences (sst2, stsb), texts in, vectors out
    W5  a fresh process that embeds one sentence, beside one that only imports torch
    W6  fine-tuning on sst2, beside the Trainer of transformers, in bfloat16 and float32
    doctor  what the doctor takes of the time of training on sst2
    trace  a network that has been traced, and one that is, beside one that never was

A peer is added by a function in PEERS that loads it and returns what embeds a list of texts.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Encode = Callable[[list[str]], Any]


def load_minibert(model: str) -> Encode:
    from minibert import Embedder

    embedder = Embedder.from_pretrained(model)
    return lambda texts: embedder.encode(texts, show_progress_bar=False)


def load_sentence_transformers(model: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    from minibert.weights import resolve

    peer = SentenceTransformer(str(resolve(model)), device="cpu")
    return lambda texts: peer.encode(texts, show_progress_bar=False)


# name -> (how to load it, the packages whose versions stand beside its figures)
PEERS: dict[str, tuple[Callable[[str], Encode], tuple[str, ...]]] = {
    "minibert": (load_minibert, ("minibert", "torch", "tokenizers")),
    "sentence-transformers": (
        load_sentence_transformers,
        ("sentence-transformers", "transformers", "torch", "tokenizers"),
    ),
}

COLD = """
from minibert import Embedder
Embedder.from_pretrained({model!r}).encode("a single sentence to embed")
"""


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        serve(arguments.worker, arguments.model, Path(arguments.texts))
        return
    pythons = dict(pair.split("=", 1) for pair in arguments.python)
    env = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    if "W1" in arguments.workloads:
        texts = sentences(Path(arguments.data))
        distinct = list(dict.fromkeys(texts))
        told = f"{len(texts)} sentences, {len(distinct)} of them distinct"
        if arguments.distinct:
            texts, told = distinct, f"the {len(distinct)} distinct sentences of {len(texts)}"
        print(f"\nW1: {told}, {arguments.model}, {arguments.threads} threads\n")
        contenders = [Contender(name, pythons, arguments.model, texts, env) for name in PEERS]
        compare(contenders, arguments.rounds, len(texts))
    if "W5" in arguments.workloads:
        python = pythons.get("minibert", sys.executable)
        print("\nW5: a fresh process that embeds one sentence\n")
        compare_cold(python, arguments.model, arguments.rounds, env)
    if "W6" in arguments.workloads:
        from benchmark_finetuning import compare_finetuning

        from minibert.weights import resolve

        print(f"\nW6: fine-tuning on sst2, {arguments.model}, {arguments.threads} threads")
        compare_finetuning(
            resolve(arguments.model),
            Path(arguments.data),
            updates=arguments.updates,
            epochs=arguments.epochs,
            rounds=arguments.rounds,
            pythons=pythons,
            env=env,
        )
    if "doctor" in arguments.workloads:
        from benchmark_finetuning import measure_doctor

        from minibert.weights import resolve

        print(f"\ndoctor: training on sst2, {arguments.model}, {arguments.threads} threads\n")
        measure_doctor(resolve(arguments.model), Path(arguments.data), updates=arguments.updates)
    if "trace" in arguments.workloads:
        print("\ntrace: one batch of 16 texts, with the stages of the network captured and not\n")
        compare_tracing(arguments.model, arguments.rounds, arguments.threads)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("MINIBERT_DATA"), help="the data sets")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--workloads", default="W1,W5", type=lambda names: names.split(","))
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after a warm-up")
    parser.add_argument(
        "--distinct", action="store_true", help="W1 without the sentences that occur before"
    )
    parser.add_argument("--updates", type=int, default=80, help="W6: updates of a run")
    parser.add_argument(
        "--epochs", type=float, help="W6: epochs over all of sst2, in place of --updates"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="the interpreter of a contender's environment; this one when not given",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--texts", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    needing = {"W1", "W6"} & set(arguments.workloads)
    if needing and not arguments.worker and not arguments.data:
        parser.error("W1 and W6 need --data, or MINIBERT_DATA, with the folders sst2 and stsb")
    return arguments


def sentences(data: Path) -> list[str]:
    """The first 1,000 sentences of sst2's training part, and 1,000 of stsb's."""
    with (data / "sst2" / "stsa.binary.train").open(encoding="utf-8") as file:
        sst2 = [line.split(" ", 1)[1].strip() for line in file]
    with (data / "stsb" / "sts-train.csv").open(encoding="utf-8", newline="") as file:
        stsb = [row[5] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return sst2[:1000] + stsb[:1000]


class Contender:
    """A process that has loaded one library and embeds the texts each time it is told to."""

    def __init__(
        self, name: str, pythons: dict[str, str], model: str, texts: list[str], env: dict[str, str]
    ) -> None:
        self.name = name
        self._place = tempfile.TemporaryDirectory()
        path = Path(self._place.name) / "texts.json"
        path.write_text(json.dumps(texts))
        command = [pythons.get(name, sys.executable), __file__, "--worker", name]
        self._process = subprocess.Popen(
            [*command, "--model", model, "--texts", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**env, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        self.versions = self._answer()["versions"]

    def run(self) -> dict[str, Any]:
        """Embed all texts once: seconds, peak memory in bytes, and the vectors' file."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate(timeout=60)
        self._place.cleanup()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"error: {self.name} ended with exit status {self._process.wait()}; is it "
                f"installed in this environment? --python {self.name}=PATH names another"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(name: str, model: str, path: Path) -> None:
    """What a contender's process does: load, then embed once for each line of standard input."""
    import resource

    import numpy as np
    import torch

    # Whatever a library prints must not get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    load, packages = PEERS[name]
    encode = load(model)
    texts = json.loads(path.read_text())
    versions = {package: _version(package) for package in packages}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        np.save(path.with_suffix(".npy"), vectors, allow_pickle=False)
        answer = {
            "seconds": seconds,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "vectors": str(path.with_suffix(".npy")),
        }
        print(json.dumps(answer), file=answers, flush=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from the checkout"


def compare(contenders: Sequence[Contender], rounds: int, n_texts: int) -> None:
    """Interleaved rounds of all contenders, and their table."""
    import numpy as np

    results: dict[str, list[dict[str, Any]]] = {c.name: [] for c in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            result = contender.run()
            _tell(f"round {number}/{rounds} {contender.name}: {result['seconds']:.2f} s")
            if number:  # round 0 warms up
                results[contender.name].append(result)
    reference = np.load(results[contenders[0].name][-1]["vectors"])
    print("| | texts/s | minibert is faster by | largest difference | peak memory |")
    print("|---|---|---|---|---|")
    ours = [result["seconds"] for result in results[contenders[0].name]]
    for contender in contenders:
        seconds = [result["seconds"] for result in results[contender.name]]
        last = results[contender.name][-1]
        difference = np.abs(np.load(last["vectors"]) - reference).max()
        print(
            f"| {contender.name} | {n_texts / statistics.median(seconds):.0f} "
            f"| {_ratio(seconds, ours)} | {difference:.1e} | {last['peak_bytes'] / 1e6:.0f} MB |"
        )
    print()
    for contender in contenders:
        versions = ", ".join(f"{name} {version}" for name, version in contender.versions.items())
        print(f"{contender.name}: {versions}")
        contender.close()


def compare_cold(python: str, model: str, rounds: int, env: dict[str, str]) -> None:
    """Fresh processes in turn: wall time and peak memory of each, and their ratio."""
    env = {**env, "PYTHONPATH": str(ROOT)}
    programs = {"import torch": "import torch", "embed one sentence": COLD.format(model=model)}
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            seconds, peak = _measure([python, "-c", program], env)
            _tell(f"round {number}/{rounds} {name}: {seconds:.2f} s, {peak / 1e6:.0f} MB")
            if number:
                results[name].append((seconds, peak))
    print("| | wall | peak memory |")
    print("|---|---|---|")
    for name, figures in results.items():
        seconds = statistics.median(figure[0] for figure in figures)
        peak = statistics.median(figure[1] for figure in figures)
        print(f"| {name} | {seconds:.2f} s | {peak / 1e6:.0f} MB |")
    base, ours = ([figure[0] for figure in figures] for figures in results.values())
    added = statistics.median(b[1] - a[1] for a, b in zip(*results.values(), strict=True))
    print(f"\nwall: {_ratio(ours, base)} of `import torch`; memory: {added / 1e6:.0f} MB above it")


def compare_tracing(model: str, rounds: int, threads: int) -> None:
    """One batch through three copies of a network in turn; 51 times in each round."""
    import contextlib

    import torch

    from minibert import BertModel, Tokenizer, trace
    from minibert.parity.recording import TEXTS, inputs_of

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
        _tell(f"round {number}/{rounds}")
        if number:
            for name, found in seconds.items():
                # Neighbours in time share what else the machine does.
                pairs = zip(found, seconds["never traced"], strict=True)
                ratios[name].append(statistics.median(a / b for a, b in pairs))
                batches[name].append(statistics.median(found))
    print("| | ms a batch | of the one that never was |")
    print("|---|---|---|")
    for name, found in ratios.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        median = f"{statistics.median(batches[name]) * 1e3:.1f}"
        print(f"| {name} | {median} | {statistics.median(found):.3f} ({spread}) |")


def _measure(command: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: exit status {process.returncode}: {command}")
    return seconds, usage.ru_maxrss * 1024


def _ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their range."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
