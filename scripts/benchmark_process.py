"""The processes of `benchmark.py`: one a contender, which loads it and does what it is told.

    python scripts/benchmark_process.py JOB.json

The driver writes what is to be loaded into a file, and then a line of JSON for each thing to do;
each is answered by a line.  While another one works, a contender waits.
"""

import hashlib
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_peers import PACKAGES, Contender, Encode, Model, named

ROOT = Path(__file__).resolve().parent.parent
# How long idle threads of the process that ran last may look for work before they sleep.
SETTLING_SECONDS = 0.3
# Passes that do not count. In the first ones OpenVINO and oneDNN compile code for each shape that
# they have not seen yet, and of two streams each for itself.
WARM_UPS = 2

Answer = dict[str, Any]


class Process:
    """A process that has loaded one contender, or what measures for all of them."""

    def __init__(self, python: str, job: Mapping[str, Any], threads: int) -> None:
        self.name = str(job.get("contender", job["role"]))
        self._python = python
        self._place = tempfile.TemporaryDirectory()
        path = Path(self._place.name) / "job.json"
        path.write_text(json.dumps({**job, "threads": threads}))
        self._errors = (Path(self._place.name) / "errors").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [python, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(threads),
            text=True,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # something has failed, and it may be in the middle of its work
            self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._place.cleanup()

    def ask(self, do: str, **about: Any) -> Answer:
        """Let it do something, and wait for the answer.

        Raises: SystemExit with the last line of its errors, where the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        time.sleep(SETTLING_SECONDS)
        try:
            self._process.stdin.write(json.dumps({"do": do, **about}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and there will be no answer
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = [each.strip() for each in self._errors if each.strip()] or ["it said nothing"]
            raise SystemExit(
                f"error: {self.name} ended with exit status {status}: {said[-1]}; the Python of "
                f"its environment is {self._python}, and --python LIBRARY=PATH names another"
            )
        answer: Answer = json.loads(line)
        return answer


def environment(threads: int) -> dict[str, str]:
    """Of a contender's process: its threads, and no bars, warnings or network."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),  # of the tokenizers
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def converted(contender: Contender, python: str, job: Mapping[str, Any], cache: Path) -> Path:
    """The folder of what the contender's converter makes; made by a process of its own, once."""
    assert contender.convert is not None
    folder = Path(job["folder"])
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    digest.update((folder / "config.json").read_bytes())
    target = cache / f"{contender.convert.__name__}-{digest.hexdigest()[:16]}"
    if not target.exists():
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=cache))
        told = {**job, "contender": contender.name, "role": "converter", "converted": str(partial)}
        with Process(python, told, threads=len(os.sched_getaffinity(0))) as process:
            process.ask("convert")
        partial.rename(target)
    return target


def versions_in(python: str, library: str) -> dict[str, str]:
    """Those of an environment."""
    program = f"import json, benchmark_process as p; print(json.dumps(p.versions({library!r})))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    done = subprocess.run(
        [python, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"error: exit status {done.returncode} of the Python of {library}, {python}; "
            f"--python {library}=PATH names another"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


# What happens within the process.


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker: Worker | Limits = Limits(job) if job["role"] == "limits" else Worker(job)
    for line in sys.stdin:
        told = json.loads(line)
        answer = getattr(worker, told.pop("do"))(**told)
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """A contender at work; its methods are what it can be asked to do."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._contender = named(job["contender"])
        self._encode: Encode | None = None

    def convert(self) -> Answer:
        """Make what the library loads."""
        assert self._contender.convert is not None
        model = self._model()
        assert model.converted is not None
        texts = _texts(self._job["calibration"])
        self._contender.convert(model.folder, model.converted, texts, model.max_length)
        return {}

    def choose(self, texts: str, single: bool) -> Answer:
        """The fastest settings for these texts: of each list the best, one list after the other."""
        sample = _texts(texts)
        lists = dict(self._contender.settings)
        if single:
            lists = _for_one_text(lists, self._model().threads)
        best = {name: values[0] for name, values in lists.items()}
        for name, values in lists.items():
            if len(values) > 1:
                best = self._fastest([{**best, name: value} for value in values], sample, single)
        return {"settings": best}

    def _fastest(
        self, tried: Sequence[dict[str, Any]], sample: list[str], single: bool
    ) -> dict[str, Any]:
        """Those settings that took the smallest share of the time of a round, in most rounds."""
        encodes = [self._load(settings) for settings in tried]
        shares: list[list[float]] = [[] for _ in tried]
        for number in range(WARM_UPS + 3):
            seconds = []
            for settings, encode in zip(tried, encodes, strict=True):
                self._set_threads(settings)
                calls = [_timed(encode, sample)[0] for _ in range(20 if single else 1)]
                seconds.append(statistics.median(calls))
            if number >= WARM_UPS:
                for share, each in zip(shares, seconds, strict=True):
                    share.append(each / sum(seconds))
        return min(zip(tried, shares, strict=True), key=lambda pair: statistics.median(pair[1]))[0]

    def load(self, settings: dict[str, Any]) -> Answer:
        """Load it, with these settings."""
        self._encode = self._load(settings)
        return {"versions": versions(self._contender.library)}

    def embed(self, texts: str, vectors: str) -> Answer:
        """All texts at once, and their vectors into a file."""
        import numpy as np

        assert self._encode is not None
        seconds, found = _timed(self._encode, _texts(texts))
        np.save(vectors, found, allow_pickle=False)
        return {"seconds": seconds, "peak_bytes": _peak_bytes()}

    def single(self, text: str, calls: int, vectors: str) -> Answer:
        """One text again and again."""
        import numpy as np

        assert self._encode is not None
        found = [_timed(self._encode, [text]) for _ in range(calls)]
        np.save(vectors, found[-1][1], allow_pickle=False)
        return {"calls": [seconds for seconds, _ in found], "peak_bytes": _peak_bytes()}

    def stream(self, path: str) -> Answer:
        """The lines of a file, by `Embedder.stream`, which never holds them all."""
        from minibert import Embedder

        embedder = Embedder.from_pretrained(
            self._job["folder"], dtype=self._contender.precision, engine=self._contender.engine
        )
        embedder.encode(["a first text"] * 64)
        start = time.perf_counter()
        n_texts = 0
        with Path(path).open(encoding="utf-8") as file:
            for chunk in embedder.stream(line.rstrip("\n") for line in file):
                n_texts += len(chunk)
        seconds = time.perf_counter() - start
        return {
            "n_texts": n_texts,
            "seconds": seconds,
            "peak_bytes": _peak_bytes(),
            "versions": versions(self._contender.library),
        }

    def _load(self, settings: dict[str, Any]) -> Encode:
        self._set_threads(settings)
        return self._contender.load(self._model(), self._contender.precision, settings)

    def _set_threads(self, settings: dict[str, Any]) -> None:
        """Those of torch are the process's; other libraries keep theirs in what is loaded."""
        if self._contender.library in ("minibert", "sentence-transformers", "transformers"):
            import torch

            torch.set_num_threads(settings.get("threads", self._job["threads"]))

    def _model(self) -> Model:
        job = self._job
        path = job.get("converted")
        return Model(
            Path(job["folder"]), Path(path) if path else None, job["max_length"], job["threads"]
        )


def _for_one_text(lists: Mapping[str, tuple[Any, ...]], threads: int) -> dict[str, tuple[Any, ...]]:
    """What there is to choose for one text: one stream, and perhaps not all threads."""
    kept = {name: values[:1] for name, values in lists.items()}
    if "streams" in kept:
        kept["streams"] = (1,)
    if lists:
        kept["threads"] = (threads, *range(1, threads))
    return kept


class Limits:
    """What the machine does of matrix products, and what exact vectors are."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        from minibert.config import BertConfig

        torch.set_num_threads(job["threads"])
        self._folder = job["folder"]
        self._config = BertConfig.from_file(Path(self._folder) / "config.json")

    def limits(self) -> Answer:
        """Operations a second, by the bits of a number."""
        from minibert.machine import matrix_rate

        dtypes = {32: ("float32",), 16: ("bfloat16", "float16", "int16"), 8: ("int8",)}
        return {
            str(bits): max(matrix_rate(self._config, dtype) for dtype in of_bits)
            for bits, of_bits in dtypes.items()
        }

    def exact(self, texts: str, vectors: str) -> Answer:
        """The vectors in float64, by the plain network."""
        import numpy as np

        from minibert import Embedder

        embedder = Embedder.from_pretrained(self._folder, dtype="float64")
        found = embedder.encode(_texts(texts), show_progress_bar=False)
        np.save(vectors, found, allow_pickle=False)
        return {}

    def work(self, texts: str) -> Answer:
        """What there is to compute: distinct texts, their tokens, operations; and the machine."""
        from minibert import Tokenizer
        from minibert.machine import distinct_lengths, matrix_flops, this_machine
        from minibert.recipe import read_recipe

        tokenizer = Tokenizer.from_pretrained(self._folder)
        recipe = read_recipe(Path(self._folder), self._config, tokenizer.model_max_length)
        listed = _texts(texts)
        lengths = distinct_lengths(tokenizer.ids(listed), recipe.max_length)
        return {
            "n_texts": len(listed),
            "n_distinct": len(lengths),
            "n_tokens": sum(lengths),
            "flops": matrix_flops(self._config, lengths),
            "max_length": recipe.max_length,
            "machine": str(this_machine()),
        }


def _texts(path: str) -> list[str]:
    found: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def _timed(encode: Encode, texts: list[str]) -> tuple[float, Any]:
    start = time.perf_counter()
    vectors = encode(texts)
    return time.perf_counter() - start, vectors


def _peak_bytes() -> int:
    # Not that of minibert.machine, whose import of torch would count as a peer's memory.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions(library: str) -> dict[str, str]:
    """Those of the packages of a library that are installed here."""
    return installed(PACKAGES[library])


def installed(packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in this environment."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "from the checkout"
    return found


if __name__ == "__main__":
    main()
