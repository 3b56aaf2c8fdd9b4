"""Edits the package in one place at a time and sees whether the default suite notices.

    python scripts/mutate.py [--only TEXT] [--jobs 1]

The test files must be green before.  For each edit a copy of the checkout is changed and tested:
first the test file of the edited module, then, while everything is green, the rest.  Prints the
edits that no test noticed, and ends with exit status 1 when these are more than 5 %.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# module, what stands there (once), what to put there; the tests of a/b.py are test_b.py
# module (with its folder), what stands there (once), what to put there
EDITS: tuple[tuple[str, str, str], ...] = (
    # config: defaults, checks, reading and writing
    ("config", "layer_norm_eps: float = 1e-12", "layer_norm_eps: float = 1e-5"),
    ("config", 'hidden_act: str = "gelu"', 'hidden_act: str = "relu"'),
    ("config", "type_vocab_size: int = 2", "type_vocab_size: int = 1"),
    ("config", "tie_word_embeddings: bool = True", "tie_word_embeddings: bool = False"),
    ("config", "and 0 <= value < 1)", "and 0 <= value <= 1)"),
    ("config", "self.hidden_size % self.num_attention_heads:", "False:"),
    ("config", "self.hidden_size // self.num_attention_heads", "self.num_attention_heads"),
    ("config", "        if self.classifier_dropout is None:", "        if True:"),
    ("config", "and not isinstance(value, bool) and value >= at_least", "and value >= at_least"),
    ("config", "value >= at_least", "value > at_least"),
    ("config", "and _is_number(value) and value > 0", "and _is_number(value) and value >= 0"),
    ("config", "return abs(value) <= sys.float_info.max", "return True"),
    ("config", "and value <= largest", ""),
    ("config", '"is_decoder": ((None, False),', '"is_decoder": ((None, False, True),'),
    ("config", '"model_type": ((None, "bert"),', '"model_type": ((None, "bert", "roberta"),'),
    ("config", "if set(id2label) != {str(index) for index in range(len(id2label))}:", "if False:"),
    (
        "config",
        '"position_embedding_type": ((None, "absolute"),',
        '"position_embedding": ((None,),',
    ),
    # ops
    ("ops", '"gelu": F.gelu,', '"gelu": partial(F.gelu, approximate="tanh"),'),
    ("ops", '"gelu_new": partial(F.gelu, approximate="tanh"),', '"gelu_new": F.gelu,'),
    ("ops", '"silu": F.silu,', '"silu": F.relu,'),
    ("ops", "attn_mask=visible", "attn_mask=None"),
    ("ops", "dropout_p=dropout", "dropout_p=0.0"),
    ("ops", "if terms[0].dtype in _HALVES else", "if False else"),
    ("ops", "for term in terms[1:]", "for term in terms[2:]"),
    ("ops", "bias.to(x.dtype), eps)", "bias.to(x.dtype), 2 * eps)"),
    ("ops", "rows = slice(start, start + count * length)", "rows = slice(0, count * length)"),
    # layout
    ("layout", "return None if self.mask is None else self.mask[:, None, None, :]", "return None"),
    ("layout", "return hidden[:, 0]", "return hidden[:, -1]"),
    ("layout", "return hidden[self.cu_seqlens[:-1]]", "return hidden[self.cu_seqlens[1:] - 1]"),
    ("layout", "or min(self.lengths) < 1", "or min(self.lengths) < 0"),
    ("layout", "if sum(self.lengths) != len(self.positions):", "if False:"),
    ("layout", "if not bool(mask[:, 0].all()):", "if False:"),
    ("layout", "starts = [0, *accumulate(self.lengths)]", "starts = [0, *self.lengths]"),
    ("layout", "start += count * length", "start += length"),
    ("layout", "int(self.positions.max()) + 1", "int(self.positions.max())"),
    (
        "layout",
        "padded[layout.sequence, layout.positions] = values",
        "padded[layout.sequence, 0] = 0",
    ),
    # model
    (
        "model",
        "self.norm(token, segment, ",
        "self.norm(token, ",
    ),
    ("model", "self.position(layout.positions)", "self.position(layout.positions * 0)"),
    ("model", "return self.dropout(self.norm(", "return (self.norm("),
    ("model", "/ math.sqrt(q.shape[-1])", ""),
    ("model", "masked_fill(~visible, -math.inf)", "masked_fill(~visible, -1.0)"),
    ("model", "masked_fill(~visible, 0.0)", "masked_fill(~visible, 1.0)"),
    ("model", "F.dropout(probabilities, dropout)", "probabilities"),
    ("model", "q, k, v = qkv.unbind(dim=-3)", "k, q, v = qkv.unbind(dim=-3)"),
    ("model", "self.dropout if self.training else 0.0", "self.dropout"),
    ("model", "self.attention_norm(hidden, self", "self.attention_norm(self"),
    ("model", "self.feed_forward_norm(hidden, self", "self.feed_forward_norm(self"),
    ("model", "return torch.tanh(self.dense(", "return (self.dense("),
    ("model", "token_type_ids = torch.zeros_like(", "token_type_ids = torch.ones_like("),
    ("model", "layout.longest > self.config", "layout.longest >= self.config"),
    ("model", "high >= table.num_embeddings", "high > table.num_embeddings"),
    ("model", 'optional = ("pooler",)', "optional = ()"),
    # heads
    ("heads", "        if config.tie_word_embeddings:", "        if True:"),
    ("heads", "self.norm(self.activation(self.dense(hidden)))", "self.norm(self.dense(hidden))"),
    ("heads", "embeddings, self.bias)", "embeddings)"),
    ("heads", "start, end = self.spans", "end, start = self.spans"),
    ("heads", "scores.view(input_ids.shape[:2])", "scores.view(input_ids.shape[:2]).flip(1)"),
    ("heads", "config if config.num_labels == 2 else config.with_labels(2)", "config"),
    # pooling
    ("pooling", "layout) / _counts(hidden, layout)\n", "layout)\n"),
    ("pooling", "_counts(hidden, layout).sqrt()", "_counts(hidden, layout)"),
    ("pooling", "weights = (layout.positions + 1)", "weights = (layout.positions + 2)"),
    ("pooling", "hidden.masked_fill(~layout.mask[..., None], 0.0).sum(dim=1)", "hidden.sum(dim=1)"),
    ("pooling", "-torch.inf).amax(dim=1)", "0.0).amax(dim=1)"),
    ("pooling", "layout.cu_seqlens[1:] - 1", "layout.cu_seqlens[:-1]"),
    ("pooling", "last - 1]", "last - 2]"),
    ("pooling", "counts.clamp(min=1)", "counts"),
    ("pooling", "NORM_EPS = 1e-12", "NORM_EPS = 1e-2"),
    ("pooling", "if hidden.dtype == torch.float64 else hidden.float()", "if True else hidden"),
    # checkpoint
    (
        "checkpoint",
        '(".LayerNorm.beta", ".LayerNorm.bias")',
        '(".LayerNorm.bet", ".LayerNorm.bia")',
    ),
    (
        "checkpoint",
        '("layers.{i}.attention.output", ("encoder.layer.{i}.attention.output.dense",)),',
        '("layers.{i}.attention.output", ("encoder.layer.{i}.output.dense",)),',
    ),
    ("checkpoint", "torch.cat(read)", "torch.cat(read[::-1])"),
    ("checkpoint", "return model.eval()", "return model"),
    ("checkpoint", "        if check_finite:\n", "        if False:\n"),
    ("checkpoint", "    if missing:", "    if False:"),
    ("checkpoint", "    if unexpected:", "    if False:"),
    ("checkpoint", "    if entry.shape != expected:", "    if False:"),
    ("checkpoint", "    if entry.kind not in FLOATS:", "    if False:"),
    ("checkpoint", "        if earlier != name:", "        if False:"),
    ("checkpoint", "parameter.normal_(0.0, std)", "parameter.normal_(0.0, 2 * std)"),
    ("checkpoint", "parameter.fill_(1.0)", "parameter.zero_()"),
    ("checkpoint", 'weights_part, metadata={"format": "pt"}', "weights_part"),
    ("checkpoint", "(new_head and not is_encoder)", "new_head"),
    ("checkpoint", "        if torch.equal(", "        if not torch.equal("),
    ("checkpoint", "            found.setdefault(other, found[name])", "            pass"),
    ("checkpoint", "    if report.initialised:", "    if False:"),
    # training/losses
    (
        "training/losses",
        "loss = weights[labels] * -_of_label(log_p, labels)\n",
        "loss = -_of_label(log_p, labels)\n",
    ),
    (
        "training/losses",
        "spread = (weights * -log_p).mean(-1)",
        "spread = (weights * -log_p).sum(-1)",
    ),
    ("training/losses", "spread = (weights * -log_p)", "spread = (-log_p)"),
    ("training/losses", "(1 - label_smoothing) * loss +", "loss +"),
    ("training/losses", "    if not counted.all():", "    if False:"),
    ("training/losses", "(gamma * log_rest).exp()", "(gamma * _of_label(log_p, labels)).exp()"),
    ("training/losses", "(gamma * log_rest).exp()", "log_rest.exp() ** gamma"),
    (
        "training/losses",
        "counts.sum() / (present.sum() * counts)",
        "counts.sum() / (n_labels * counts)",
    ),
    ("training/losses", "weights.where(present, 1.0)", "weights.where(present, 0.0)"),
    (
        "training/losses",
        "start.sum + end.sum, start.count + end.count",
        "start.sum + end.sum, start.count",
    ),
    ("training/losses", "inside &= attended", "pass"),
    ("training/losses", "logits = logits.masked_fill(~mask, -math.inf)", "pass"),
    (
        "training/losses",
        "backwards = (starts > ends) & (ends != IGNORED)",
        "backwards = starts > ends",
    ),
    ("training/losses", "temperature**2 * (log_p", "temperature * (log_p"),
    ("training/losses", "log_p = (teacher / temperature)", "log_p = teacher"),
    ("training/losses", "teacher_logits.detach()", "teacher_logits"),
    ("training/losses", "(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
    (
        "training/losses",
        "w * t * -F.logsigmoid(x) + (1 - t)",
        "w * (t * -F.logsigmoid(x)) + w * (1 - t)",
    ),
    ("training/losses", "-log_yes * (gamma * log_no).exp()", "-log_yes * (gamma * log_yes).exp()"),
    ("training/losses", "if alpha is None else 1 - yes", "if alpha is None else yes"),
    ("training/losses", "near * (errors - near / 2)", "near * (errors - near)"),
    (
        "training/losses",
        "normalise(candidates).T / temperature",
        "normalise(candidates).T * temperature",
    ),
    ("training/losses", "normalise(anchors) @", "anchors @"),
    ("training/losses", "enabled=False", "enabled=True"),
    ("training/losses", "same & ~own", "same"),
    ("training/losses", "scores[:, :batch].T", "scores[:, :batch]"),
    ("training/losses", "(forward.sum + backward.sum) / 2", "forward.sum + backward.sum"),
    ("training/losses", "torch.cat([positives, hard])", "torch.cat([hard, positives])"),
    ("training/losses", "scores[:, None] < scores[None, :]", "scores[:, None] > scores[None, :]"),
    ("training/losses", "torch.cat([gaps.new_zeros(1), gaps])", "gaps"),
    ("training/losses", "LossSum(len(cosines) * loss,", "LossSum(loss,"),
    (
        "training/losses",
        "- far(anchors, negatives) + margin",
        "- far(positives, negatives) + margin",
    ),
    ("training/losses", "+ margin).clamp(min=0)", "+ margin)"),
    ("training/losses", "normalise(truncate(each, dim))", "truncate(each, dim)"),
    ("training/losses", "factor * part.sum for", "part.sum for"),
    ("training/losses", "    if labels.shape != shape:", "    if labels.numel() != shape.numel():"),
    ("training/losses", "counted & (labels >= n_labels)", "counted & (labels > n_labels)"),
    ("training/losses", "wrong = counted & (labels < 0)", "wrong = counted & (labels < -1)"),
    ("training/losses", "~((t >= 0) & (t <= 1))", "((t < 0) | (t > 1))"),
    (
        "training/losses",
        "return x[counted], t[counted], counted",
        "return x, t.clamp(min=0), counted",
    ),
    ("training/losses", "    labels = labels.long()", "    pass"),
    ("training/losses", "logits.shape[-1], positions.long()", "logits.shape[-1], positions"),
    ("training/losses", "    outside = scores.abs() > 1", "    outside = scores.abs() > 5"),
    (
        "training/losses",
        "if values.dtype == torch.float64 else values.float()",
        "if True else values",
    ),
    ("training/losses", "if given.ndim and (like.ndim < 2 or", "if given.ndim and ("),
    # training/optim: groups, clipping, blocks, the updates, state
    ("training/optim", "1 - rate * block.group.weight_decay", "1 - block.group.weight_decay"),
    ("training/optim", "mean, block.gradients, 1 - beta1)", "mean, block.gradients, beta1)"),
    ("training/optim", "torch._foreach_mul_(square, beta2)", "torch._foreach_mul_(square, beta1)"),
    ("training/optim", "block.gradients, block.gradients, 1 - beta2)", "mean, mean, 1 - beta2)"),
    ("training/optim", "(1 - beta2**block.steps) ** 0.5", "1 - beta2**block.steps"),
    ("training/optim", "rate / (1 - beta1**block.steps)", "rate"),
    ("training/optim", "torch._foreach_add_(denominator, self.eps)", "pass"),
    ("training/optim", "        if self.bias_correction:\n", "        if True:\n"),
    ("training/optim", "eps=1e-6, bias_correction=False", "eps=1e-3, bias_correction=False"),
    ("training/optim", "eps: float = 1e-8", "eps: float = 1e-7"),
    ("training/optim", "partial(SGD, momentum=0.9)", "SGD"),
    ("training/optim", "torch._foreach_mul_(velocity, self.momentum)", "pass"),
    ("training/optim", "direction, velocity, alpha=self.momentum)", "direction, velocity)"),
    ("training/optim", "block.values, alpha=block.group.weight_decay", "block.values, alpha=0.0"),
    ("training/optim", "                if self.nesterov\n", "                if True\n"),
    ("training/optim", "rate * self.group.l1", "self.group.l1"),
    ("training/optim", "torch._foreach_clamp_min_(clamped, -bound)", "pass"),
    ("training/optim", "torch._foreach_copy_(self.stored, self.values)", "pass"),
    ("training/optim", 'isinstance(module, nn.LayerNorm) or name == "bias"', 'name == "bias"'),
    ("training/optim", 'or name == "bias"', ""),
    ("training/optim", "layer_decay**n_layers", "layer_decay ** (n_layers - 1)"),
    ("training/optim", "layer_decay ** (n_layers - 1 - i)", "layer_decay ** (n_layers - i)"),
    ("training/optim", "head_rate = head_learning_rate", "pass"),
    ("training/optim", "if parameter in factors else head_rate", "if True else head_rate"),
    ("training/optim", "l1=l1 if decayed else 0.0", "l1=l1"),
    ("training/optim", "if not 0 < layer_decay <= 1:", "if layer_decay > 1:"),
    ("training/optim", "for parameter in dict.fromkeys(parameters)", "for parameter in parameters"),
    ("training/optim", "if math.isfinite(norm) and norm > max_norm:", "if norm > max_norm:"),
    ("training/optim", "if math.isfinite(norm) and norm > max_norm:", "if math.isfinite(norm):"),
    ("training/optim", "    if not math.isfinite(norm):", "    if False:"),
    ("training/optim", "_NORM_PIECE = 1 << 16", "_NORM_PIECE = 1 << 40"),
    (
        "training/optim",
        "gradient.mul_(max_norm / norm)",
        "torch._foreach_mul_([gradient], max_norm / norm)",
    ),
    ("training/optim", "tensor.float() if tensor.dtype in _HALVES else tensor", "tensor"),
    ("training/optim", "return self.parameter.requires_grad and ", "return "),
    ("training/optim", "torch.promote_types(self.parameter.dtype, torch.float32)", "torch.float32"),
    ("training/optim", "        self.steps += 1\n", "        self.steps = 1\n"),
    ("training/optim", "or not tensors[0].is_contiguous()", ""),
    ("training/optim", "n_elements, block = 0, []\n", "n_elements = 0\n"),
    ("training/optim", "return entry.group, entry.steps, ", "return entry.group, 0, "),
    ("training/optim", "                    if block and ", "                    if "),
    (
        "training/optim",
        "                tensor.to(device, copy=True,",
        "                tensor.to(device,",
    ),
    ("training/optim", "            entry.steps = steps\n", ""),
    ("training/optim", "        if unexpected := ", "        if False and "),
    ("training/optim", "tuple(tensor.shape) != shape or tensor.dtype", "tensor.dtype"),
    ("training/optim", "or entry.parameter in parameters:", "or False:"),
    ("training/optim", "            entry.parameter.grad = None", "            pass"),
    # training/schedules
    ("training/schedules", "return step / warmup if", "return (step + 1) / warmup if"),
    ("training/schedules", "(step - warmup) / (total - warmup) if", "step / total if"),
    ("training/schedules", " if step < total else 1.0", " if total > warmup else 1.0"),
    (
        "training/schedules",
        "(1 + math.cos(math.pi * progress)) / 2",
        "math.cos(math.pi * progress)",
    ),
    ("training/schedules", "(progress * (restarts + 1)) % 1.0", "(progress * restarts) % 1.0"),
    ("training/schedules", "return end + (1 - end) * ", "return end + "),
    ("training/schedules", "total, warmup)) ** power", "total, warmup))"),
    ("training/schedules", "timescale = warmup or _TIMESCALE", "timescale = _TIMESCALE"),
    ("training/schedules", "_TIMESCALE = 10_000", "_TIMESCALE = 1_000"),
    ("training/schedules", "<= total or total < 1:", "<= total:"),
    ("training/schedules", "    if step < 0:\n", "    if False:\n"),
    ("training/schedules", "self.bad_evaluations > self.patience", "self.bad_evaluations > 1"),
    (
        "training/schedules",
        "self.multiplier * self.factor, self.minimum",
        "self.multiplier * self.factor, 0",
    ),
    (
        "training/schedules",
        "return metric > self.best + self.threshold",
        "return metric > self.best",
    ),
    (
        "training/schedules",
        "return metric < self.best - self.threshold",
        "return metric < self.best",
    ),
    ("training/schedules", "return not math.isnan(metric)", "return True"),
    ("training/schedules", "            self.best = metric\n", "            self.best = 0.5\n"),
    # lines, under texts and rows
    ("lines", "start + error.start,", "error.start,"),
    ("lines", 'raw.endswith("\\n".encode(self._codec))', 'raw.endswith(b"\\n")'),
    ("lines", "        again.put_back(taken[1:])", "        pass"),
    ("lines", "self._number -= len(lines)", "pass"),
    ("lines", "if n_reread > MAX_CHARS:", "if False:"),
    ("lines", "            if not raw:\n                raise StopIteration", "            pass"),
    # training/rows
    ("training/rows", "name if times[name] == 1 else number", "name"),
    ("training/rows", "if wanted in self.names:", "if False:"),
    ("training/rows", "return itertools.islice(rows, limit)", "return iter(rows)"),
    ("training/rows", "list(row.values), list(row.values.values())", "list(row.values.values())"),
    ("training/rows", "if fault is not None and fault.is_utf16:", "if False:"),
    ("training/rows", "elif (wrong := _wrong_characters(line)) is not None:", "elif False:"),
    ("training/rows", "for n in range(len(lines))]", "for n in range(1)]"),
    ("training/rows", "if not row.cells and not row.error:", "if False:"),
    ("training/rows", "if bad is not None and has_header:", "if False:"),
    ("training/rows", "n_cells < count or", "False or"),
    ("training/rows", 'and dialect.extra_columns == "error")', "and False)"),
    ("training/rows", "cells = row.cells[:count]", "cells = row.cells"),
    (
        "training/rows",
        "            _refuse_absent(columns, reading)\n            if has",
        "            if has",
    ),
    ("training/rows", "at_most = dialect.columns - 1", "at_most = dialect.columns"),
    (
        "training/rows",
        "except (ValueError, RecursionError) as error:",
        "except ValueError as error:",
    ),
    (
        "training/rows",
        "    for each in wanted:\n        if fault",
        "    for each in ():\n        if fault",
    ),
    ("training/rows", 'if "\\0" in value:', "if False:"),
    ("training/rows", "        if not value.isascii():", "        if False:"),
    ("training/rows", 'line.startswith("# ") and len(cells) != count', 'line.startswith("#")'),
    ("training/rows", 'cells[0] == "-DOCSTART-" or ', ""),
    ("training/rows", "elif not all(cells):", "elif False:"),
    ("training/rows", "sentence = _Sentence(number)", "sentence = _Sentence(number + 1)"),
    (
        "training/rows",
        "        elif not line.strip():\n            document = None",
        "        elif not line.strip():\n            pass",
    ),
    ("training/rows", "if document is None else document", "if True else document"),
    ("training/rows", "if n_chars > MAX_CHARS:", "if False:"),
    # training/problems, data_files
    ("training/problems", "reversed(self.bad)", "self.bad"),
    ("training/problems", "if path.is_file() and not _is_ours(path):", "if False:"),
    ("training/problems", "(Path(name), *Path(name).parents)", "(Path(name),)"),
    ("training/problems", 'errors="backslashreplace", ', ""),
    ("training/data_files", "if grown > max(_BOMB_BYTES, ", "if grown > max(1 << 60, "),
    ("training/data_files", '".." in name.split("/") or ', ""),
    ("training/data_files", "if (file.path, file.member) in seen:", "if False:"),
    ("training/data_files", "if not chosen and len(tops) == 1:", "if False:"),
    # training/splits
    ("training/splits", "if not 0 < fraction < 1:", "if False:"),
    (
        "training/splits",
        "math.floor(fraction * len(rows) + 0.5)",
        "math.ceil(fraction * len(rows))",
    ),
    ("training/splits", "    if len(units) < 2:", "    if False:"),
    ("training/splits", "else str(value).split()", "else [str(value)]"),
    ("training/splits", 'if name not in (None, ""):', "if True:"),
    ("training/splits", "if name not in (None", "if False and name not in (None"),
    ("training/splits", 'f"{seed}\\0{name}".encode()', 'f"{hash(name)}{seed}".encode()'),
    ("training/splits", 'f"{seed}\\0{name}"', 'f"{name}"'),
    ("training/splits", "strata[min((", "strata[max(("),
    ("training/splits", "for unit in stratum[:-1]:", "for unit in stratum:"),
    ("training/splits", "len(units[unit]) / 2 <= share", "len(units[unit]) <= share"),
    ("training/splits", "return chosen or {", "return chosen if True else {"),
    (
        "training/splits",
        "for stratum in strata:\n        share += fraction",
        "for stratum in strata:\n        share = fraction",
    ),
    # training/spans
    (
        "training/spans",
        'prefix in "IE" and before[0] in "BI"',
        'prefix in "IE" and before[0] != "O"',
    ),
    ("training/spans", " and before[1] == label:", ":"),
    ("training/spans", "found[-1]._replace(stop=place + 1)", "found[-1]._replace(stop=place)"),
    ("training/spans", 'if scheme != "IOB1" or touches:', 'if scheme != "IOB1":'),
    ("training/spans", "before.label == label and before.stop == start", "before.stop == start"),
    ("training/spans", '"S" if stop - start == 1 else "E"', '"E"'),
    ("training/spans", "before.stop <= start < stop", "before.stop <= start <= stop"),
    (
        "training/spans",
        "right = write_tags(spans, len(tags), scheme)",
        "right = write_tags(spans, len(tags))",
    ),
    ("training/spans", "(as_bio and not as_iob1)", "not as_iob1"),
    ("training/spans", "for span in set(a) & set(b)", "for span in set(a)"),
    ("training/spans", "for label in sorted(guessed | wanted)", "for label in sorted(wanted)"),
    ("training/spans", "tag[2:] or _NO_TYPE", "tag[2:]"),
    ("training/spans", "2 * self.n_right / both", "self.n_right / both"),
    # training/masking
    ("training/masking", "(ids != self.pad_id).sum(dim=1)", "free.sum(dim=1)"),
    ("training/masking", "free = ~_looked_up(self.special, ids)", "free = ids != self.pad_id"),
    ("training/masking", ".round().clamp(min=1)", ".clamp(min=1)"),
    ("training/masking", ".round().clamp(min=1)", ".round()"),
    ("training/masking", "(rank < count[:, None]) & free", "(rank < count[:, None])"),
    ("training/masking", "labels = ids.masked_fill(~chosen, IGNORED)", "labels = ids.clone()"),
    ("training/masking", "hidden = chosen & (kind < self.mask_share)", "hidden = chosen"),
    ("training/masking", "kind < self.mask_share + self.random_share", "kind <= 1"),
    ("training/masking", "_looked_up(self.insertable, drawn), masked)", "drawn, masked)"),
    ("training/masking", "begins[:, 1:] &= ~(joined & free[:, :-1])", "begins[:, 1:] &= ~joined"),
    ("training/masking", " & (word_ids[:, 1:] >= 0)", ""),
    ("training/masking", "if 0 < size[word] <= room:", "if 0 < size[word]:"),
    ("training/masking", "if self.mask_share + self.random_share > 1:", "if False:"),
    (
        "training/masking",
        "(number + 1 + _below(len(documents) - 1, generator))",
        "(number + _below(len(documents), generator))",
    ),
    ("training/masking", "place = split if is_random else stop", "place = stop"),
    (
        "training/masking",
        "is_random = stop - place == 1 or _chance(0.5, generator)",
        "is_random = stop - place == 1",
    ),
    ("training/masking", "0 if _chance(0.5, generator) else -1", "-1"),
    (
        "training/masking",
        "wanted = 2 + _below(room - 1, generator) if short else room",
        "wanted = room",
    ),
    # training/scores
    ("training/scores", "(found < 0) | (found >= n_labels)", "found >= n_labels"),
    ("training/scores", "wide[:, 1] - wide[:, 0]", "wide[:, 0] - wide[:, 1]"),
    ("training/scores", "    _check_scores(kept, ruled_out=True)\n", ""),
    ("training/scores", " | (scores.amax(dim=-1, keepdim=True) == -math.inf)", ""),
    ("training/scores", "torch.where(odds > 0, found.clamp(min=_HALF_UP), found)", "found"),
    ("training/scores", "first[1:] = rows[1:] != rows[:-1]", "first[1:] = False"),
    ("training/scores", "starts.gather(1, ends[:, None])[:, 0]", "logits[0].argmax(dim=1)"),
    ("training/scores", "ranks = (scores >= right)", "ranks = 1 + (scores > right)"),
    ("training/scores", "probabilities(odds) > thresholds", "probabilities(odds) >= thresholds"),
    # training/metrics
    ("training/metrics", '"perplexity", "rmse", "mae"})', '"rmse", "mae"})'),
    ("training/metrics", "        return not math.isnan(new)\n", "        return False\n"),
    ("training/metrics", "return new < old if", "return new <= old if"),
    ("training/metrics", "if not columns or not len(columns[0]):", "if not columns:"),
    ("training/metrics", "if each.n_target or each.n_predicted]", "]"),
    ("training/metrics", "    if max(n_target) == len(targets):", "    if False:"),
    ("training/metrics", "elif max(n_predicted) == len(targets):", "elif False:"),
    ("training/metrics", "ranked = ranks.double() / len(levels)", "ranked = scores"),
    ("training/metrics", "(last - (counts - 1) / 2)[place]", "last[place]"),
    ("training/metrics", "other = _areas(-odds, 1 - targets)", "other = (roc, pr)"),
    ("training/metrics", "shared.clamp(min=0)", "shared"),
    ("training/metrics", 'return (f"not {labels[0]}", labels[0])', "return labels"),
    ("training/metrics", "    if len(targets) < 2:", "    if False:"),
    ("training/metrics", "(found == wanted).all(dim=1)", "(found == wanted).any(dim=1)"),
    ("training/metrics", "right.all(dim=1).double()", "right.any(dim=1).double()"),
    ("training/metrics", "        self._batches.clear()", "        pass"),
    # training/calibration
    ("training/calibration", "middle if middle < high else low", "middle"),
    ("training/calibration", "if low < high and n_positive:", "if low < high:"),
    ("training/calibration", "(score, -abs(value - 0.5), value)", "(score, value, value)"),
    ("training/calibration", "value = 0.5 if low <= 0.5 < high else", "value ="),
    ("training/calibration", "2 * right / (there + n_positive)", "right / there"),
    (
        "training/calibration",
        "temperature = math.exp(-(low + high) / 2)",
        "temperature = math.exp((low + high) / 2)",
    ),
    ("training/calibration", "math.exp(low)) >= 0:", "math.exp(low)) > 1e9:"),
    ("training/calibration", "math.exp(high)) <= 0:", "math.exp(high)) < -1e9:"),
    ("training/calibration", "        _ece(cooled, wanted),", "        _ece(scores, wanted),"),
    ("training/calibration", "scores = scores - scores.amax(dim=1, keepdim=True)", "pass"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only edits whose module or text contains this")
    parser.add_argument("--jobs", type=int, default=1, help="edits tested at once")
    arguments = parser.parse_args()
    edits = [edit for edit in EDITS if any(arguments.only in part for part in edit)]
    for module, old, _ in edits:
        count = source(ROOT, module).read_text(encoding="utf-8").count(old)
        if count != 1:
            raise SystemExit(f"error: {module}.py holds {old!r} {count} times, expected once")
    for module in sorted({module for module, _, _ in edits}):
        if run_tests(ROOT, [test_file(module)]):
            raise SystemExit(f"error: {test_file(module)} fails without any edit; mend it first")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        noticed = list(pool.map(test, edits))
    survivors = [edit for edit, seen in zip(edits, noticed, strict=True) if not seen]
    share = 1 - len(survivors) / len(edits)
    print(f"{len(edits)} edits, {len(edits) - len(survivors)} noticed: {share:.1%}")
    for module, old, new in survivors:
        print(f"  not noticed in {module}.py: {old!r} -> {new!r}")
    raise SystemExit(share < 0.95)


def source(root: Path, module: str) -> Path:
    return root / "minibert" / f"{module}.py"


def test_file(module: str) -> str:
    """Its tests, by the last name of a module in a folder."""
    return f"tests/test_{Path(module).name}.py"


def test(edit: tuple[str, str, str]) -> bool:
    """Whether the default suite turns red when the edit is made."""
    module, old, new = edit
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "checkout"
        ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = source(copy, module)
        edited = path.read_text(encoding="utf-8").replace(old, new)
        compile(edited, path, "exec")  # an edit that is no Python proves nothing
        path.write_text(edited, encoding="utf-8")
        own = test_file(module)
        seen = any(
            run_tests(copy, selection)
            for selection in ([own], ["tests", f"--ignore={own}", "--ignore=tests/test_readme.py"])
        )
    print(
        f"{'noticed' if seen else 'NOT NOTICED'} after {time.perf_counter() - start:.0f} s: "
        f"{module}: {old!r} -> {new!r}",
        flush=True,
    )
    return seen


def run_tests(copy: Path, selection: list[str]) -> bool:
    """Whether these tests fail; a run that collects nothing is an error, not a failure."""
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
        *selection,
    ]
    result = subprocess.run(
        command, cwd=copy, env=env, capture_output=True, text=True, check=False, timeout=1800
    )
    if result.returncode not in (0, 1, 2):
        raise SystemExit(f"error: pytest did not run: {result.stdout[-2000:]}{result.stderr}")
    return result.returncode != 0


if __name__ == "__main__":
    main()
