"""Edits of minibert/training/fresh.py, each of which a test has to notice."""

EDITS = (
    ("if settings.hidden_size % settings.num_attention_heads:", "if False:"),
    (
        "if run.data.max_length > settings.max_position_embeddings:",
        "if run.data.max_length > settings.max_position_embeddings + 64:",
    ),
    ("tokenizer.model_max_length = settings.max_position_embeddings", "pass"),
    ("num_hidden_layers=settings.num_hidden_layers,", ""),
    ("intermediate_size=settings.intermediate_size,", ""),
    ("    torch.manual_seed(run.training.seed)\n", ""),
    ("            tokenizer.save_pretrained(part)\n", ""),
    ("        if getattr(settings, name) !=", "        if False and getattr(settings, name) !="),
    ("lowercase=settings.lowercase", "lowercase=True"),
    ("vocab_size=settings.vocab_size", "vocab_size=8000"),
    ("        counts[character] += count", "        counts[character] += 1"),
    ("min(_MOST_CHARACTERS, vocab_size // 3)", "_MOST_CHARACTERS"),
    ("alphabet = sorted(sorted(counts", "alphabet = list(sorted(counts"),
    ("key=lambda each: (-counts[each], each)", "key=lambda each: each"),
    ('*(f"##{each}" for each in inner)', ""),
    ("for each in word[1:]", "for each in word"),
    ("limit_alphabet=len(alphabet),", ""),
    ("min_frequency=2,", ""),
    (
        "return Tokenizer(_backend(backend.get_vocab(), lowercase=lowercase))",
        "return Tokenizer(backend)",
    ),
    ("normalizers.BertNormalizer(lowercase=lowercase)", "normalizers.BertNormalizer()"),
    ("plain = backend.normalizer.normalize_str(text)", "plain = text"),
    ("    if not words:\n", "    if not texts:\n"),
    ("yield texts[start : start + _PORTION]", "yield texts[: _PORTION]"),
)
