"""The pages for operators and hospitals: real servers, real daemons, each command as it stands."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.faults.stage import make_study, write_manifest
from tests.pages.story import Place, Story, followed
from tests.support.stage import table_study, wait_until, write_table

from wardround.client.policy.approvals import decide
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.local_federation.processes import free_port
from wardround.simulations.local_federation.run import write_trial_policy
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [
    pytest.mark.pages,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
_SERVES, _ANSWERS = "Sites reach", "answers"
_HOW_TO = "docs/how-to"
_TRACKERS = '[track.tensorboard]\nfolder = "tensorboard"\n'


def here(port: int) -> dict[str, str]:
    """Return what stands for the public name of a page's server on this machine."""
    return {
        "--public-name fl.example.org:443 --public-name 10.0.0.7": "--public-name lab:443",
        "--public-name fl.example.org": f"--public-name 127.0.0.1 --host 127.0.0.1 --port {port}",
    }


def token_in(said: str) -> str:
    return max(said.split(), key=len)


def test_operators_follow_their_pages(place: Place) -> None:
    """From an empty folder to a model, its backup, a monitor and a tracker."""
    api, metrics = free_port(), free_port()
    named = {
        **here(free_port()),
        "0.0.0.0:8444": f"127.0.0.1:{api}",
        "fl.example.org:8444": f"127.0.0.1:{api}",
        "127.0.0.1:9464": f"127.0.0.1:{metrics}",
        "/srv/wardround": "server",
        "/backup": ".",
    }
    manifest = write_table(place.folder, 90, ("north", "south", "west"))
    study = table_study("my-study", manifest, minimum_sites=2, rounds=5)
    sites = prepare_sites(study, place.folder).folders
    (place.folder / "trackers.toml").write_text(_TRACKERS, encoding="utf-8")
    with (
        followed(f"{_HOW_TO}/operate-a-server.md", place, named) as page,
        followed(f"{_HOW_TO}/monitor.md", place, named) as monitor,
        followed(f"{_HOW_TO}/track-runs.md", place, named) as trackers,
    ):
        page.do("wardround server init")
        settings = place.folder / "server" / "server.toml"
        said = settings.read_text(encoding="utf-8")
        told = said.replace('metrics = ""', f'metrics = "127.0.0.1:{metrics}"')
        settings.write_text(told, encoding="utf-8")
        serving = page.begin("wardround server start", _SERVES)
        page.do("wardround server status")
        assert len(token_in(page.do("wardround server invite north"))) > 300
        page.do("wardround sites list")
        page.do("wardround server revoke north")
        assert "wardround_server_info{" in monitor.do("curl")
        page.do("wardround study new")
        for command in ("check", "explain"):
            page.do(f"wardround study {command}")
        (place.folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
        join_all(place, study, sites)
        follow_a_run(page)
        trackers.rest()
        page.do("wardround server operator")
        place.end(serving)
        page.begin("wardround server start", _SERVES)
        assert "my-study-1" in page.do("wardround runs list")
        page.do("wardround server backup")
        page.do("wardround server restore")
        named["/srv/wardround"] = "another"
        page.rest()
    assert any((place.folder / "tensorboard").rglob("*tfevents*"))
    assert (place.folder / "report.html").is_file()
    assert (place.folder / "server-restored" / "server.toml").is_file()


def follow_a_run(page: Story) -> None:
    """Hand the study in, stop it for a canary, resume it, and watch it to its end."""
    page.do("wardround study submit")
    page.do("wardround runs stop")
    assert "FAILS" not in page.do("wardround study canary")
    for command in ("resume", "list", "watch"):
        page.do(f"wardround runs {command}")
    assert "finished" in page.do("wardround runs show")
    page.do("wardround runs report")
    page.do("wardround runs model")


def join_all(place: Place, study: Study, sites: tuple[Path, ...]) -> None:
    """Have each hospital join, approve the study, and start its daemon."""
    for site in sites:
        token = token_in(place.run(f"wardround server invite {site.name} --server server"))
        place.run(f"wardround site join - --folder {site}", typed=token)
        write_trial_policy(site, study)
        decide(site, study.digest, "approved")
        place.begin(f"wardround site start {site}", _ANSWERS)


def test_a_hospital_follows_its_pages(place: Place) -> None:
    """A private study from the invitation to the restored folder, and a second consortium."""
    study = private_study(place.folder)
    (site,) = prepare_sites(study, place.folder).folders
    write_trial_policy(site, study)
    named: dict[str, str] = {
        "DIGEST": study.digest,
        "5e3a90c2b7d14f68": study.digest[:16],
        "/srv/site-restored": "restored",
        "/srv/site": "north",
        "/srv/models": ".",
        "/srv/lung": "lung",
        "/srv/heart": "north",
        "/backup": ".",
    }
    start_server(place, "server")
    start_server(place, "other")
    with followed(f"{_HOW_TO}/run-a-site.md", place, named) as page:
        token = place.run("wardround server invite north --server server")
        named["TOKEN"] = token_in(token)
        page.do("wardround site join")
        for file in ("manifest.csv", "policy.toml"):
            (place.folder / "north" / file).write_bytes((site / file).read_bytes())
        page.do("wardround site doctor")
        page.do("wardround site policy check")
        daemon = page.begin("wardround site start", _ANSWERS)
        page.do("wardround site check --site", fine=(0, 1))
        place.run("wardround study submit study.toml --server server")
        wait_until(lambda: study.digest[:16] in place.run("wardround site pending north"))
        page.do("wardround site check DIGEST", fine=(0, 1))
        page.do("wardround site pending")
        page.do("wardround site explain", fine=(0, 1, 2, 3))
        page.do("wardround site approve")
        place.run("wardround runs watch private-1 --server server")
        page.do("wardround site status")
        assert study.digest[:12] in page.do("wardround site ledger show")
        page.do("wardround site model")
        follow_the_reference(place, named)
        place.end(page.begin("wardround site page", "http://127.0.0.1"))
        for command in ("audit show", "audit verify", "reject", "stop"):
            page.do(f"wardround site {command}")
        assert daemon.wait(60) == 0
        place.running.remove(daemon)
        page.do("wardround site backup")
        page.do("wardround site restore")
        token = place.run("wardround server invite lung --server other")
        named["TOKEN"] = token_in(token)
        page.rest()
    assert (place.folder / "restored" / "ledger" / "ledger.jsonl").is_file()
    assert "north/ledger" in (place.folder / "lung" / "site.toml").read_text(encoding="utf-8")


def follow_the_reference(place: Place, named: Mapping[str, str]) -> None:
    """Run the commands of the pages on the ledger and on the policy, at a site that has trained."""
    with followed("docs/concepts/ledger.md", place, {**named, "SITE": "north"}) as page:
        for word in ("show", "verify", "export"):
            assert page.do(f"wardround site ledger {word}")
        joined = page.take("wardround site join")
        assert joined.endswith("--folder lung --ledger-of north"), "run with the page on a site"
    with followed(
        "docs/reference/site-policy.md", place, {"STUDY": "study.toml", "SITE": "north"}
    ) as page:
        fresh = page.take("wardround site policy new").replace("north", "fresh")
        (place.folder / "fresh").mkdir()
        (place.folder / "fresh" / "site.toml").write_text('name = "fresh"\n', encoding="utf-8")
        place.run(fresh)
        page.do("wardround site explain", fine=(0, 1, 2, 3))
        page.rest()


def start_server(place: Place, folder: str) -> None:
    name = f"--public-name 127.0.0.1 --host 127.0.0.1 --port {free_port()}"
    place.run(f"wardround server init {folder} --name Try {name}")
    place.begin(f"wardround server start {folder}", _SERVES)


def private_study(folder: Path) -> Study:
    """Write a private study of one hospital, which lets go of its site after a few rounds."""
    manifest = write_manifest(folder / "data")
    lines = manifest.read_text(encoding="utf-8").replace("site-1,", "north,").splitlines()
    kept = [lines[0], *(line for line in lines if ",north," in line)]
    manifest.write_text("\n".join(kept) + "\n", encoding="utf-8")
    study = with_changes(make_study(manifest, "private"), {"federation.minimum_sites": 1})
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return study


def test_a_site_joins_as_the_page_says(place: Place) -> None:
    manifest = write_table(place.folder, 80, ("north", "south"))
    study = table_study("any", manifest)
    (north, _) = prepare_sites(study, place.folder).folders
    named = {**here(free_port()), "/srv/wardround": "server"}
    with followed(f"{_HOW_TO}/joining.md", place, named) as page:
        page.do("wardround server init")
        place.begin("wardround server start server", _SERVES)
        named["TOKEN"] = token_in(page.do("wardround server invite"))
        page.do("wardround site join")
        (place.folder / "north" / "manifest.csv").write_bytes((north / "manifest.csv").read_bytes())
        page.do("wardround site doctor", fine=(0, 1))
        page.rest()
    members = json.loads(place.run("wardround sites list --server server --json"))
    assert [re.sub(r"\W", "", one["site"]) for one in members] == ["north"]
    assert members[0]["revoked"]
