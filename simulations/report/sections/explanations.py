"""Where did the model look, and are its maps to be believed?"""

import csv
import math
from collections.abc import Sequence

import numpy as np

from wardround.common.errors import InputError
from wardround.simulations.evidence.explanations import Mean, SiteMaps, summarise_maps
from wardround.simulations.report.charts.pictures import overlay_uri
from wardround.simulations.report.charts.tables import Cell, Table, model_title
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Image, Section
from wardround.simulations.run_files.explanations import (
    FOLDER,
    ExplanationRow,
    FeatureRow,
    Maps,
    UncertaintyRow,
    explained_methods,
    read_explanations,
    read_features,
    read_maps,
    read_uncertainties,
)

_PICTURES_A_CLASS = 1
_MOST_PICTURES = 8  # of a method: a screen, and a small page
_MOST_ROWS = 200
_LIMITS = (
    "A map shows what a method computes from the network, and not why the network is right. In "
    "studies with radiologists' own outlines every method missed what people marked, above all "
    "small and complex findings (Saporta 2022), and every method failed at least one of "
    "localisation, randomised weights, repeatability and reproducibility (Arun 2021).",
    "Random weights: the map is made again by the same network with a random last layer (mean of "
    "three draws), and with a quarter, a half and all of its layers random. From a rank "
    "correlation of .30 on, with a random last layer or with all layers random, the map is marked: "
    "it shows the image more than what was learnt. Inside the lesion: share of the positive "
    "attribution less the lesion's share of the image; intervals over patients. Sites agree: rank "
    "correlation of the maps that the sites' own models make. Other round: with the map of the "
    "same model after another round that the run has kept; no runs over seeds are compared.",
    "A passed check is no proof that a map is right: it only failed to show it wrong.",
)


def explanations_section(contents: RunContents) -> Section | None:
    """Return maps with their checks; None where nobody asked for any.

    Raises:
        InputError: A file is damaged.
    """
    methods, study = explained_methods(contents.folder), contents.study
    if not methods or study is None:
        return None
    try:
        if study.task.dense:
            return _of_segmentation(contents, methods)
        return _of_classification(contents, methods)
    except (KeyError, TypeError, ValueError, OSError, csv.Error):
        msg = (
            f"{contents.folder / FOLDER} holds a damaged file, or one of another version of "
            "wardround: remove the folder and run wardround explain-predictions again."
        )
        raise InputError(msg) from None


def _of_classification(contents: RunContents, methods: Sequence[str]) -> Section | None:
    answer: list[str] = []
    tables: list[Table] = []
    images: list[Image] = []
    for method in methods:
        rows = read_explanations(contents.folder, method)
        if not rows:
            continue
        sites = summarise_maps(rows)
        answer.append(_sentence(method, rows, sites))
        tables += [_site_table(method, rows[0].model, sites)]
        features = read_features(contents.folder, method)
        if features:
            tables.append(_feature_table(method, features))
        tables.append(_case_table(method, rows))
        images += _pictures(method, rows, read_maps(contents.folder, method))
    if not answer:
        return None
    return Section(
        anchor="explanations",
        title="Where did the model look?",
        answer=tuple(answer),
        tables=tuple(tables),
        images=tuple(images),
        notes=(*_privacy(bool(images)), *_LIMITS),
        folded=len(tables) > 6,
    )


def _privacy(has_pictures: bool) -> tuple[str, ...]:
    if not has_pictures:
        return ()
    return (
        "Left: the image; right: what speaks for the class in red, the lesion outlined in white "
        "where its mask is known. These are pictures of patients and stay in the run folder.",
    )


def _sentence(method: str, rows: Sequence[ExplanationRow], sites: Sequence[SiteMaps]) -> str:
    marked = sum(one.marked for one in sites)
    said = (
        f"{method}, {model_title(rows[0].model)}: {len(rows)} predictions explained, "
        f"{marked} of the maps are not to be believed."
    )
    known = [row for row in rows if not math.isnan(row.inside)]
    if known:
        beyond = float(np.mean([row.inside - row.area for row in known]))
        more, by = ("more", beyond) if beyond >= 0 else ("less", -beyond)
        said += (
            f" {by:.0%} {more} of what speaks for the class lies in the lesion than its share of "
            f"the image ({len(known)} images with a mask)."
        )
    return said


def _site_table(method: str, model: str, sites: Sequence[SiteMaps]) -> Table:
    rows = tuple(
        (
            one.site,
            (
                Cell(str(one.maps)),
                Cell(str(one.marked)),
                _interval(one.beyond_area),
                _interval(one.believed_beyond_area),
                Cell(_number(one.last_layer)),
                Cell(_number(one.all_layers)),
                Cell(_number(one.agreement_rank), _ssim(one.agreement_ssim)),
                Cell(_number(one.repeatability)),
            ),
        )
        for one in sites
    )
    columns = (
        "maps",
        "not to be believed",
        "in the lesion beyond its area",
        "of those believed",
        "random last layer",
        "all layers random",
        "sites agree",
        "other round",
    )
    caption = f"{method} of the model {model_title(model)}: what its checks say, by hospital."
    return Table(caption, "hospital", columns, rows)


def _case_table(method: str, rows: Sequence[ExplanationRow]) -> Table:
    cells = tuple(
        (
            f"{row.site}, row {row.case}",
            (
                Cell(row.true_class or "none"),
                Cell(row.class_name, f"{row.score:.0%}"),
                Cell(_number(row.last_layer)),
                Cell(" / ".join(_number(one) for one in (row.quarter, row.half, row.all_layers))),
                Cell("–" if math.isnan(row.inside) else f"{row.inside:.0%}", _area(row)),
                Cell(_number(row.completeness_error)),
                Cell("no" if row.marks else "not refuted", row.marks),
            ),
        )
        for row in rows[:_MOST_ROWS]
    )
    columns = (
        "truth",
        "explained",
        "random last layer",
        "a quarter, half, all random",
        "in the lesion",
        "completeness error",
        "believe it?",
    )
    return Table(f"{method}: every explained prediction.", "examination", columns, cells)


def _feature_table(method: str, features: Sequence[FeatureRow]) -> Table:
    classes = tuple(dict.fromkeys(row.class_name for row in features))
    values: dict[tuple[str, str], list[float]] = {}
    for row in features:
        values.setdefault((row.covariate, row.class_name), []).append(row.attribution)
    names = dict.fromkeys(row.covariate for row in features)
    rows = tuple(
        (
            name,
            tuple(
                Cell("–")
                if (name, one) not in values
                else Cell(
                    f"{float(np.mean(np.abs(values[name, one]))):.2f}",
                    f"mean {float(np.mean(values[name, one])):+.2f}".replace("-", "\u2212"),
                )
                for one in classes
            ),
        )
        for name in names
    )
    caption = (
        f"{method}: how much each clinical value speaks, in log-odds of the predicted class, "
        "against the mean patient; mean size, and with sign."
    )
    return Table(caption, "clinical value", tuple(f"for {one}" for one in classes), rows)


def _pictures(method: str, rows: Sequence[ExplanationRow], maps: Maps | None) -> list[Image]:
    """Return a picture a class, with what its checks say beside it."""
    if maps is None:
        return []
    of_case = {(row.site, row.case): row for row in rows}
    shown: dict[str, int] = {}
    images: list[Image] = []
    for index in range(len(maps.images)):
        name = str(maps.class_name[index])
        row = of_case.get((str(maps.site[index]), int(maps.case[index])))
        if row is None or shown.get(name, 0) >= _PICTURES_A_CLASS or len(images) >= _MOST_PICTURES:
            continue
        shown[name] = shown.get(name, 0) + 1
        what = f"{method} for {name}, row {row.case} of {row.site}"
        source = overlay_uri(maps.images[index], maps.maps[index], maps.masks[index])
        images.append(Image(source, f"Image and map: {what}", f"{what}. {_in_words(row)}", True))
    return images


def _in_words(row: ExplanationRow) -> str:
    truth = row.true_class or "none"
    said = [f"Truth: {truth}, score {row.score:.0%}."]
    said.append(
        f"Not to be believed: {row.marks}."
        if row.marks
        else f"Changes with random weights (rank correlation {row.last_layer:.2f})."
    )
    if not math.isnan(row.inside):
        said.append(f"{row.inside:.0%} lies in the lesion, which is {row.area:.0%} of the image.")
    if not math.isnan(row.agreement_rank):
        said.append(f"The sites' own models agree by {row.agreement_rank:.2f}.")
    return " ".join(said)


def _of_segmentation(contents: RunContents, methods: Sequence[str]) -> Section | None:
    answer: list[str] = []
    tables: list[Table] = []
    images: list[Image] = []
    for method in methods:
        rows = read_uncertainties(contents.folder, method)
        if not rows:
            continue
        known = [row for row in rows if not math.isnan(row.auroc)]
        auroc = float(np.mean([row.auroc for row in known])) if known else math.nan
        caught = float(np.mean([row.caught for row in known])) if known else math.nan
        answer.append(
            f"{method}, {model_title(rows[0].model)}: a wrongly marked voxel is less sure than a "
            f"right one in {auroc:.0%} of pairs, and the twentieth of the voxels that is least "
            f"sure holds {caught:.0%} of the wrong ones ({len(rows)} examinations)."
            if known
            else f"{method}: no voxel of the {len(rows)} examinations is marked wrongly."
        )
        tables.append(_doubt_table(method, rows))
        images += _doubt_pictures(method, rows, read_maps(contents.folder, method))
    if not answer:
        return None
    notes = (
        "Left: the image; right: how unsure the model is, in red, and outlined in white where it "
        "errs. These are pictures of patients and stay in the run folder.",
        "Uncertainty is the entropy of the probabilities, 0 sure to 1. A model can be sure and "
        "wrong: where the second number is near .50 the map says nothing about its errors.",
    )
    return Section(
        "explanations",
        "Where is the model unsure?",
        tuple(answer),
        tables=tuple(tables),
        images=tuple(images),
        notes=notes,
    )


def _doubt_table(method: str, rows: Sequence[UncertaintyRow]) -> Table:
    cells = tuple(
        (
            f"{row.site}, row {row.case}",
            (
                Cell(_number(row.dice)),
                Cell(f"{row.uncertainty:.3f}"),
                Cell(f"{row.wrong:.1%}"),
                Cell(_number(row.auroc)),
                Cell("–" if math.isnan(row.caught) else f"{row.caught:.0%}"),
            ),
        )
        for row in rows[:_MOST_ROWS]
    )
    columns = ("Dice", "uncertainty", "wrong voxels", "errors are less sure", "errors caught")
    return Table(f"{method}: every examination.", "examination", columns, cells)


def _doubt_pictures(method: str, rows: Sequence[UncertaintyRow], maps: Maps | None) -> list[Image]:
    if maps is None:
        return []
    of_case = {(row.site, row.case): row for row in rows}
    sites: set[str] = set()
    images: list[Image] = []
    for index in range(len(maps.images)):
        site = str(maps.site[index])
        row = of_case.get((site, int(maps.case[index])))
        if row is None or site in sites or len(images) >= _MOST_PICTURES:
            continue
        sites.add(site)
        what = f"{method}, row {row.case} of {site}"
        source = overlay_uri(maps.images[index], maps.maps[index], maps.masks[index])
        caption = f"{what}. Dice {_number(row.dice)}; errors are less sure: {_number(row.auroc)}."
        images.append(Image(source, f"Image and uncertainty: {what}", caption, True))
    return images


def _interval(mean: Mean) -> Cell:
    if math.isnan(mean.value):
        return Cell("–")
    if math.isnan(mean.low):
        return Cell(_number(mean.value), "one patient: no interval")
    note = f"{_number(mean.low)} to {_number(mean.high)}, {mean.patients} patients"
    return Cell(_number(mean.value), note)


def _ssim(value: float) -> str:
    return "" if math.isnan(value) else f"SSIM {value:.2f}"


def _area(row: ExplanationRow) -> str:
    return "" if math.isnan(row.area) else f"area {row.area:.0%}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "\u2212")
