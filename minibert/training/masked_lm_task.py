"""What BERT is pretrained on: the words that were masked, and whether a text follows another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from minibert.checkpoint import Pretrained, load
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.heads import BertForMaskedLM, BertForPreTraining
from minibert.tokenizer import Tokenizer
from minibert.training.examples import Batch, Examples, Found, collate
from minibert.training.losses import IGNORED, LossSum, masked_lm, next_sentence
from minibert.training.masking import Masking
from minibert.training.metrics import Metrics
from minibert.training.run_config import RunConfig
from minibert.training.text_losses import allowed
from minibert.training.text_task import with_dropout


@dataclass(frozen=True, eq=False)
class MaskedLMTask:
    """Masked words, drawn anew for each update, the same ones for each evaluation.

    Which words are masked is a function of seed, update and example, so that neither portions of a
    batch nor a resumed run change it.
    """

    masking: Masking
    seed: int
    pair_weight: float | None = None  # of the next sentence: masked words that a pair counts as
    name: str = "masked_lm"
    labels: tuple[str, ...] = ()

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder with its head for words, fresh where there is none."""
        config = with_dropout(run, BertConfig.from_file(folder / "config.json"))
        torch.manual_seed(run.training.seed)
        return load(
            BertForMaskedLM if self.pair_weight is None else BertForPreTraining, folder, config
        )

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Examples as a batch, masked; the targets are the words that stood there: `(tokens,)`."""
        ids, targets = [], []
        for row in rows:
            drawn = np.random.SeedSequence([self.seed, 0 if step is None else step + 1, row])
            seed = int(drawn.generate_state(1, np.uint64)[0] >> np.uint64(1))
            generator = torch.Generator().manual_seed(seed)
            masked = self.masking.mask(torch.tensor([examples.ids[row]]), generator=generator)
            ids.append(masked.input_ids[0].tolist())
            targets.append(masked.labels[0].tolist())
        types = [examples.types[row] for row in rows]
        batch = collate(Examples(ids, types, targets), range(len(rows)), dtype=torch.long)
        taken = tuple(rows[i] for i in batch.rows)
        pairs = None
        if self.pair_weight is not None:
            pairs = torch.tensor([examples.targets[row] for row in taken])
        return batch._replace(rows=taken, next_sentence=pairs)

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch.

        With the next sentence it is Σ masked words' losses + w · Σ pairs' losses over the number of
        masked words, where w is the mean of masked words a pair: so the mean is about the sum of
        both means, and portions add up.
        Differs: google-research/bert adds the two means of each batch.
        """
        return self._loss(*self._logits(model, batch), batch)

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch; of each masked word its loss and whether it was told "right", and
        of each pair.

        Logits are as wide as the vocabulary: too much to be kept, or to be sent.
        """
        logits, pairs = self._logits(model, batch)
        wanted = _wanted(batch)
        found = {
            "losses": F.cross_entropy(logits.float(), wanted, reduction="none"),
            "right": logits.argmax(dim=-1) == wanted,
        }
        if pairs is not None:
            assert batch.next_sentence is not None
            found["pairs_right"] = pairs.argmax(dim=1).eq(batch.next_sentence)
        return self._loss(logits, pairs, batch), found

    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits of the masked words, `(masked, vocab)`, and of the pairs, where there are any."""
        assert isinstance(model, BertForMaskedLM | BertForPreTraining)
        out = model.bert(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        masked = (batch.targets != IGNORED).nonzero()[:, 0]
        # Over the vocabulary logits are wide: only of the words that are to be predicted.
        logits = model.predictions(
            out.last_hidden_state[masked], model.bert.embeddings.token.weight
        )
        if self.pair_weight is None:
            return logits, None
        assert isinstance(model, BertForPreTraining)
        return logits, model.next_sentence(out.pooler_output)

    def _loss(self, logits: Tensor, pairs: Tensor | None, batch: Batch) -> LossSum:
        loss = masked_lm(logits, _wanted(batch))
        if pairs is None:
            return loss
        assert batch.next_sentence is not None
        assert self.pair_weight is not None
        of_pairs = next_sentence(pairs, batch.next_sentence)
        return LossSum(loss.sum + self.pair_weight * of_pairs.sum, loss.count)

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give the metrics the masked words; how many pairs were told rightly."""
        n_right = n_pairs = 0
        for _, given in results:
            metrics.update_words(given["losses"], given["right"])
            if "pairs_right" in given:
                n_right += int(given["pairs_right"].sum())
                n_pairs += len(given["pairs_right"])
        return {"next_sentence_accuracy": n_right / n_pairs} if n_pairs else {}

    def finish(self, model: Pretrained) -> None:
        """Nothing is left to be done."""

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write model and tokenizer."""
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def masked_lm_task(run: RunConfig, tokenizer: Tokenizer, examples: Examples) -> MaskedLMTask:
    """The task of a run.

    Raises: RunError, TrainingError for settings that do not fit.
    """
    allowed(run, "cross_entropy")
    settings = run.masking
    if settings.mask_share + settings.random_share > 1:
        raise RunError(
            f"masking.mask_share and random_share are {settings.mask_share} and "
            f"{settings.random_share}, expected at most 1 together"
        )
    masking = Masking.of(
        tokenizer,
        fraction=settings.fraction,
        mask_share=settings.mask_share,
        random_share=settings.random_share,
        whole_words=settings.whole_words,
    )
    weight = None
    if settings.next_sentence:
        weight = settings.fraction * sum(examples.lengths) / len(examples)
    return MaskedLMTask(masking, run.training.seed, weight)


def _wanted(batch: Batch) -> Int[Tensor, " masked"]:
    """The words that were masked."""
    return batch.targets[batch.targets != IGNORED]
