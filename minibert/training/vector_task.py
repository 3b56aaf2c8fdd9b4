"""Tasks that give each text a vector of its own: pairs with a score, pairs that belong together.

The texts of an example are sequences of one batch; the encoder sees each alone, and the recipe of
the checkpoint says how its vector is made.  What is saved is an `Embedder`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float
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
from minibert.training.run_config import RunConfig
from minibert.training.text_losses import allowed
from minibert.training.text_task import with_dropout


@dataclass(frozen=True, eq=False)
class VectorTask:
    """`similarity`: the cosine of two texts is as their score; `contrastive`: each text is nearer
    to its own second text than to those of all others."""

    name: str
    recipe: Recipe
    loss: Callable[[Sequence[Tensor], Batch], LossSum]
    temperature: float = 1.0
    labels: tuple[str, ...] = ()

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder."""
        config = with_dropout(run, BertConfig.from_file(folder / "config.json"))
        return load(BertModel, folder, config)

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Examples as a batch, which texts of it are equal too."""
        batch = collate(examples, rows, dtype=torch.float)
        if self.name == "similarity":
            return batch
        return batch._replace(same=_same(examples, rows))

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch, and the "vectors" of its texts: `(batch, parts, width)`."""
        out = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        vectors = pool(out.last_hidden_state, batch.layout, self.recipe.pooling)
        assert batch.parts is not None
        vectors = vectors[batch.parts]  # (batch, parts, width)
        return self.loss(vectors.unbind(dim=1), batch), {"vectors": vectors}

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give the metrics the cosines; of `contrastive` with all second texts of a batch."""
        for batch, given in results:
            vectors = given["vectors"].float()
            unit = normalise(vectors.flatten(0, 1)).view(vectors.shape)
            if self.name == "similarity":
                metrics.update((unit[:, 0] * unit[:, 1]).sum(dim=-1), batch.targets)
                continue
            scores = unit[:, 0] @ _candidates(list(unit.unbind(dim=1))).T / self.temperature
            own = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
            assert batch.same is not None
            scores = scores.masked_fill(batch.same & ~own, -torch.inf)
            metrics.update(scores, torch.arange(len(scores), device=scores.device))
        return {}

    def finish(self, model: Pretrained) -> None:
        """Nothing is left to be done."""

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write a folder that `Embedder` and sentence-transformers open."""
        assert isinstance(model, BertModel)
        Embedder(model, tokenizer, self.recipe).save_pretrained(folder)


def vector_task(run: RunConfig, recipe: Recipe, scores: Sequence[float]) -> VectorTask:
    """The task of a run that names one of vectors.

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
    make = _similarity_loss if run.task == "similarity" else _contrastive_loss
    return VectorTask(run.task, recipe, make(run, recipe, scores), run.loss.temperature)


def _similarity_loss(
    run: RunConfig, recipe: Recipe, scores: Sequence[float]
) -> Callable[[Sequence[Tensor], Batch], LossSum]:
    compare: Callable[[Tensor, Tensor, Tensor], LossSum]
    if allowed(run, "cosent", "cosine") == "cosent":
        compare = partial(losses.cosent, scale=1 / run.loss.temperature)
        scale = 1.0  # of which only the order matters
    else:
        compare = losses.cosine_similarity
        scale = run.data.score_scale or max(map(abs, scores), default=0.0) or 1.0
        if max(map(abs, scores), default=0.0) > scale:
            raise RunError(
                f"data.score_scale is {scale:g}, expected at least {max(map(abs, scores)):g}, the "
                "largest score of train: a cosine is at most 1"
            )
    wrapped = _of_all_widths(run, recipe)

    def loss(vectors: Sequence[Tensor], batch: Batch) -> LossSum:
        return wrapped(lambda a, b: compare(a, b, batch.targets / scale), vectors)

    return loss


def _contrastive_loss(
    run: RunConfig, recipe: Recipe, scores: Sequence[float]
) -> Callable[[Sequence[Tensor], Batch], LossSum]:
    settings, wrapped = run.loss, _of_all_widths(run, recipe)
    if allowed(run, "contrastive", "triplet") == "triplet":
        if len(run.data.negatives) != 1:
            raise RunError(
                f"data.negatives names {len(run.data.negatives)} columns, expected one for loss "
                "'triplet'"
            )
        compare = partial(losses.triplet, margin=settings.margin, distance="cosine")
        return lambda vectors, batch: wrapped(compare, vectors)

    def loss(vectors: Sequence[Tensor], batch: Batch) -> LossSum:
        def one_width(anchors: Tensor, positives: Tensor, *negatives: Tensor) -> LossSum:
            hard = _candidates([anchors, *negatives]) if negatives else None
            return losses.contrastive(
                anchors, positives, hard, temperature=settings.temperature,
                symmetric=settings.symmetric, same=batch.same,
            )  # fmt: skip

        return wrapped(one_width, vectors)

    return loss


def _of_all_widths(run: RunConfig, recipe: Recipe) -> Callable[..., LossSum]:
    """What calls a loss with the vectors as they are, or cut to each of the widths asked for."""
    dims = run.loss.matryoshka_dims
    if not dims:
        return lambda loss, vectors: loss(*vectors)
    return lambda loss, vectors: losses.matryoshka(loss, vectors, dims=dims)


def _candidates(parts: Sequence[Float[Tensor, "batch width"]]) -> Float[Tensor, "candidates width"]:
    """What an anchor is compared with: all second texts, then all third ones, …"""
    return torch.cat(list(parts[1:]))


def _same(examples: Examples, rows: Sequence[int]) -> Bool[Tensor, "batch candidates"]:
    """True where a candidate is no negative: it equals the anchor, its second text, or belongs to
    an equal anchor."""
    numbers: dict[tuple[int, ...], int] = {}
    table = torch.tensor(
        [
            [numbers.setdefault(tuple(examples.ids[each]), len(numbers)) for each in sequences]
            for sequences in map(examples.sequences, rows)
        ]
    )
    anchors, positives = table[:, 0, None], table[:, 1, None]
    candidates = _candidates(list(table.unbind(dim=1)))[None]
    same = (candidates == anchors) | (candidates == positives)
    same[:, : len(rows)] |= anchors == anchors.T
    return same
