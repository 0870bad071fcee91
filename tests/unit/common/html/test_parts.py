"""Pieces of a page: what others wrote stays text."""

from html.parser import HTMLParser

from wardround.common.html.parts import (
    Html,
    bullets,
    facts,
    form,
    html,
    joined,
    quote,
    section,
    table,
    tag,
)

HOSTILE = '</td><script>alert(1)</script><b onmouseover="x">" \' & é'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(content: str) -> Tags:
    found = Tags()
    found.feed(content)
    return found


def test_text_is_escaped_and_html_is_not_escaped_twice() -> None:
    assert html("<b>") == "&lt;b&gt;"
    assert html(html("<b>")) == "&lt;b&gt;"
    assert joined(("<", Html("<i>x</i>"))) == "&lt;<i>x</i>"


def test_no_piece_lets_what_others_wrote_become_markup() -> None:
    pieces = (
        section(HOSTILE, HOSTILE, anchor="part"),
        facts([(HOSTILE, HOSTILE)]),
        bullets([HOSTILE]),
        quote(HOSTILE),
        table(HOSTILE, (HOSTILE, HOSTILE), [(HOSTILE, HOSTILE)], texts=(1,)),
        form("read", HOSTILE, {HOSTILE: HOSTILE}, HOSTILE),
        tag("p", HOSTILE, data_key=HOSTILE),
    )
    for piece in pieces:
        found = parsed(piece)
        assert "script" not in found.tags
        assert "b" not in found.tags
    assert HOSTILE in parsed(tag("p", HOSTILE)).text


def test_a_table_has_a_caption_headings_of_rows_and_columns_and_classes_of_words() -> None:
    made = table(
        "Who.", ("site", "state", "why"), [("north", "ok", "none")], words=(1,), texts=(2,)
    )
    assert "<caption>Who.</caption>" in made
    assert made.count('scope="col"') == 3
    assert '<th scope="row">north</th><td class="word">ok</td><td class="text">none</td>' in made


def test_an_empty_attribute_is_left_out() -> None:
    assert tag("p", "x", class_="") == "<p>x</p>"
    assert "data-confirm" not in form("read", "Read", {})
