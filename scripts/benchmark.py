"""Measures minibert beside its peers: the same texts, the same threads, interleaved in one run.

    python scripts/benchmark.py --data FOLDER [--workloads W1,W4] [--rounds 7] [--write]
        [--python PATH] [--python LIBRARY=PATH] [--contenders NAME,NAME] [--choose]
    python scripts/benchmark.py --data FOLDER --workloads W6 [--updates 80 | --epochs 3]

Each contender runs in a process of its own, with the Python of its own environment, and waits while
another one works; a round runs each once, each round beginning with another one, and what counts is
the ratio of two contenders within a round, for the speed of a shared machine drifts.  A ratio whose
rounds disagree is not told (the rule stands in `benchmark_report.py`).  Beside every speed stand
the largest error of the vectors against minibert's own in float64, and the share of the rate at
which the machine multiplied matrices of the network's shapes in the same round.

    W1  2,000 real sentences (sst2, stsb), texts in, vectors out
    W2  300 movie reviews, cut at 256 tokens
    W3  the first 300 sentences of W1 through 12 layers, 768 wide, of random weights
    W4  one question of eight words, 200 calls: p50 and p99
    W5  a fresh process that embeds one sentence, beside one that only imports torch
    W6  fine-tuning on sst2, beside the Trainer of transformers, in bfloat16 and float32
    W7  texts/s and peak memory as the corpus grows from 4,096 texts to 16 times as many
    doctor  what the doctor takes of the time of training on sst2
    predict  a classifier by PyTorch and by the kernels, on the test sentences of sst2
    trace  a network that has been traced, and one that is, beside one that never was

Before its first round a contender tries its settings on a sample of the texts, in a process that
ends then, and keeps the fastest; they are remembered in --cache, with what was converted for it,
until --choose asks for them anew.  --write keeps the figures in docs/performance.json and writes
docs/performance.md from them, with the picture.

A contender is one line of CONTENDERS in `benchmark_peers.py`.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmark_peers import CONTENDERS, PACKAGES, Contender, named
from benchmark_process import WARM_UPS, Answer, Process, converted
from benchmark_report import Figures, report, write
from benchmark_texts import (
    QUESTION,
    Pairs,
    base_model,
    calibration_sentences,
    grown,
    judged_pairs,
    reviews,
    sentences,
    write_texts,
)
from numpy.typing import NDArray

BULK = ("W1", "W2", "W3")
WORKLOADS = (*BULK, "W4", "W5", "W6", "W7", "doctor", "predict", "trace")
NEED_DATA = {*BULK, "W6", "W7", "doctor", "predict"}
TITLES = {
    "W1": "real sentences",
    "W2": "movie reviews of up to 256 tokens",
    "W3": "sentences through 12 layers, 768 wide",
    "W4": "one question of eight words",
    "W5": "a fresh process that embeds one sentence",
    "W7": "a corpus that grows",
}
CALLS = 200
SAMPLE_TEXTS = 300  # that settings are tried on
SAMPLE_REVIEWS = 40
GROWTH_TEXTS = 4096  # the chunk of `Embedder.stream`: with fewer memory would grow, up to a chunk
GROWTH = (1, 4, 16)


def main() -> None:
    arguments = parse_arguments()
    if arguments.cache is None:
        arguments.cache = Path(tempfile.gettempdir()) / "minibert-benchmark"
    arguments.cache.mkdir(parents=True, exist_ok=True)
    found = [
        figures for name in arguments.workloads if (figures := measure(name, arguments)) is not None
    ]
    if arguments.write and found:
        write(found)


def measure(name: str, arguments: argparse.Namespace) -> Figures | None:
    """One workload: its figures, where it has such as --write keeps, and its tables are printed."""
    if name in ("W6", "doctor", "predict", "trace"):
        measure_network(name, arguments)
        return None
    figures = {"W4": measure_single, "W5": measure_start, "W7": measure_growth}.get(
        name, measure_bulk
    )(Bench(name, arguments))
    print(f"\n{report(figures)}\n", flush=True)
    return figures


def measure_network(name: str, arguments: argparse.Namespace) -> None:
    """What is measured of training and tracing, which have files of their own."""
    from minibert.weights import resolve

    print(f"\n{name}: {arguments.model}, {arguments.threads} threads\n")
    if name == "W6":
        from benchmark_finetuning import compare_finetuning
        from benchmark_process import environment

        compare_finetuning(
            resolve(arguments.model),
            arguments.data,
            updates=arguments.updates,
            epochs=arguments.epochs,
            rounds=arguments.rounds,
            pythons=arguments.pythons,
            env=environment(arguments.threads),
        )
    elif name == "doctor":
        from benchmark_finetuning import measure_doctor

        measure_doctor(resolve(arguments.model), arguments.data, updates=arguments.updates)
    elif name == "predict":
        from benchmark_prediction import compare_prediction

        compare_prediction(
            resolve(arguments.model), arguments.data, arguments.rounds, arguments.threads
        )
    else:
        from benchmark_tracing import compare_tracing

        compare_tracing(arguments.model, arguments.rounds, arguments.threads)


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("MINIBERT_DATA")
    parser.add_argument(
        "--data", default=Path(data) if data else None, type=Path, help="the data sets"
    )
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--workloads", default="W1,W4,W5", help=f"of {','.join(WORKLOADS)}")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds that count, after two to warm up"
    )
    parser.add_argument("--contenders", help="names of benchmark_peers.py; all when not given")
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
        metavar="[LIBRARY=]PATH",
        help="the interpreter of a library's environment, or of all peers'; else this one",
    )
    parser.add_argument("--cache", type=Path, help="of converted models, chosen settings, vectors")
    parser.add_argument("--choose", action="store_true", help="choose all settings anew")
    parser.add_argument("--write", action="store_true", help="keep the figures, write the page")
    arguments = parser.parse_args(given)
    arguments.workloads = arguments.workloads.split(",")
    for name in arguments.workloads:
        if name not in WORKLOADS:
            parser.error(f"got workload {name!r}, expected some of {','.join(WORKLOADS)}")
    if arguments.rounds < 1:
        parser.error(f"got --rounds {arguments.rounds}, expected at least 1")
    arguments.pythons = _pythons(arguments.python, parser)
    try:
        arguments.chosen = (
            [named(name) for name in arguments.contenders.split(",")]
            if arguments.contenders
            else list(CONTENDERS)
        )
    except ValueError as error:
        parser.error(str(error))
    needing = NEED_DATA & set(arguments.workloads)
    if needing and (arguments.data is None or not (arguments.data / "sst2").is_dir()):
        parser.error(
            f"{', '.join(sorted(needing))} need --data, or MINIBERT_DATA, with the folders sst2, "
            f"stsb and movie_reviews; got {arguments.data}"
        )
    return arguments


def _pythons(given: Iterable[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    """The interpreter of each library that has one of its own."""
    found: dict[str, str] = {}
    for pair in sorted(given, key=lambda pair: "=" in pair):  # what is said of one, after all
        library, _, path = pair.rpartition("=")
        if library and library not in PACKAGES:
            parser.error(f"--python {pair}: got {library!r}, expected one of {list(PACKAGES)}")
        for each in [library] if library else [each for each in PACKAGES if each != "minibert"]:
            found[each] = path
    return found


class Texts(NamedTuple):
    """What a workload embeds, and with which model."""

    folder: Path
    texts: list[str]
    sample: list[str]  # that settings are tried on
    pairs: Pairs | None = None  # to judge vectors by


class Bench:
    """One workload on its way: its texts, processes and files."""

    def __init__(self, workload: str, arguments: argparse.Namespace) -> None:
        from minibert.weights import resolve

        self.workload = workload
        self.arguments = arguments
        self.cache: Path = arguments.cache
        self.rounds: int = arguments.rounds
        self.threads: int = arguments.threads
        self.small = resolve(arguments.model)

    @property
    def title(self) -> str:
        """What is done, and by which model."""
        model = "" if self.workload == "W3" else f", {self.arguments.model}"
        return f"{TITLES[self.workload]}{model}"

    def python_of(self, library: str) -> str:
        found: dict[str, str] = self.arguments.pythons
        return found.get(library, sys.executable)

    def texts(self) -> Texts:
        """Those of the workload."""
        data: Path = self.arguments.data
        if self.workload == "W2":
            texts = reviews(data)
            return Texts(self.small, texts, _spread(texts, SAMPLE_REVIEWS))
        if self.workload == "W3":
            folder = base_model(self.small, self.cache)
            texts = sentences(data)[:300]
            return Texts(folder, texts, _spread(texts, SAMPLE_TEXTS // 3))
        if self.workload == "W4":
            return Texts(self.small, [QUESTION], [QUESTION])
        texts = sentences(data)
        if self.arguments.distinct:
            texts = list(dict.fromkeys(texts))
        return Texts(self.small, texts, _spread(texts, SAMPLE_TEXTS), judged_pairs(data))

    def about(self, work: Answer) -> Figures:
        """What stands above the tables."""
        return {
            "title": self.title,
            "machine": work["machine"],
            "threads": self.threads,
            "rounds": self.rounds,
            **{key: work[key] for key in ("n_texts", "n_distinct", "n_tokens", "flops")},
        }

    def tell(self, line: str) -> None:
        """How far it is, on standard error."""
        print(f"{self.workload} {line}", file=sys.stderr, flush=True)


def _spread(texts: Sequence[str], n_texts: int) -> list[str]:
    """Every so many of some texts."""
    return list(texts[:: max(1, len(texts) // n_texts)])


class Entrant(NamedTuple):
    """A contender that has been loaded, and where it leaves its vectors."""

    contender: Contender
    process: Process
    vectors: Path
    about: Figures


class Race:
    """All contenders of a workload, loaded, and what measures beside them."""

    def __init__(self, bench: Bench, texts: Texts, stack: ExitStack) -> None:
        self._bench, self._texts, self._stack = bench, texts, stack
        self._place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.texts_file = write_texts(texts.texts, self._place / "texts.json")
        job = {"role": "limits", "folder": str(texts.folder)}
        python = bench.python_of("minibert")
        self.limits = stack.enter_context(Process(python, job, bench.threads))
        self.work = self.limits.ask("work", texts=str(self.texts_file))
        self.exact = self._exact_vectors()
        self.entrants = [self._enter(contender) for contender in bench.arguments.chosen]

    def _enter(self, contender: Contender) -> Entrant:
        bench = self._bench
        bench.tell(f"loading {contender.name}")
        job = {
            "role": "contender",
            "contender": contender.name,
            "folder": str(self._texts.folder),
            "max_length": self.work["max_length"],
        }
        python = bench.python_of(contender.library)
        if contender.convert is not None:
            calibration = self._place / "calibration.json"
            if not calibration.exists():
                write_texts(calibration_texts(bench), calibration)
            job["calibration"] = str(calibration)
            job["converted"] = str(converted(contender, python, job, bench.cache))
        settings = self._settings(contender, python, job)
        process = self._stack.enter_context(Process(python, job, bench.threads))
        loaded = process.ask("load", settings=settings)
        about = {
            "name": contender.name,
            "library": contender.library,
            "bits": contender.bits,
            "ours": contender.ours,
            "settings": settings,
            "versions": loaded["versions"],
        }
        return Entrant(contender, process, self._place / f"{contender.name}.npy", about)

    def _settings(
        self, contender: Contender, python: str, job: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fastest settings, remembered or chosen now."""
        bench = self._bench
        path = bench.cache / "settings.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        facts = [contender.name, bench.title, bench.threads, self.work["machine"]]
        key = " | ".join(map(str, facts))
        if key not in known or bench.arguments.choose:
            sample = write_texts(self._texts.sample, self._place / "sample.json")
            with Process(python, job, bench.threads) as process:
                single = bench.workload == "W4"
                known[key] = process.ask("choose", texts=str(sample), single=single)["settings"]
            path.write_text(json.dumps(known, indent=1) + "\n")
            bench.tell(f"{contender.name}: {known[key]}")
        settings: dict[str, Any] = known[key]
        return settings

    def _exact_vectors(self) -> NDArray[np.float32]:
        """minibert's own vectors in float64, computed once for the same model and texts."""
        digest = hashlib.sha256((self._texts.folder / "model.safetensors").read_bytes())
        digest.update(self.texts_file.read_bytes())
        path = self._bench.cache / f"exact-{digest.hexdigest()[:16]}.npy"
        if not path.exists():
            self._bench.tell("exact vectors")
            partial = path.with_suffix(".partial.npy")
            self.limits.ask("exact", texts=str(self.texts_file), vectors=str(partial))
            partial.rename(path)
        vectors: NDArray[np.float32] = np.load(path)
        return vectors

    def error_of(self, entrant: Entrant) -> float:
        """The largest error of a component of the vectors that it made last."""
        vectors = np.load(entrant.vectors)
        if vectors.shape != self.exact.shape or not np.isfinite(vectors).all():
            raise SystemExit(
                f"error: {entrant.contender.name} gave vectors of shape {vectors.shape}, some of "
                f"them perhaps not finite; expected {self.exact.shape}"
            )
        return float(np.abs(vectors - self.exact).max())

    def rounds(self, run: Callable[[Entrant], str]) -> list[Answer]:
        """Run all entrants in turn, to warm up and then to count; the limits of each round."""
        found = []
        for number in range(1 - WARM_UPS, self._bench.rounds + 1):
            limits = self.limits.ask("limits")
            if number > 0:
                found.append(limits)
            turns = len(self.entrants)
            for turn in range(turns):
                entrant = self.entrants[(turn + number) % turns]
                said = run(entrant)
                if number <= 0:
                    entrant.about.update({key: [] for key in _measures(entrant.about)})
                self._bench.tell(
                    f"round {number}/{self._bench.rounds} {entrant.contender.name}: {said}"
                )
        return found

    def spearman(self, entrant: Entrant, pairs: Pairs) -> float:
        """How the cosines of its vectors order pairs of sentences, beside how people did."""
        sides = []
        for name, texts in (("first", pairs.first), ("second", pairs.second)):
            file = write_texts(texts, self._place / f"{name}.json")
            entrant.process.ask("embed", texts=str(file), vectors=str(entrant.vectors))
            vectors = np.load(entrant.vectors).astype(np.float64)
            sides.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        return correlation(ranks((sides[0] * sides[1]).sum(1)), ranks(np.array(pairs.scores)))


def _measures(about: Figures) -> list[str]:
    """What is measured in each round."""
    return [key for key in ("seconds", "p50", "p99") if key in about]


def calibration_texts(bench: Bench) -> list[str]:
    """Texts that a converter may look at."""
    data: Path | None = bench.arguments.data
    if data is None:
        raise SystemExit(
            "error: OpenVINO int8 is calibrated on sentences of stsb; give --data, or MINIBERT_DATA"
        )
    return calibration_sentences(data)


def measure_bulk(bench: Bench) -> Figures:
    """Texts in, vectors out."""
    texts = bench.texts()
    with ExitStack() as stack:
        race = Race(bench, texts, stack)

        def run(entrant: Entrant) -> str:
            answer = entrant.process.ask(
                "embed", texts=str(race.texts_file), vectors=str(entrant.vectors)
            )
            entrant.about.setdefault("seconds", []).append(answer["seconds"])
            entrant.about["peak_bytes"] = answer["peak_bytes"]
            return f"{len(texts.texts) / answer['seconds']:.0f} texts/s"

        limits = race.rounds(run)
        for entrant in race.entrants:
            entrant.about["error"] = race.error_of(entrant)
            if texts.pairs is not None and (entrant.contender.bits < 32 or entrant.about["ours"]):
                bench.tell(f"STS-B {entrant.contender.name}")
                entrant.about["spearman"] = race.spearman(entrant, texts.pairs)
        return {
            "workload": bench.workload,
            "about": bench.about(race.work),
            "limits": {bits: [each[bits] for each in limits] for bits in limits[0]},
            "contenders": [entrant.about for entrant in race.entrants],
        }


def measure_single(bench: Bench) -> Figures:
    """One text, many calls."""
    texts = bench.texts()
    with ExitStack() as stack:
        race = Race(bench, texts, stack)

        def run(entrant: Entrant) -> str:
            answer = entrant.process.ask(
                "single", text=QUESTION, calls=CALLS, vectors=str(entrant.vectors)
            )
            p50 = statistics.median(answer["calls"])
            p99 = statistics.quantiles(answer["calls"], n=100, method="inclusive")[98]
            entrant.about.setdefault("p50", []).append(p50)
            entrant.about.setdefault("p99", []).append(p99)
            entrant.about["peak_bytes"] = answer["peak_bytes"]
            return f"{p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"

        race.rounds(run)
        for entrant in race.entrants:
            entrant.about["error"] = race.error_of(entrant)
        about = bench.about(race.work)
        del about["flops"]  # no rate of one text says anything
        return {
            "workload": bench.workload,
            "about": about,
            "contenders": [entrant.about for entrant in race.entrants],
        }


def measure_start(bench: Bench) -> Figures:
    """Fresh processes."""
    from benchmark_cold import measure_cold

    from minibert.machine import this_machine

    ours = [each for each in bench.arguments.chosen if each.ours]
    found = measure_cold(bench.small, bench.rounds, bench.threads, bench.arguments.pythons, ours)
    return {
        "workload": bench.workload,
        "about": {
            "title": bench.title,
            "machine": str(this_machine()),
            "threads": bench.threads,
            "rounds": bench.rounds,
            "weights": (bench.small / "model.safetensors").stat().st_size,
        },
        "contenders": found,
    }


def measure_growth(bench: Bench) -> Figures:
    """Corpora of growing size, streamed, each in a fresh process; ours alone."""
    from minibert.machine import this_machine

    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{size}.txt" for size in GROWTH]
        found: list[Figures] = [
            {
                "name": contender.name,
                "library": contender.library,
                "sizes": [
                    {"n_texts": GROWTH_TEXTS * size, "seconds": [], "peak_bytes": []}
                    for size in GROWTH
                ],
            }
            for contender in bench.arguments.chosen
            if contender.ours
        ]
        for size, file in zip(GROWTH, files, strict=True):
            lines = grown(sentences(bench.arguments.data), GROWTH_TEXTS * size)
            file.write_text("\n".join(lines), encoding="utf-8")
        for number in range(bench.rounds):
            for figures in found:
                for sizes, file in zip(figures["sizes"], files, strict=True):
                    answer = _streamed(bench, figures["name"], file)
                    assert answer["n_texts"] == sizes["n_texts"], answer
                    sizes["seconds"].append(answer["seconds"])
                    sizes["peak_bytes"].append(answer["peak_bytes"])
                    figures["versions"] = answer["versions"]
                    bench.tell(
                        f"round {number + 1}/{bench.rounds} {figures['name']}, "
                        f"{answer['n_texts']} texts: {answer['seconds']:.1f} s, "
                        f"{answer['peak_bytes'] / 1e6:.0f} MB"
                    )
    return {
        "workload": bench.workload,
        "about": {
            "title": bench.title,
            "machine": str(this_machine()),
            "threads": bench.threads,
            "rounds": bench.rounds,
        },
        "contenders": found,
    }


def _streamed(bench: Bench, name: str, file: Path) -> Answer:
    job = {"role": "contender", "contender": name, "folder": str(bench.small), "max_length": 0}
    with Process(bench.python_of("minibert"), job, bench.threads) as process:
        return process.ask("stream", path=str(file))


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return shared


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's."""
    return float(np.corrcoef(a, b)[0, 1])


if __name__ == "__main__":
    main()
