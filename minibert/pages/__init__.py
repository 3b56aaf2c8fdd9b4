"""Self-contained pages: an HTML template that lies here, filled and written in one step.

A page needs no network and opens from the disk.  What it shows is escaped wherever it stands; what
its script works on goes in as JSON, never as code.
"""

from collections.abc import Mapping
from pathlib import Path

from minibert.errors import ParityError
from minibert.files import replacing


def render(template: str, values: Mapping[str, object], data: object) -> str:
    """Fill a template of this folder.

    Args:
        template: its file name.
        values: what it shows as text, by name.
        data: what its script reads as JSON; figures in it must be finite.
    """
    # Here, because only who writes a page needs it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # NaN is no JSON: a page that held one would open empty.
    environment.policies["json.dumps_kwargs"] = {
        **{"ensure_ascii": False, "allow_nan": False, "sort_keys": False},
        "separators": (",", ":"),
    }
    return environment.get_template(template).render(values, data=data)


def write_page(text: str, path: str | Path) -> None:
    """Put a page in its place once it is whole.

    Raises: ParityError where it cannot be written.
    """
    path = Path(path)
    # A folder's name, which a page may show, can hold bytes that are no UTF-8.
    content = text.encode("utf-8", errors="backslashreplace")
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise ParityError(f"{path}: cannot be written: {error}; choose another place") from None
