"""Simulated hospitals on disk: the very folders that a real one has."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from wardround.client.data.manifest.columns import LESION_MASK, SOURCE_ROW, WAVE
from wardround.client.policy.policy import OPEN_POLICY, POLICY_FILE
from wardround.client.site.folder import Scanner, SiteFile
from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.study.plans.subgroups import columns_of
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import Examinations, PublicExamination
from wardround.simulations.datasets.manifest_file import image_columns
from wardround.simulations.sites.assignment import Assignment
from wardround.simulations.sites.lacking import require_known_sites, without_lacking
from wardround.simulations.sites.scanner_shifts import assign_scanners

POOLED_SITE = "pooled"


def write_sites(
    examinations: Examinations,
    assignment: Assignment,
    study: Study,
    folder: Path,
    skip_unreadable: bool = False,
) -> tuple[Path, ...]:
    """Write a site folder for each site and return them, in the assignment's order.

    Locations are absolute, so no image is copied. A folder that is there already keeps its state,
    and must hold the same manifest.

    Args:
        examinations: The whole data set.
        assignment: Who is where.
        study: Says which columns a site needs, and how scanners differ.
        folder: The folders are written below it, each under its site's name.
        skip_unreadable: Whether an unreadable image is left out, and noted, or stops the run.

    Raises:
        InputError: A folder holds another site, or cannot be written.
    """
    simulation = study.simulation
    scanners = assign_scanners(simulation.shift, assignment.sites, simulation.seed)
    written = []
    require_known_sites(study, assignment.sites)
    for site in assignment.sites:
        rows = without_lacking(assignment.rows_of(site, examinations), site, study)
        scanner, of_waves = scanners[site], _of_waves(rows, assignment, study)
        settings = SiteFile(
            name=site,
            skip_unreadable=skip_unreadable,
            shift=scanner.shift,
            shift_seed=scanner.seed,
            scanners=of_waves,
            rows_of=_rows_of(examinations),
        )
        names = [_of_wave(site, row.wave) for row in rows] if of_waves else []
        written.append(
            _write_site(folder / site, settings, _manifest(rows, study, names), study.privacy.delta)
        )
    return tuple(written)


def write_pooled_site(
    examinations: Examinations,
    assignment: Assignment,
    study: Study,
    folder: Path,
    skip_unreadable: bool = False,
    left_out: str = "",
) -> Path:
    """Write one site folder with all sites' examinations, for the pooled comparison.

    Every row keeps the scanner of its own site, so that pooled training sees the same images.

    Args:
        examinations: The whole data set.
        assignment: Who is where.
        study: As for :func:`write_sites`.
        folder: The site folder itself.
        skip_unreadable: As for :func:`write_sites`.
        left_out: A site whose examinations are not among them.

    Raises:
        InputError: The folder holds another site, or cannot be written.
    """
    simulation = study.simulation
    scanners = assign_scanners(simulation.shift, assignment.sites, simulation.seed)
    sites = [site for site in assignment.sites if site != left_out]
    shifted = {site: scanners[site] for site in sites if scanners[site].shift}
    rows = [
        row
        for site in sites
        for row in without_lacking(assignment.rows_of(site, examinations), site, study)
    ]
    names = [assignment.site_of[row.patient] for row in rows] if shifted else []
    if of_waves := _of_waves(rows, assignment, study):
        names = [_of_wave(assignment.site_of[row.patient], row.wave) for row in rows]
        shifted = of_waves
    settings = SiteFile(
        name=POOLED_SITE,
        skip_unreadable=skip_unreadable,
        scanners=shifted,
        rows_of=_rows_of(examinations),
    )
    manifest = _manifest(rows, study, _known_scanners(names, shifted))
    return _write_site(folder, settings, manifest, study.privacy.delta)


def _of_waves(
    rows: Sequence[PublicExamination], assignment: Assignment, study: Study
) -> dict[str, Scanner]:
    """Return the scanner of each site and wave of some rows; none where the waves share one."""
    simulation = study.simulation
    if not any(shift.waves for shift in simulation.shift):
        return {}
    found: dict[str, Scanner] = {}
    for wave in sorted({row.wave for row in rows}):
        scanners = assign_scanners(simulation.shift, assignment.sites, simulation.seed, wave)
        there = {assignment.site_of[row.patient] for row in rows if row.wave == wave}
        found |= {
            _of_wave(site, wave): scanners[site] for site in assignment.sites if site in there
        }
    return found


def _of_wave(site: str, wave: int) -> str:
    return f"{site}.{wave}"


def _rows_of(examinations: Examinations) -> str | None:
    """Return the researcher's own manifest, whose rows messages name."""
    return None if examinations.manifest is None else str(examinations.manifest)


def _known_scanners(sites: Sequence[str], shifted: dict[str, Scanner]) -> list[str]:
    """Return each row's scanner; "" for a site whose scanner changes nothing."""
    return [site if site in shifted else "" for site in sites]


def _manifest(rows: Sequence[PublicExamination], study: Study, scanners: Sequence[str] = ()) -> str:
    """Return a manifest with the columns that the study needs."""
    channels = image_columns(study)
    target = study.task.column
    targets = (target,) if target else ()  # pretraining reads none
    covariates = [covariate.name for covariate in study.data.covariates]
    split, numbered = any(row.split for row in rows), any(row.row for row in rows)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    masked = target == "label" and any(row.mask for row in rows) and LESION_MASK not in covariates
    # Of a pooled site the column scanner says which hospital's simulated scanner it was.
    further = [name for name in columns_of(study) if not (scanners and name == "scanner")]
    known = (
        ("split", split),
        (WAVE, study.continual is not None),
        ("scanner", scanners),
        (LESION_MASK, masked),
        (SOURCE_ROW, numbered),
    )
    optional = [name for name, used in known if used]
    writer.writerow(["patient", *channels.values(), *targets, *covariates, *further, *optional])
    for number, row in enumerate(rows):
        # An optional channel, or covariate, that an examination lacks is an empty cell.
        cells = [row.patient, *(row.images.get(channel, "") for channel in channels)]
        found = {"label": row.label, "mask": row.mask, "boxes": row.boxes}
        cells += [found[column] for column in targets]
        cells += [row.covariates[name] for name in covariates]
        cells += [row.covariates.get(name, "") for name in further]
        cells += [row.split] if split else []
        cells += [str(row.wave)] if study.continual is not None else []
        cells += [scanners[number]] if scanners else []
        cells += [row.mask] if masked else []
        cells += [str(row.row)] if numbered else []
        writer.writerow(cells)
    return stream.getvalue()


def _write_site(folder: Path, settings: SiteFile, manifest: str, delta: float) -> Path:
    """Write the manifest, and then ``site.toml``, without which a folder is no site."""
    content = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    held = folder / settings.manifest
    try:
        if held.exists() and held.read_text(encoding="utf-8") != manifest:
            msg = (
                f"{folder} already holds a site with other examinations: give another folder, "
                "or remove it."
            )
            raise InputError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(held, manifest)
        write_open_policy(folder, delta)
        _replace(folder / "site.toml", tomli_w.dumps(content))
    except OSError as error:
        msg = f"cannot write the site folder {folder} ({error.strerror}): give another folder."
        raise InputError(msg) from error
    return folder


def write_open_policy(folder: Path, delta: float = OPEN_POLICY.lifetime_delta) -> None:
    """Let a simulated site do whatever a study asks, where no policy says otherwise yet.

    Args:
        delta: At which the site's ledger states epsilon: the study's own.
    """
    if not (folder / POLICY_FILE).exists():
        policy = OPEN_POLICY.model_copy(update={"lifetime_delta": delta})
        said = policy.model_dump(mode="json", exclude_defaults=True)
        _replace(folder / POLICY_FILE, f"# A simulated site.\n{tomli_w.dumps(said)}")


def _replace(path: Path, text: str) -> None:
    replace_file(path, text, BY_UMASK, durable=False)
