"""Edits of minibert/lines.py, each of which a test has to notice."""

EDITS = (
    ("start + error.start,", "error.start,"),
    ('raw.endswith("\\n".encode(self._codec))', 'raw.endswith(b"\\n")'),
    ("        again.put_back(taken[1:])", "        pass"),
    ("self._number -= len(lines)", "pass"),
    ("if n_reread > MAX_CHARS:", "if False:"),
    ("            if not raw:\n                raise StopIteration", "            pass"),
)
