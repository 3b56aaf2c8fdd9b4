"""Pages of docs/ whose tables and sections are written by scripts, each between two marks."""


def between_marks(page: str, mark: str, text: str) -> str:
    """A page with other text between `<!-- mark -->` and `<!-- end of mark -->`."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
