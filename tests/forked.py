"""The command in children of a process that has imported everything: they start in no time.

A child is a real process: it can be killed, gets signals, and its file system calls may fail.  What
is run by one thread and forked before anything is computed computes the same bits as any other.

    with Forked() as forked:
        ended = forked.run("train", "run.toml", kill_after=0.2)
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# Of this process's children, and theirs: more threads would not survive the fork.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


class Ended(NamedTuple):
    """How a command ended: its exit status, or the signal that killed it as a negative number."""

    status: int
    out: str
    err: str
    seconds: float
    calls: int  # that write, as far as they were counted

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Forked:
    """Runs commands one after the other, each in a child of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def run(
        self,
        *args: str | Path,
        kill_after: float | None = None,
        fail_at: int | None = None,
        code: int | None = None,
        moment: str = "",
        signals: tuple[int, ...] = (),
        fill: str | Path = "",
    ) -> Ended:
        """Run the command to its end.

        Args:
            kill_after: seconds after which it is killed.
            fail_at: the number of the call that writes which fails, by `code`, or which kills it.
            moment: of training, at which it sends itself `signals`, one after the other, and writes
                a file `fill` until there is no more room; see `_at_a_moment`.
        """
        asked = {
            "args": [str(arg) for arg in args], "kill_after": kill_after, "fail_at": fail_at,
            "code": code, "moment": moment, "signals": [int(each) for each in signals],
            "fill": str(fill),
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


# ---- the process itself


def _serve() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    torch.set_num_threads(1)
    import minibert.training.run
    from minibert import cli  # noqa: F401
    from minibert.training.metrics import classification

    classification()
    import failures  # noqa: F401

    from minibert.training.loop import Observer

    # A picture takes longer than all else that these runs do, and no failure of it ends a run.
    minibert.training.run.Curves = lambda folder, say: Observer()  # type: ignore[assignment, misc]

    with tempfile.TemporaryDirectory() as place:
        for line in sys.stdin:
            ended = _fork(json.loads(line), Path(place))
            sys.stdout.write(json.dumps(ended._asdict()) + "\n")
            sys.stdout.flush()


def _fork(asked: dict[str, Any], place: Path) -> Ended:
    """Do what is asked for in a child, and see how that ends."""
    for name in ("out", "err", "calls"):
        (place / name).write_bytes(b"")
    start = time.monotonic()
    child = os.fork()
    if not child:
        try:
            os._exit(_child(asked, place))
        except BaseException:  # which must not go on as the server
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    after = asked["kill_after"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if after is not None and time.monotonic() - start > after:
            os.kill(child, signal.SIGKILL)
            after = None
        time.sleep(0.0005)
    seconds = time.monotonic() - start
    out, err, calls = ((place / name).read_text() for name in ("out", "err", "calls"))
    return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, int(calls or 0))


def _child(asked: dict[str, Any], place: Path) -> int:
    from failures import Failing

    from minibert import cli

    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(place / name, os.O_WRONLY), number)
    if asked["moment"]:
        _at_a_moment(asked["moment"], asked["signals"], asked["fill"])
    if asked["fail_at"] is None:
        return _flushed(cli.main(asked["args"]))
    failing = Failing(asked["fail_at"], asked["code"], die=_die)
    with failing.installed():
        with failing:
            status = cli.main(asked["args"])
        calls = failing.calls
    (place / "calls").write_text(str(calls))
    return _flushed(status)


def _flushed(status: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


def _at_a_moment(moment: str, numbers: list[int], fill: str) -> None:
    """Have something happen to this process when a function is called for the so many-th time.

    "read_dataset 1", "Evaluation.report 1", "Trainer._update 3": as the function begins.
    """
    from minibert.training import loop, run, text_task

    name, _, count = moment.rpartition(" ")
    owners: dict[str, Any] = {
        "read_dataset": run, "save": run, "Evaluation.report": run.Evaluation,
        "Evaluation.__call__": run.Evaluation, "Trainer._update": loop.Trainer,
        "Trainer.save": loop.Trainer, "TextTask.network": text_task.TextTask,
    }  # fmt: skip
    owner, attribute = owners[name], name.rpartition(".")[2]
    real, calls = getattr(owner, attribute), []

    def call(*args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == int(count):
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.001)  # which a signal ends
            if fill:
                _fill_up(Path(fill))
        return real(*args, **named)

    setattr(owner, attribute, call)


def _fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


if __name__ == "__main__":
    _serve()
