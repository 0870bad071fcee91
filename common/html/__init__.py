"""What all HTML pages look like: their colours, their style sheet, their charts."""

from importlib import resources


def read_style() -> str:
    """Return the style sheet of a page and of the charts on it."""
    sheets = (("wardround.common.html", "page.css"), ("wardround.common.html.charts", "charts.css"))
    return "".join(
        (resources.files(package) / name).read_text(encoding="utf-8") for package, name in sheets
    )
