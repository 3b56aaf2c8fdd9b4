"""Edits of minibert/training/state.py, each of which a test has to notice."""

EDITS = (
    ("            flush(folder.parent)\n", ""),
    ("        if not steps(folder):\n", "        if False:\n"),
    ("        if step is not None and _step(place) != step:", "        if False:"),
    (
        '            if facts.get("tensors_sha256") != file_sha256(place / _TENSORS):',
        "            if False:",
    ),
    (
        "        except (OSError, ValueError, SafetensorError) as error:\n            torn",
        "        except OSError as error:\n            torn",
    ),
    (
        "            continue\n        return Checkpoint",
        "            break\n        return Checkpoint",
    ),
    ('    sweep(folder, "step-*")\n', ""),
    ("        if _step(place) not in kept:", "        if _step(place) > max(kept):"),
    ("key=_step, reverse=True)", "reverse=True)"),
    ("key=_step, reverse=True)", "key=_step)"),
    ('facts.pop("sha256", None) != _digest(facts)', 'not facts.pop("sha256", None)'),
    (
        "    except (OSError, ValueError):\n        return None",
        "    except OSError:\n        return None",
    ),
    ("t.detach().cpu().contiguous()", "t.detach().cpu()"),
    (
        "            with contextlib.suppress(OSError):\n                discard(place)",
        "            discard(place)",
    ),
)
