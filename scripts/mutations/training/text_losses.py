"""Edits of minibert/training/text_losses.py, each of which a test has to notice."""

EDITS = (
    ('for key in ("pos_weight", "focal_alpha"):', 'for key in ("pos_weight",):'),
    ('    if settings.class_weights == "balanced":', "    if False:"),
    ('    if name == "focal" and settings.label_smoothing:', "    if False:"),
    (
        "partial(losses.focal, gamma=settings.focal_gamma, alpha=weight)",
        "partial(losses.focal, gamma=settings.focal_gamma)",
    ),
    ("weight=weight, label_smoothing=settings.label_smoothing", "weight=weight"),
    (
        "    if settings.class_weights is not None or settings.label_smoothing:",
        "    if settings.class_weights is not None:",
    ),
    ('    if name == "focal" and settings.pos_weight is not None:', "    if False:"),
    ("gamma=settings.focal_gamma, alpha=settings.focal_alpha", "gamma=settings.focal_gamma"),
    ("(n_examples - n) / n if n else 1.0", "n_examples / n if n else 1.0"),
    ("(n_examples - n) / n if n else 1.0", "(n_examples - n) / n if n else 0.0"),
    ('if pos_weight is not None and run.task == "binary":', "if False:"),
    ("partial(losses.huber, delta=run.loss.huber_delta)", "losses.huber"),
    ('losses.l1 if name == "l1" else losses.mse', "losses.mse"),
    ("name = run.loss.name or names[0]", "name = names[0]"),
    ("    if len(given) != n_labels:", "    if False:"),
    ("    if isinstance(given, str):", "    if False:"),
    ("if not 0 <= weight < math.inf]", "if not 0 <= weight]"),
    ("if not 0 <= weight < math.inf]", "if not weight < math.inf]"),
)
