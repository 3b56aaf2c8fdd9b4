"""One training run in several processes: what they share out, and where they meet.

    torchrun --nproc-per-node 2 -m minibert train run.toml

Each process has the whole network and all examples, and computes its share of every batch; the sums
are added up, then divided by the count of all.  That is what one process does with the portions of
a batch, so the figures are those of one process, whatever the shares hold.

Who needs the others asks `current()`; outside of `together`, and without torchrun, a process is
alone, and every method says what one process does by itself.  All processes have to call the
methods that meet, in the same order.

Numbers and texts, which every process has in its own memory, go over gloo; gradients and vectors
over nccl where they are on a GPU.  A process that is gone is noticed at the next meeting over gloo,
which comes before any over nccl: nobody waits on a GPU for who does not come.

Differs: torch.nn.parallel.DistributedDataParallel divides by the number of processes, which is
    wrong where the shares do not count alike, and adds up while the backward pass still runs.  Here
    gradients are added up once an update, behind all portions: a little slower, but right for
    shares without anything that counts, parameters that get no gradient and such as are thawed.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from minibert.errors import RunError, TrainingError

T = TypeVar("T")

# Values that are added up by one call: enough for the time of the call itself not to count, few
# enough for their copy not to.
_BUCKET = 1 << 22
_SECONDS_TO_SPEAK = 1.0

_alone: ContextVar[bool] = ContextVar("alone", default=False)


class Gathered(NamedTuple):
    """The vectors of all processes, and at which of them this one's begin."""

    vectors: Float[Tensor, "all dim"]
    start: int


@dataclass(frozen=True)
class Processes:
    """Those that train together, seen from one of them; made by `current`.

    Attributes:
        rank: which it is, counted from 0.
        size: how many there are.
        local_rank: which it is on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """What this process draws with, so that no two drop the same; the first one's is `seed`."""
        if self.is_first:
            return seed
        digest = hashlib.sha256(f"{seed}\0{self.rank}".encode()).digest()
        return int.from_bytes(digest[:7])

    def device(self, wanted: str) -> str:
        """The device that a run file means on this process: of GPUs each takes its own.

        Raises: RunError for a device that processes cannot share, or too few GPUs.
        """
        if self.size == 1 or wanted == "cpu":
            return wanted
        if wanted == "auto" and not torch.cuda.is_available():
            return "cpu"
        if wanted not in ("auto", "cuda"):
            raise RunError(
                f"training.device is {wanted!r} under torchrun, expected 'auto', 'cuda' or 'cpu': "
                "each process takes a GPU of its own"
            )
        n_gpus = torch.cuda.device_count()
        if self.local_rank >= n_gpus:
            raise RunError(
                f"torchrun started a process {self.local_rank + 1} on a machine with {n_gpus} "
                f"GPUs, expected one for each; take --nproc-per-node {n_gpus}, or "
                "training.device = 'cpu'"
            )
        return f"cuda:{self.local_rank}"

    @contextmanager
    def sharing(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Within the block, the rows of a batch that this process computes.

        Every n-th is its own: rows come sorted by length, so the shares have about the same work.
        Of fewer rows than processes the first computes all, alone: the others have none, and do
        not come where it meets them.
        """
        if len(rows) >= self.size:
            yield list(rows[self.rank :: self.size])
            return
        with _by_itself():
            yield list(rows) if self.is_first else []

    # ---- where they meet

    def add_up(self, *values: float) -> list[float]:
        """The sum over the processes of each value, in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        with self._meeting():
            dist.all_reduce(sums)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is so on one of the processes."""
        return self.add_up(float(flag))[0] > 0

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients on all processes.

        One that has a gradient on some of them gets it on all, one that has none nowhere keeps
        none: the optimizer passes it over.
        """
        if self.size == 1:
            return
        every = list(parameters)
        found = self.add_up(*(float(parameter.grad is not None) for parameter in every))
        gradients = []
        for parameter, n in zip(every, found, strict=True):
            if n:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with self._meeting():
                dist.all_reduce(flat)
            sums = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, total in zip(bucket, sums, strict=True):
                gradient.copy_(total.view_as(gradient))

    def exchange(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """What each process gives, in their order; of other processes on the CPU."""
        if self.size == 1:
            return [dict(tensors)]
        given = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return [load(each) for each in self._exchange(save(given))]

    def from_first(self, value: Any) -> Any:
        """What the first process has, on all of them; of what JSON can say."""
        if self.size == 1:
            return value
        said = json.dumps(value if self.is_first else None)
        return json.loads(self._exchange(said.encode())[0])

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raises: RunError where another process has other facts, naming which."""
        if self.size == 1:
            return
        said = [json.loads(each) for each in self._exchange(json.dumps(dict(facts)).encode())]
        for rank, each in enumerate(said):
            differing = [name for name, value in said[0].items() if each.get(name) != value]
            if differing:
                raise RunError(
                    f"process {rank} has another {' and '.join(differing)} than process 0, "
                    "expected the same on all; let every machine read the same files, and the "
                    "same output folder"
                )

    def shared(
        self, items: Iterable[T], work: Callable[[T], Mapping[str, Tensor]]
    ) -> Iterator[dict[str, Tensor]]:
        """The work on each item, in order, each done by one of the processes, alone."""
        rest = iter(items)
        while group := list(islice(rest, self.size)):
            own: Mapping[str, Tensor] = {}
            if self.rank < len(group):
                with _by_itself():
                    own = work(group[self.rank])
            yield from self.exchange(own)[: len(group)]

    def gather(self, vectors: Float[Tensor, "batch dim"]) -> Gathered:
        """The vectors of all processes, as many as each has; gradients go back to all of them.

        Each process takes the loss of its own vectors against all; the gradient of a vector is the
        sum of what it did to the loss of each process.
        """
        if self.size == 1:
            return Gathered(vectors, 0)
        counts = [int(each["n"]) for each in self.exchange({"n": torch.tensor(len(vectors))})]
        gathered: Tensor = _Gather.apply(vectors, self, counts)  # type: ignore[no-untyped-call]
        return Gathered(gathered, sum(counts[: self.rank]))

    @contextmanager
    def first_within(self, block: AbstractContextManager[Any]) -> Iterator[None]:
        """The first process enters `block` before the others go on; all leave together."""
        with block if self.is_first else nullcontext():
            self.add_up(0.0)
            yield
            self.add_up(0.0)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process has done with the block before the others enter it."""
        if not self.is_first:
            self.add_up(0.0)
        yield
        if self.is_first:
            self.add_up(0.0)

    def _exchange(self, data: bytes) -> list[bytes]:
        """The bytes of each process."""
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._meeting():
            dist.all_gather(sizes, torch.tensor([len(own)]))
        found = self._padded(own, [int(each) for each in sizes])
        return [each.numpy().tobytes() for each in found]

    def _padded(self, own: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The tensor of each process, which has so many rows; they travel at one length."""
        sent = own.new_zeros((max(counts), *own.shape[1:]))
        sent[: len(own)] = own
        found = [torch.empty_like(sent) for _ in counts]
        with self._meeting():
            dist.all_gather(found, sent)
        return [each[:count] for each, count in zip(found, counts, strict=True)]

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Raises: TrainingError where another process does not come."""
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(
                f"process {self.rank} of {self.size} lost the others ({_reason(error)}), "
                "expected them to come; see what ended them, and go on with --resume"
            ) from None


@contextmanager
def _by_itself() -> Iterator[None]:
    """Within the block a process does not meet the others."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


class _Gather(torch.autograd.Function):
    """The vectors of all processes end to end."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, processes: Processes, counts: list[int]) -> Tensor:
        ctx.processes, ctx.counts = processes, counts
        return torch.cat(processes._padded(vectors, counts))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """What the losses of all processes say of this one's vectors."""
        processes, counts = ctx.processes, ctx.counts
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        with processes._meeting():
            dist.all_reduce(total)
        return torch.split(total, counts)[processes.rank], None, None


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours, as many as fill a bucket."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def current() -> Processes:
    """The processes that train together, seen from this one; one alone outside of `together`."""
    if _alone.get() or not (dist.is_available() and dist.is_initialized()):
        return Processes()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return Processes(dist.get_rank(), dist.get_world_size(), local_rank)


@contextmanager
def together() -> Iterator[Processes]:
    """Within the block the processes that torchrun started are one group.

    Without torchrun, and inside of such a block, nothing changes.

    Where a process fails, the others, which wait for it or fail of the same, end without a word:
    one line says what was wrong, that of the process which failed first.

    Raises: TrainingError where the others do not come; SystemExit on all that fail but the first
        to do so.
    """
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        yield current()
        return
    # Here: not every torch has them.
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    with_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        found, rank, size = next(rendezvous("env://"))
        # What processes left there that torchrun has started again is not for these.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), found)
        backend = "cpu:gloo,cuda:nccl" if with_nccl else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except RuntimeError as error:
        raise TrainingError(
            f"the processes that torchrun started do not find each other: {_reason(error)}"
        ) from None
    log = logging.getLogger("minibert")
    level = log.level
    if rank:  # what is worth telling is so on the first too
        log.setLevel(logging.ERROR)
    failed = True
    try:
        yield current()
        failed = False
    except BaseException as error:
        if not _is_first_to_fail(store.add):
            time.sleep(_SECONDS_TO_SPEAK)  # torchrun stops all as soon as one has ended
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise
    finally:
        log.setLevel(level)
        if not (failed and with_nccl):  # which would wait for the others
            dist.destroy_process_group()


def _is_first_to_fail(add: Callable[[str, int], int]) -> bool:
    """Whether no other process has failed before, by a count that all share."""
    try:
        return add("minibert/failed", 1) == 1
    except RuntimeError:  # who kept count is gone: better two lines than none
        return True


def _reason(error: Exception) -> str:
    """The first sentence of gloo's, without the place in its source."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"\[/[^]]*\] ", "", line).split(". ")[0]
