"""The pages of three made-up runs, each written once."""

from collections.abc import Callable

import pytest
from tests.integration.simulations.report_page.made_run import Page, make_run

from wardround.simulations.report import write_report


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    folder = tmp_path_factory.mktemp("runs")
    written: dict[str, Page] = {}

    def page(kind: str) -> Page:
        if kind not in written:
            task = "segmentation" if kind == "segmentation" else "classification"
            status, rounds = ("interrupted", 3) if kind == "interrupted" else ("finished", 8)
            run = make_run(folder / kind, task, status, rounds)
            written[kind] = Page(write_report(run))
        return written[kind]

    return page
