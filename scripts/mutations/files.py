"""Edits of minibert/files.py, each of which a test has to notice."""

EDITS = (
    (
        "        part.chmod(0o644)\n        flush(part)\n        part.replace",
        "        part.chmod(0o644)\n        part.replace",
    ),
    ("        part.replace(path)\n        flush(path.parent)\n", "        part.replace(path)\n"),
    ("            part.chmod(0o644)\n            flush(part)\n", "            part.chmod(0o644)\n"),
    ("        for folder in {path.parent for path in paths}:\n            flush(folder)\n", ""),
    ("                    moved.unlink()\n", "                    pass\n"),
    ("                        back.write_bytes(content)\n", "                        pass\n"),
    ('        for each in (*sorted(part.rglob("*")), part):\n            flush(each)\n', ""),
    ("            path.rename(earlier)\n", "            shutil.rmtree(path)\n"),
    ("        if earlier.exists() and not path.exists():\n            earlier.rename(path)\n", ""),
    ("        shutil.rmtree(outer, ignore_errors=True)\n", ""),
    ("    shutil.rmtree(gone, ignore_errors=True)\n    path.rename", "    path.rename"),
    ("    path.rename(gone)\n    shutil.rmtree(gone)\n", "    shutil.rmtree(path)\n"),
    ('.glob(f".{name}.????????")', '.glob(f".{name}.*")'),
    ("fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
)
