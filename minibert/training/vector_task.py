"""Tasks that give each text a vector of its own: pairs with a score, pairs that belong together.

The texts of an example are sequences of one batch; the encoder sees each alone, and the recipe of
the checkpoint says how its vector is made.  What is saved is an `Embedder`.

Losses may compare the examples of a batch with each other.  Of several processes each takes the
loss of the whole batch, of the vectors of all of them, and answers for the share that its own
examples are of it; so they come to what one process does.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minibert.checkpoint import Pretrained, load
from minibert.config import BertConfig
from minibert.embed import Embedder
from minibert.errors import RunError
from minibert.model import BertModel
from minibert.pooling import normalise, pool
from minibert.recipe import Recipe
from minibert.tokenizer import Tokenizer
from minibert.training import losses
from minibert.training.examples import Batch, Examples, Found, collate
from minibert.training.losses import LossSum
from minibert.training.metrics import Metrics
from minibert.training.processes import current
from minibert.training.run_config import RunConfig
from minibert.training.text_losses import allowed
from minibert.training.text_task import with_dropout


class Vectors(NamedTuple):
    """What a loss takes: the vectors of a batch, on how many processes it may be computed."""

    vectors: Float[Tensor, "batch parts width"]
    targets: Float[Tensor, " batch"]
    texts: Int[Tensor, "batch parts"]  # a number for each text, alike for alike


Loss = Callable[[Vectors], LossSum]


@dataclass(frozen=True, eq=False)
class VectorTask:
    """`similarity`: the cosine of two texts is as their score; `contrastive`: each text is nearer
    to its own second text than to those of all others."""

    name: str
    recipe: Recipe
    loss: Loss
    temperature: float = 1.0
    dims: tuple[int, ...] = ()  # widths that the vectors are cut to
    labels: tuple[str, ...] = ()

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder.

        Raises: RunError for vectors that are to be cut to more than their width.
        """
        config = with_dropout(run, BertConfig.from_file(folder / "config.json"))
        width = config.hidden_size * len(self.recipe.pooling)
        if max(self.dims, default=0) > width:
            raise RunError(
                f"loss.matryoshka_dims has {max(self.dims)}, expected at most {width}, the width "
                "of the model's vectors"
            )
        return load(BertModel, folder, config)

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Examples as a batch, and which of their texts are alike."""
        numbers = [[examples.alike[each] for each in examples.sequences(row)] for row in rows]
        batch = collate(examples, rows, dtype=torch.float)
        return batch._replace(texts=torch.tensor(numbers))

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch, and the "vectors" of its texts: `(batch, parts, width)`.

        Of several processes it is the share that the batch has in that of all of them.
        """
        out = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        pooled = pool(out.last_hidden_state, batch.layout, self.recipe.pooling)
        vectors = pooled[batch.parts]  # (batch, parts, width)
        everything = _of_all_processes(vectors, batch)
        loss, n_own = self.loss(everything), len(vectors)
        share = n_own / len(everything.vectors)
        return LossSum(loss.sum * share, loss.count.new_full((), n_own)), {"vectors": vectors}

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give the metrics the cosines; of `contrastive` with all second texts of a batch."""
        for batch, given in results:
            # In float64, which half precision leaves alone.
            vectors = given["vectors"].double()
            unit = normalise(vectors.flatten(0, 1)).view(vectors.shape)
            if self.name == "similarity":
                metrics.update((unit[:, 0] * unit[:, 1]).sum(dim=-1), batch.targets)
                continue
            scores = unit[:, 0] @ _candidates(unit).T / self.temperature
            own = torch.eye(*scores.shape, dtype=torch.bool)
            assert batch.texts is not None
            scores = scores.masked_fill(_no_negatives(batch.texts) & ~own, -torch.inf)
            metrics.update(scores, torch.arange(len(scores)))
        return {}

    def finish(self, model: Pretrained) -> None:
        """Nothing is left to be done."""

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write a folder that `Embedder` and sentence-transformers open."""
        assert isinstance(model, BertModel)
        Embedder(model, tokenizer, self.recipe).save_pretrained(folder)


def vector_task(run: RunConfig, recipe: Recipe, scores: Sequence[int | float]) -> VectorTask:
    """The task of a run that names one of vectors.

    What is saved reads texts as training does: as far as data.max_length, and without a prompt that
    the checkpoint puts before each.

    Args:
        recipe: of the checkpoint.
        scores: those of the training examples; of `contrastive` they say nothing.

    Raises: RunError for settings that do not fit the task.
    """
    if recipe.dense:
        raise RunError(
            f"model {run.model!r} has a dense module behind its pooling, which is not trained "
            "here; expected pooling alone"
        )
    dims = tuple(run.loss.matryoshka_dims)
    if any(dim < 1 for dim in dims) or len(set(dims)) < len(dims):
        raise RunError(
            f"loss.matryoshka_dims is {list(dims)}, expected widths of 1 or more, each once"
        )
    loss = _similarity(run, scores) if run.task == "similarity" else _contrastive(run)
    recipe = replace(recipe, max_length=run.data.max_length, default_prompt=None)
    return VectorTask(run.task, recipe, loss, run.loss.temperature, dims)


def _similarity(run: RunConfig, scores: Sequence[int | float]) -> Loss:
    compare: Callable[[Tensor, Tensor, Tensor], LossSum]
    if allowed(run, "cosent", "cosine") == "cosent":
        compare = partial(losses.cosent, scale=1 / run.loss.temperature)
        scale = 1.0  # of which only the order matters
    else:
        compare = losses.cosine_similarity
        scale = run.data.score_scale or max(map(abs, scores), default=0.0) or 1.0

    def loss(given: Vectors) -> LossSum:
        targets = given.targets / scale
        return _of_all_widths(run, lambda a, b: compare(a, b, targets), given)

    return loss


def _contrastive(run: RunConfig) -> Loss:
    settings = run.loss
    if allowed(run, "contrastive", "triplet") == "triplet":
        if len(run.data.negatives) != 1:
            raise RunError(
                f"data.negatives names {len(run.data.negatives)} columns, expected one for loss "
                "'triplet'"
            )
        if settings.symmetric:
            raise RunError("loss.symmetric goes with contrastive, not with triplet")
        far = partial(losses.triplet, margin=settings.margin, distance="cosine")
        return lambda given: _of_all_widths(run, far, given)

    def loss(given: Vectors) -> LossSum:
        same = _no_negatives(given.texts)

        def compare(anchors: Tensor, positives: Tensor, *negatives: Tensor) -> LossSum:
            hard = torch.cat(negatives) if negatives else None
            return losses.contrastive(
                anchors, positives, hard, temperature=settings.temperature,
                symmetric=settings.symmetric, same=same,
            )  # fmt: skip

        return _of_all_widths(run, compare, given)

    return loss


def _of_all_widths(run: RunConfig, loss: Callable[..., LossSum], given: Vectors) -> LossSum:
    """The loss of the vectors as they are, or the sum of those of each width that they are cut to.

    Args:
        loss: a function of first, second, … vectors.
    """
    parts = given.vectors.unbind(dim=1)
    dims = run.loss.matryoshka_dims
    return losses.matryoshka(loss, parts, dims=dims) if dims else loss(*parts)


def _of_all_processes(vectors: Float[Tensor, "own parts width"], batch: Batch) -> Vectors:
    """The vectors of this process and of those that compute the rest of the batch."""
    assert batch.texts is not None
    processes = current()
    rows = processes.gather(vectors.flatten(0, 1)).vectors
    others = processes.exchange({"targets": batch.targets, "texts": batch.texts})
    targets, texts = (
        torch.cat([each[name] for each in others]).to(rows.device) for name in ("targets", "texts")
    )
    return Vectors(rows.view(-1, *vectors.shape[1:]), targets, texts)


def _candidates(vectors: Float[Tensor, "batch parts width"]) -> Float[Tensor, "candidates width"]:
    """What a first text is compared with: all second texts, then all third ones, …"""
    return vectors[:, 1:].transpose(0, 1).flatten(0, 1)


def _no_negatives(texts: Int[Tensor, "batch parts"]) -> Bool[Tensor, "batch candidates"]:
    """True where a candidate is no negative of a first text: it is that text, or one that belongs
    to it, be it in another example."""
    anchors, positives = texts[:, 0], texts[:, 1]
    candidates = texts[:, 1:].T.flatten()
    alike = (anchors[:, None] == anchors).double()  # (batch, batch)
    belongs = (positives[:, None] == candidates).double()  # (batch, candidates)
    return (candidates == anchors[:, None]) | (alike @ belongs > 0)
