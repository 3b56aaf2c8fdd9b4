"""Sets minibert up on a fresh machine and searches a few sentences with the real model.

    python3 scripts/quickstart.py

Creates `.venv`, installs the package, brings all-MiniLM-L6-v2 (91 MB, its SHA-256 checked), and
ranks the sentences of `scripts/sentences.txt` by how well they answer a question.
"""

from environment import ensure, run, say

QUESTION = "How can I sleep better at night?"


def main() -> None:
    python = ensure(".venv", set())
    say("fetching all-MiniLM-L6-v2")
    run(python, "-m", "minibert", "fetch", "all-MiniLM-L6-v2")
    say(f'searching scripts/sentences.txt for "{QUESTION}"')
    run(
        python, "-m", "minibert", "search", "--model", "all-MiniLM-L6-v2",
        "--corpus", "scripts/sentences.txt", QUESTION, "--top", "5",
    )  # fmt: skip
    say("done; `source .venv/bin/activate`, and `minibert --help` shows what else there is")


if __name__ == "__main__":
    main()
