"""Edits of minibert/training/batches.py, each of which a test has to notice."""

EDITS = (
    ("PCG64([seed, epoch])", "PCG64([seed, 0])"),
    ("PCG64([seed, epoch])", "PCG64([0, epoch])"),
    (
        "rest, pool = pool[:left], pool[left:]",
        "rest, pool = pool[len(pool) - left :], pool[: len(pool) - left]",
    ),
    ('        pool = pool[np.argsort(counts[pool], kind="stable")]\n', ""),
    ("        if left:\n            batches.append(rest.tolist())\n", ""),
    ("for i in generator.permutation(len(batches))]", "for i in range(len(batches))]"),
    ("batch_size * pool_batches", "batch_size"),
    ("batch_size * pool_batches", "len(order)"),
    ("PCG64([seed, 1])", "PCG64([1])"),
    ('max(sizes) if how == "over" else min(sizes)', 'min(sizes) if how == "over" else max(sizes)'),
    ("(epoch * size + np.arange(size))", "(np.arange(size))"),
    (
        "list(batch[i::number]) for i in range(min(number, len(batch)))",
        "list(batch[i::number]) for i in range(number)",
    ),
)
