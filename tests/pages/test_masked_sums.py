"""The page on masked sums: three hospitals and a server give each other keys by its commands."""

from pathlib import Path

import pytest
from tests.pages.story import Place, followed
from tests.support.hospitals.table_sites import study_for

from wardround.client.site.folder import open_site
from wardround.client.site.peers import own_card, peers_of
from wardround.common.security.peers import read_peers

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = "docs/how-to/masked-sums.md"
NAMES = ("north", "south", "west")


def words_of(folder: Path) -> str:
    return own_card(open_site(folder))[0].words


def test_hospitals_give_each_other_their_keys_as_the_page_says(place: Place) -> None:
    folders = {name: place.folder / name for name in NAMES}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "site.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
    study = study_for(
        "fedavg", **{"federation.secure_aggregation": True, "evaluation.keep": "last"}
    )
    (place.folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    place.run("wardround server init server --name Try --public-name 127.0.0.1")
    named = {
        "/srv/wardround": "server",
        "/srv/north": "north",
        "WORDS OF SOUTH": words_of(folders["south"]),
        "WORDS OF WEST": words_of(folders["west"]).upper().replace("-", " "),
    }
    with followed(PAGE, place, named) as page:
        export = page.take("wardround site peers export")
        for name in NAMES:
            place.run(export.replace("north", name))
        page.do("wardround site peers import south.peer")
        page.do("wardround site peers import west.peer")
        listed = page.do("wardround site peers list")
        assert all(words_of(folder) in listed for folder in folders.values())
        page.do("wardround server peers import")
        page.rest()
    assert [card.site for card in peers_of(open_site(folders["north"]))] == ["south", "west"]
    assert set(read_peers(place.folder / "server")) == set(NAMES)
    wrong = "wardround site peers import north.peer --site south --words"
    place.run(f"{wrong} '{words_of(folders['west'])}'", fine=(2,))
    place.run(wrong.replace(" --words", ""), typed=f"{words_of(folders['north'])}\n")
    assert [card.site for card in peers_of(open_site(folders["south"]))] == ["north"]
    place.run("wardround site peers remove south --site north")
    place.run("wardround site peers import north.peer --site north", fine=(2,))
