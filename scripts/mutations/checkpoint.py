"""Edits of minibert/checkpoint.py, each of which a test has to notice."""

EDITS = (
    ('(".LayerNorm.beta", ".LayerNorm.bias")', '(".LayerNorm.bet", ".LayerNorm.bia")'),
    (
        '("layers.{i}.attention.output", ("encoder.layer.{i}.attention.output.dense",)),',
        '("layers.{i}.attention.output", ("encoder.layer.{i}.output.dense",)),',
    ),
    ("torch.cat(read)", "torch.cat(read[::-1])"),
    ("return model.eval()", "return model"),
    ("        if check_finite:\n", "        if False:\n"),
    ("    if missing:", "    if False:"),
    ("    if unexpected:", "    if False:"),
    ("    if entry.shape != expected:", "    if False:"),
    ("    if entry.kind not in FLOATS:", "    if False:"),
    ("        if earlier != name:", "        if False:"),
    ("parameter.normal_(0.0, std)", "parameter.normal_(0.0, 2 * std)"),
    ("parameter.fill_(1.0)", "parameter.zero_()"),
    ('weights_part, metadata={"format": "pt"}', "weights_part"),
    ("(new_head and not is_encoder)", "new_head"),
    ("        if torch.equal(", "        if not torch.equal("),
    ("            found.setdefault(other, found[name])", "            pass"),
    ("    if report.initialised:", "    if False:"),
    ("        if whole and plan.new:", "        if False:"),
)
