"""Edits of minibert/training/memory.py, each of which a test has to notice."""

EDITS = (
    ("libc.mallopt(_MMAP_MAX, 0)", "pass"),
    ("libc.mallopt(_MMAP_MAX, 65536)", "pass"),
    ("        libc.malloc_trim(0)\n", ""),
    ('if sys.platform != "linux":', "if False:"),
    (
        "_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4",
        "_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -4, -3",
    ),
)
