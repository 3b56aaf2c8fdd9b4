"""Several processes train as one does: the same losses, weights, figures, files and refusals."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ranks
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_run import WORDS, log_of, sentences, small, write_csv

from minibert.errors import CheckpointError, RunError
from minibert.training.processes import (
    Gathered,
    Processes,
    _buckets,
    _is_first_to_fail,
    current,
    together,
)
from minibert.training.run import stopping_on_signals, train
from minibert.training.run_config import RunConfig

__all__ = ["small"]  # a fixture

TESTS = Path(__file__).resolve().parent
SECONDS = 60  # until a process is held for hanging

several = [Processes(rank, 3, rank) for rank in range(3)]


# ---- one process


def test_outside_of_torchrun_a_process_is_alone() -> None:
    assert current() == Processes(0, 1, 0)
    with together() as processes:
        assert processes == Processes(0, 1, 0)
    assert processes.is_first
    assert not dist.is_initialized()


def test_alone_every_method_says_what_one_process_does() -> None:
    alone = Processes()
    assert alone.seed(7) == 7
    assert alone.device("auto") == "auto"
    assert alone.add_up(1.0, 2.5) == [1.0, 2.5]
    assert (alone.any(True), alone.any(False)) == (True, False)
    parameter = torch.nn.Parameter(torch.zeros(2))
    alone.add_gradients([parameter])
    assert parameter.grad is None
    assert alone.exchange({"a": torch.tensor(3)}) == [{"a": torch.tensor(3)}]
    assert alone.from_first({"f1": math.inf}) == {"f1": math.inf}
    alone.agree({"data": "any"})
    squares = alone.shared(range(3), lambda n: {"n": torch.tensor(n * n)})
    assert [int(each["n"]) for each in squares] == [0, 1, 4]
    vectors = torch.ones(2, 3)
    assert alone.gather(vectors) == Gathered(vectors, 0)


# ---- shares


def test_rows_are_dealt_out_in_turns() -> None:
    shares = []
    for processes in several:
        with processes.sharing([5, 2, 9, 4, 7]) as rows:
            shares.append(rows)
    assert shares == [[5, 4], [2, 7], [9]]


def test_fewer_rows_than_processes_are_those_of_the_first() -> None:
    shares = []
    for processes in several:
        with processes.sharing([5, 2]) as rows:
            shares.append(rows)
    assert shares == [[5, 2], [], []]


@given(st.lists(st.integers(), unique=True, max_size=20), st.integers(1, 8))
def test_every_row_is_in_one_share(rows: list[int], size: int) -> None:
    shares = []
    for rank in range(size):
        with Processes(rank, size, rank).sharing(rows) as share:
            shares.append(share)
    assert sorted(row for share in shares for row in share) == sorted(rows)
    if len(rows) >= size:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert all(shares)


def test_no_two_processes_draw_alike() -> None:
    seeds = {Processes(rank, 8, 0).seed(seed) for rank in range(8) for seed in range(8)}
    assert len(seeds) == 64
    assert Processes(0, 8, 0).seed(5) == 5
    assert Processes(3, 8, 0).seed(5) == Processes(3, 4, 1).seed(5)
    for seed in seeds:
        torch.Generator().manual_seed(seed)  # takes it


def test_buckets_hold_neighbours_until_they_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minibert.training.processes._BUCKET", 4)
    sizes = (1, 2, 1, 9, 3, 2, 1)
    found = [[len(each) for each in bucket] for bucket in _buckets([torch.ones(n) for n in sizes])]
    assert found == [[1, 2, 1], [9], [3, 2], [1]]
    assert list(_buckets([])) == []


# ---- devices


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    second = Processes(5, 8, 1)
    assert [second.device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(RunError, match=r"training\.device is 'cuda:0' under torchrun, expected"):
        second.device("cuda:0")
    said = r"started a process 3 on a machine with 2 GPUs, .* --nproc-per-node 2"
    with pytest.raises(RunError, match=said):
        Processes(2, 4, 2).device("auto")


def test_without_a_gpu_processes_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Processes(1, 2, 1).device("auto") == "cpu"


def test_who_failed_first_speaks_and_whoever_cannot_know() -> None:
    counted: dict[str, int] = {}

    def add(name: str, n: int) -> int:
        counted[name] = counted.get(name, 0) + n
        return counted[name]

    def gone(name: str, n: int) -> int:
        raise RuntimeError("the store is gone")

    assert [_is_first_to_fail(add) for _ in range(3)] == [True, False, False]
    assert _is_first_to_fail(gone)


def test_a_second_signal_does_not_end_what_torchrun_started() -> None:
    alone, two = ranks.trainer("classes"), ranks.trainer("classes", processes=Processes(0, 2, 0))
    with stopping_on_signals(two):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert two.stopping
    with stopping_on_signals(alone):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


# ---- two processes


class Ended(NamedTuple):
    """How a process ended, and what it said on standard error."""

    status: int
    said: str


def served() -> dist.TCPStore:
    """Where processes find each other; of torchrun it lasts as long as that does."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def run_two(
    *arguments: str, cwd: Path | None = None, store: dist.TCPStore | None = None, attempt: int = 0
) -> list[Ended]:
    """Run Python in two processes, as torchrun starts them, but heard one by one."""
    store = served() if store is None else store
    shared = {
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(p.returncode, text) for p, text in zip(processes, said, strict=True)]


def do(folder: Path, *names: str, checked: bool = False) -> list[Ended]:
    """What functions of `ranks` come to; types are checked where asked for: it takes a second."""
    code = f"import {'conftest, ' if checked else ''}ranks; ranks.main()"
    return run_two("-W", "error", "-c", code, str(folder), *names, cwd=TESTS)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what goes well, in one start: it takes seconds."""
    folder = tmp_path_factory.mktemp("done")
    names = ("trainings", "meetings", "gone_on_with", "stopped", "overflowing", "evaluated")
    assert do(folder, *names, checked=True) == [Ended(0, "")] * 2
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("case", ranks.CASES)
def test_two_processes_train_as_one(case: str, dtype: str, tolerance: float, done: Path) -> None:
    expected, weights = ranks.trained(case, dtype)
    assert len(expected) >= 20
    found = json.loads((done / "trainings" / f"{case}-{dtype}-0.json").read_text())
    assert len(found) == len(expected)
    for one, two in zip(expected, found, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=tolerance)
        if dtype == "float64":  # float32 holds the loss that well, not each gradient
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=10 * tolerance)
        two |= {"loss": one["loss"], "grad_norm": one["grad_norm"]}
        assert two == one  # counts, rates and the like, to the last bit
    first, second = (
        load_file(done / "trainings" / f"{case}-{dtype}-{rank}.safetensors") for rank in (0, 1)
    )
    for name, tensor in weights.items():
        assert torch.equal(first[name], second[name]), name
        same = slice(None)
        if case == "adamw" and name.endswith("qkv.bias"):
            # That of the keys moves all scores alike. Its gradient is 0 but for rounding, of which
            # AdamW makes steps of full length.
            n = len(tensor) // 3
            same = [i for i in range(3 * n) if not n <= i < 2 * n]
        torch.testing.assert_close(first[name][same], tensor[same], rtol=0, atol=tolerance)


@pytest.fixture
def meetings(done: Path) -> list[dict[str, Any]]:
    return [json.loads((done / "meetings" / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_where_processes_meet_all_have_the_same(meetings: list[dict[str, Any]]) -> None:
    own = {"worked", "gather", "gradient", "nested"}
    for each in meetings:
        each["from_first"]["nan"] = str(each["from_first"]["nan"])
    a, b = ({k: v for k, v in each.items() if k not in own} for each in meetings)
    assert a == b
    assert a == {
        "add_up": [3.0, math.inf, 0.2],
        "any": [False, True, True],
        "odd": [5.0, 7.0],  # as the second alone had it
        "never": None,
        "both": [[3.0, 3.0], [3.0, 3.0]],
        "exchange": [[0, [0, 2]], [1, [1, 2]]],
        "from_first": {"f1": 0.1, "nan": "nan"},
        "shared": [0, 1, 4, 9, 16],
        "agree": "process 1 has another model and update than process 0, expected the same on all; "
        "let every machine read the same files, and the same output folder",
    }


@pytest.mark.slow
def test_work_is_shared_and_a_group_is_not_made_twice(meetings: list[dict[str, Any]]) -> None:
    assert [each["worked"] for each in meetings] == [[0, 2, 4], [1, 3]]
    assert [each["nested"] for each in meetings] == [[0], [1]]


@pytest.mark.slow
def test_gathered_vectors_are_those_of_all_and_so_are_their_gradients(
    meetings: list[dict[str, Any]],
) -> None:
    vectors = [[0.0], [1.0], [2.0]]
    assert [each["gather"] for each in meetings] == [[vectors, 0], [vectors, 3]]
    # The loss of the first counts them once, that of the second twice.
    assert [each["gradient"] for each in meetings] == [[[3.0]] * 3, []]


@pytest.mark.slow
def test_resumed_processes_are_those_of_one_go_bit_for_bit(done: Path) -> None:
    folder = done / "gone_on_with"
    last = "checkpoints/step-0000009/tensors.safetensors"
    assert (folder / "parts" / last).read_bytes() == (folder / "whole" / last).read_bytes()
    case = {"training": {"save_every": 1, "keep_checkpoints": 99, "epochs": 3}}
    one = ranks.trainer(case, dropout=0.3, folder=folder / "parts")
    with pytest.raises(CheckpointError, match="torchrun's processes are 1, were 2; put it back"):
        one.resume()


@pytest.mark.slow
def test_one_that_is_told_to_stop_stops_all_after_the_same_update(done: Path) -> None:
    folder = done / "stopped"
    assert [(folder / f"{rank}.txt").read_text() for rank in (0, 1)] == ["3", "3"]
    assert [each.name for each in (folder / "checkpoints").iterdir()] == ["step-0000003"]


@pytest.mark.slow
def test_overflow_on_one_process_leaves_the_update_out_on_all(done: Path) -> None:
    scales = [(done / "overflowing" / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert scales == [str(2.0**15)] * 2


@pytest.mark.slow
def test_figures_are_exactly_those_of_one_process(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibert.training.evaluation._BATCH", 3)
    for case in ranks.EVALUATED:
        expected = ranks.evaluation(case)
        assert expected["loss"] > 0
        for rank in (0, 1):
            found = json.loads((done / "evaluated" / f"{rank}.json").read_text())
            assert found[case] == expected


# ---- what fails


@pytest.mark.slow
def test_loss_that_is_no_number_on_one_process_is_told_of_once(tmp_path: Path) -> None:
    ended = do(tmp_path, "no_number")
    spoken = [each for each in ended if each.said]
    assert len(spoken) == 1
    assert spoken[0].said.count("\n") == 1
    assert "the loss of update 2 is not finite" in spoken[0].said
    assert all(each.status for each in ended)


@pytest.mark.slow
def test_what_fails_on_one_process_ends_the_others_without_a_word(tmp_path: Path) -> None:
    first, second = do(tmp_path, "no_memory")
    assert first == Ended(2, "")
    assert second.status == 1
    assert second.said.count("Traceback") == 1
    assert second.said.endswith("MemoryError: no memory is left\n")


@pytest.mark.slow
def test_process_that_is_killed_is_noticed(tmp_path: Path) -> None:
    first, second = do(tmp_path, "killed")
    assert second == Ended(-signal.SIGKILL, "")
    assert first.status
    assert first.said.count("\n") == 1
    line = re.sub(r"\(.*\)", "(why)", first.said)
    assert line.startswith("minibert: process 0 of 2 lost the others (why), expected them to come;")
    assert "/" not in first.said  # a place in the source of gloo


@pytest.mark.slow
def test_interrupted_processes_end_as_stopped(tmp_path: Path) -> None:
    ended = do(tmp_path, "interrupted")
    quiet = [each for each in ended if not each.said]
    assert quiet == [Ended(130, "")]


@pytest.mark.slow
def test_folder_that_holds_a_run_is_refused_by_the_first(small: Path, tmp_path: Path) -> None:
    file = run_file(tmp_path, small, dropout=0.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    store = served()
    for attempt in range(2):  # the second as by --max-restarts
        command = ("-m", "minibert", "train", str(file))
        first, second = run_two(*command, store=store, attempt=attempt)
        assert second == Ended(2, "")
        assert first.status == 2
        assert first.said.startswith(f"minibert: {tmp_path / 'run'}: holds a run already")
        assert first.said.count("\n") == 1


# ---- torchrun


def run_file(folder: Path, small: Path, *, dropout: float, epochs: int = 3) -> Path:
    """A run of 48 and 16 sentences, 13 updates an epoch, of which the last has a single one."""
    folder.mkdir(exist_ok=True)
    write_csv(folder / "train.csv", sentences(65))
    (folder / "run.toml").write_text(f"""
task = "binary"
model = "{small}"
[data]
train = "train.csv"
validation = 0.25
max_length = 16
[training]
epochs = {epochs}
batch_size = 4
save_every = 1
seed = 7
dropout = {dropout}
[head]
dropout = {dropout}
[optimizer]
name = "sgd"
learning_rate = 1e-2
""")
    return folder / "run.toml"


def torchrun(file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "minibert", "train", str(file), *options,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote; it must not hang."""
    try:
        return process.communicate(timeout=SECONDS)
    finally:
        process.terminate()  # torchrun ends its own


@pytest.mark.slow
def test_run_file_under_torchrun_gives_what_one_process_gives(small: Path, tmp_path: Path) -> None:
    file = run_file(tmp_path / "two", small, dropout=0.0)
    process = torchrun(file)
    out, err = ended(process)
    assert process.returncode == 0, err
    one = RunConfig.from_file(run_file(tmp_path / "one", small, dropout=0.0))
    train(one, show_progress_bar=False)
    found, expected = (log_of(tmp_path / name / "run") for name in ("two", "one"))
    assert len(found) == 3 * 13 + 3
    for a, b in zip(found, expected, strict=True):
        a, b = a.get("evaluation", a), b.get("evaluation", b)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        rest = [
            {k: v for k, v in each.items() if k not in ("loss", "grad_norm")} for each in (a, b)
        ]
        assert rest[0] == rest[1]
    a, b = (
        load_file(tmp_path / name / "run" / "model" / "model.safetensors")
        for name in ("two", "one")
    )
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6)
    assert out.count("the model is in") == 1
    assert err.count("initialised afresh") == 1
    assert err.count("update 39 of 39") == 1


@pytest.mark.slow
def test_torchrun_that_is_stopped_is_gone_on_with_bit_for_bit(small: Path, tmp_path: Path) -> None:
    whole = run_file(tmp_path / "whole", small, dropout=0.1, epochs=6)
    assert [each.status for each in run_two("-m", "minibert", "train", str(whole))] == [0, 0]
    parts = run_file(tmp_path / "parts", small, dropout=0.1, epochs=6)
    process = torchrun(parts)
    checkpoints = tmp_path / "parts" / "run" / "checkpoints"
    until = time.monotonic() + SECONDS
    while not list(checkpoints.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = ended(process)
    assert process.returncode
    assert err.count("stopped; the newest checkpoint is step-") == 1
    assert not (tmp_path / "parts" / "run" / "model").exists()
    process = torchrun(parts, "--resume")
    _, err = ended(process)
    assert process.returncode == 0, err
    made = [_made(tmp_path / name / "run") for name in ("parts", "whole")]
    assert made[0] == made[1]
    assert log_of(tmp_path / "parts" / "run") == log_of(tmp_path / "whole" / "run")


def _made(folder: Path) -> Mapping[str, bytes]:
    last = "checkpoints/step-0000078/tensors.safetensors"
    names = ("model/model.safetensors", "results.json", last)
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
def test_bad_data_under_torchrun_is_told_of_once(small: Path, tmp_path: Path) -> None:
    file = run_file(tmp_path, small, dropout=0.0)
    with (tmp_path / "train.csv").open("a") as rows:
        rows.write(f"{WORDS[0]} film,\n")
    process = torchrun(file)
    _, err = ended(process)
    assert process.returncode
    (line,) = [line for line in err.splitlines() if line.startswith("minibert: ")]
    assert "1 of 66 rows are bad" in line
    assert not (tmp_path / "run" / "run.json").exists()
