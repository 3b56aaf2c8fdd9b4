"""The task of finding where in a text the answer to a question stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minibert.checkpoint import Pretrained, load
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.heads import BertForQuestionAnswering
from minibert.layout import unpack
from minibert.prediction.windows import best_spans
from minibert.tokenizer import Tokenizer
from minibert.training.encoding import LOST, NOWHERE
from minibert.training.examples import Batch, Examples, Found, collate
from minibert.training.losses import LossSum, span
from minibert.training.metrics import Metrics
from minibert.training.run_config import RunConfig
from minibert.training.text_losses import allowed
from minibert.training.text_task import with_dropout

_LEAST_TOKENS = 30  # that answers may have, however short those of train are


@dataclass(frozen=True, eq=False)
class SpanTask:
    """Where an answer begins and ends, of each token of its text; [CLS] stands for "nowhere"."""

    max_tokens: int  # that an answer may have
    may_lack: bool  # may there be none?
    name: str = "spans"
    labels: tuple[str, ...] = ()

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder with its head for spans, fresh where there is none."""
        config = with_dropout(run, BertConfig.from_file(folder / "config.json"))
        torch.manual_seed(run.training.seed)
        return load(BertForQuestionAnswering, folder, config)

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Examples as a batch; the targets are first and last token, `(batch, 2)`."""
        return collate(examples, rows, dtype=torch.long)

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch, and the "logits" of beginning and end: `(tokens, 2)`."""
        out = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        start, end = (unpack(each, batch.layout) for each in (out.start_logits, out.end_logits))
        mask = unpack(torch.ones_like(batch.input_ids, dtype=torch.bool), batch.layout)
        loss = span(start, end, batch.targets[:, 0], batch.targets[:, 1], mask=mask)
        return loss, {"logits": torch.stack([out.start_logits, out.end_logits], dim=-1)}

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give the metrics the best answer of each text, in any of its windows."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        for batch, given in results:
            parts = torch.split(given["logits"].float(), list(batch.layout.lengths))
            for row, each in zip(batch.rows, parts, strict=True):
                found[row] = each
        pairs = [self._judged_text(found, examples, rows) for rows in examples.windows]
        metrics.update_spans([best for best, _ in pairs], [wanted for _, wanted in pairs])
        return {}

    def _judged_text(
        self, found: Sequence[Tensor], examples: Examples, rows: Sequence[int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last token of the best answer and of the right one, counted in the text."""
        logits, spans, wanted = [], [], NOWHERE
        for row in rows:
            first = examples.types[row].index(1)
            stop = len(examples.ids[row]) - 1  # the last token is [SEP]
            shift = examples.starts[row]
            logits.append(found[row][first:stop])
            spans.append((first + shift, stop + shift))
            target = examples.targets[row]
            if target == LOST:
                wanted = LOST
            elif target != (0, 0):
                wanted = (target[0] + shift, target[1] + shift)
        nulls = torch.stack([found[row][0] for row in rows])
        best = best_spans(logits, spans, nulls, max_tokens=self.max_tokens)
        lacks = self.may_lack and best.spans and best.no_answer >= best.spans[0].probability
        if lacks or not best.spans:
            return NOWHERE, wanted
        return (best.spans[0].start, best.spans[0].stop - 1), wanted

    def finish(self, model: Pretrained) -> None:
        """Nothing is left to be done."""

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write model and tokenizer."""
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def span_task(run: RunConfig, examples: Examples) -> SpanTask:
    """The task of a run: answers may be as long as the longest of its examples, and than most are.

    Raises: RunError for another loss than that of classes, and where there is no answer to learn.
    """
    allowed(run, "cross_entropy")
    answers = [target for target in examples.targets if target not in (LOST, (0, 0))]
    if not answers:
        raise RunError(
            "no answer of train lies within data.max_length, expected one at least; raise it, or "
            "set data.long_text = 'windows'"
            if LOST in examples.targets
            else "no question of train has an answer, expected one at least; is data.label right?"
        )
    may_lack = any(
        all(examples.targets[row] == (0, 0) for row in rows) for rows in examples.windows
    )
    return SpanTask(max(_LEAST_TOKENS, *(b - a + 1 for a, b in answers)), may_lack)
