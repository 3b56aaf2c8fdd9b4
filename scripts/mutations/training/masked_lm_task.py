"""Edits of minibert/training/masked_lm_task.py, each of which a test has to notice."""

EDITS = (
    (
        "BertForMaskedLM if self.pair_weight is None else BertForPreTraining, folder",
        "BertForMaskedLM, folder",
    ),
    ("        torch.manual_seed(run.training.seed)\n", ""),
    ("0 if step is None else step + 1, row]", "0, row]"),
    ("0 if step is None else step + 1, row]", "step or 0, row]"),
    ("0 if step is None else step + 1, row]", "0 if step is None else step + 1]"),
    ("SeedSequence([self.seed, ", "SeedSequence(["),
    ("taken = tuple(rows[i] for i in batch.rows)", "taken = tuple(rows)"),
    ("[examples.targets[row] for row in taken]", "[examples.targets[row] for row in rows]"),
    ("out.last_hidden_state[masked], model", "out.last_hidden_state, model"),
    ("loss.sum + self.pair_weight * of_pairs.sum", "loss.sum + of_pairs.sum"),
    ("of_pairs.sum, loss.count)", "of_pairs.sum, loss.count + of_pairs.count)"),
    ('"right": logits.argmax(dim=-1) == wanted', '"right": logits.argmin(dim=-1) == wanted'),
    ("pairs.argmax(dim=1).eq(batch", "pairs.argmin(dim=1).eq(batch"),
    ('n_pairs += len(given["pairs_right"])', "n_pairs += 1"),
    ("if settings.mask_share + settings.random_share > 1:", "if False:"),
    ("fraction=settings.fraction,", ""),
    ("mask_share=settings.mask_share,", ""),
    ("random_share=settings.random_share,", ""),
    ("whole_words=settings.whole_words,", ""),
    ("settings.fraction * sum(examples.lengths)", "sum(examples.lengths)"),
)
