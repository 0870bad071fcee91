"""What all HTML pages look like: their colours and their style sheet."""

from importlib import resources


def read_style() -> str:
    """Return the style sheet of a page."""
    return (resources.files(__name__) / "page.css").read_text(encoding="utf-8")
