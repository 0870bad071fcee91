"""The page as a PDF: its light colours, on paper, with a head and page numbers.

What makes the PDF (WeasyPrint) knows no script and not all of CSS: a picture's colours are written
out, and a shade is mixed here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.ImageFile

from wardround.common.errors import InputError, install_command
from wardround.common.html import read_style
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.page import render_page

_REMEDY = "Or print the page: open report.html in a browser and choose 'save as PDF'."
_VARIABLE = re.compile(r"--([a-z0-9-]+):\s*([^;]+);")
_SHADE = re.compile(r'style="--shade: (\d+)"')
_DARK = re.compile(r"@media screen[^{]*\{(?:[^{}]*\{[^}]*\})*\s*\}")
_CONTAINED = re.compile(r"@container[^{]*\{(?:[^{}]*\{[^}]*\})*\s*\}")
_STRONGEST = 0.5  # of the colour of a heat map, as in the style sheet of the page
# What a picture on the page takes from the page's style sheet.
_IN_PICTURES = (
    "text{fill:var(--ink);font-family:sans-serif;font-size:12.5px}"
    ".inside{fill:var(--page);font-size:11.5px}"
    ".rule{stroke:var(--rule);fill:none}.edge{stroke:var(--soft);fill:none}"
    ".upright{stroke:var(--soft);stroke-dasharray:2 4;fill:none}"
    ".stroke{fill:none;stroke-linecap:round;stroke-linejoin:round}"
    ".interval{fill:none;stroke-width:1.4;stroke:var(--ink)}"
    ".chart .interval{stroke:inherit}"
    ".box{stroke:var(--page);stroke-width:0.7}"
    ".zero{stroke:var(--soft)}.gain{fill:var(--soft)}"
)


def write_pdf(contents: RunContents, documents: Sequence[tuple[str, str]]) -> bytes:
    """Return the page of a run as a PDF.

    Raises:
        InputError: WeasyPrint, or the system's Pango that it draws text with, is not there.
    """
    page = render_page(contents, documents)
    weasyprint = _load()
    style = weasyprint.CSS(string=_print_style(contents))
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=["data"])  # the page holds all it needs
    document = weasyprint.HTML(string=for_paper(page), url_fetcher=fetcher, media_type="print")
    written: bytes = document.write_pdf(stylesheets=[style])
    return written


def for_paper(page: str) -> str:
    """Return a page with what WeasyPrint does not know written out."""
    colours = light_colours()
    page = _CONTAINED.sub("", _DARK.sub("", page))
    page = _SHADE.sub(lambda found: f'style="background:{_mixed(int(found[1]), colours)}"', page)
    head, sign, body = page.partition("</style>")
    style = f"<style>{_named(_IN_PICTURES, colours)}</style>"
    body = re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + style, body)
    body = re.sub(r'="var\((--[a-z0-9-]+)\)"', lambda found: f'="{colours[found[1]]}"', body)
    return head + sign + _named_inline(body, colours)


def light_colours() -> Mapping[str, str]:
    """Return the page's colours by name, e.g. ``--ink``, as they are on paper."""
    light = _DARK.sub("", read_style())
    return {f"--{name}": value.strip() for name, value in _VARIABLE.findall(light)}


def _named(style: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"var\((--[a-z0-9-]+)\)", lambda found: colours.get(found[1], "#000"), style)


def _named_inline(body: str, colours: Mapping[str, str]) -> str:
    """Return a body whose ``style`` attributes name colours; text is left as it is."""
    return re.sub(r'style="[^"<>]*var\([^"<>]*"', lambda found: _named(found[0], colours), body)


def _mixed(shade: int, colours: Mapping[str, str]) -> str:
    part = _STRONGEST * min(shade, 100) / 100
    heat, paper = (bytes.fromhex(colours[name][1:]) for name in ("--heat", "--page"))
    mixed = (round(part * a + (1 - part) * b) for a, b in zip(heat, paper, strict=True))
    return "#" + bytes(mixed).hex()


def _print_style(contents: RunContents) -> str:
    sheet = (Path(__file__).parent / "print.css").read_text(encoding="utf-8")
    digest = contents.facts.digest[:16]
    return sheet.replace('"TITLE"', _text(contents.title)).replace(
        '"DIGEST"', _text(f"study {digest}")
    )


def _text(words: str) -> str:
    """Return a text as CSS: every sign that is not a letter or a digit is written as its number."""
    signs = (sign if sign.isalnum() and sign.isascii() else f"\\{ord(sign):06x}" for sign in words)
    return f'"{"".join(signs)}"'


def _load() -> Any:
    half_pictures = PIL.ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
        import weasyprint.urls
    except ImportError:
        msg = (
            "the PDF needs the package weasyprint, which is not installed: run  "
            f"{install_command('pdf')}  and the system's Pango (Debian: apt-get install "
            f"libpango-1.0-0 libpangoft2-1.0-0). {_REMEDY}"
        )
        raise InputError(msg) from None
    except OSError:
        msg = (
            "the PDF needs the system's library Pango, which is not installed: "
            "apt-get install libpango-1.0-0 libpangoft2-1.0-0 on Debian and Ubuntu, dnf install "
            f"pango on Fedora, brew install pango on macOS. {_REMEDY}"
        )
        raise InputError(msg) from None
    finally:  # it has the whole process read broken pictures
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = half_pictures
    return weasyprint
