"""Edits of minibert/training/augment.py, each of which a test has to notice."""

EDITS = (
    ("if not 0 <= share <= 1:", "if share < 0:"),
    ("if self.mask and self.mask_id is None:", "if False:"),
    ("tokenizer.special_ids - {tokenizer.unk_id}", "tokenizer.special_ids"),
    ("(~free | (place == 0)).cumsum()", "(~free).cumsum()"),
    ("source[a], source[b] = b, a", "source[a] = b"),
    ("gone, words = words[taken], words[~taken]", "gone = words[taken]"),
    ("_chosen(numbers[3, words]", "_chosen(numbers[0, words]"),
    ("_first_of_pairs(numbers[1:3, words]", "_first_of_pairs(numbers[:2, words]"),
    ("for each in (flat, kinds, place)", "for each in (flat, kinds, source)"),
    ("(numbers < share) & (numbers < np", "(numbers < share) & (numbers <= np"),
    ("numbers[1, starts] < 0.5", "numbers[1, starts] < 0"),
    ("(np.arange(len(run)) - starts[which]) % 2", "np.arange(len(run)) % 2"),
    ("is_first[:-1] &= run[1:] == run[:-1]", "pass"),
    ("is_first & (numbers[0] < share)", "is_first & (numbers[0] < share / 2)"),
    ("SeedSequence([seed, epoch])", "SeedSequence([seed])"),
    ("SeedSequence([seed, epoch])", "SeedSequence([seed + epoch])"),
    (
        "keys[:, None] + np.asarray(rows, dtype=np.uint64)",
        "keys[:, None] + np.arange(len(rows), dtype=np.uint64)",
    ),
    (" + place.astype(np.uint64))", ")"),
)
