"""The doctor's checks of this machine and of the site folder."""

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import wardround
from wardround.client.data.manifest.cells import parse_location
from wardround.client.doctor.check import FaultError
from wardround.client.site.folder import Site
from wardround.common.errors import InputError
from wardround.common.flower.environment import TESTED_FLOWER

_GIGABYTE = 10**9
# Prepared images take most of it; ledger and audit log need under 1.
_LEAST_GIGABYTES, _FEW_GIGABYTES = 1, 10
_IMAGE_COLUMNS = ("image", "mask")


def check_versions(site: Site) -> str:
    """Whether the packages are those that belong together.

    Raises:
        FaultError: One is missing, or is of a version that was not tested.
    """
    try:
        flower, torch = version("flwr"), version("torch")
    except PackageNotFoundError as error:
        fact, remedy = f"the package {error.name} is missing", "install wardround anew."
        raise FaultError(fact=fact, remedy=remedy) from None
    if not flower.startswith(f"{TESTED_FLOWER}."):
        fact = f"flwr is {flower} and wardround needs {TESTED_FLOWER}"
        remedy = f"pip install 'flwr=={TESTED_FLOWER}.*'"
        raise FaultError(fact=fact, remedy=remedy)
    return f"wardround {wardround.__version__}, flwr {flower}, torch {torch}"


def check_disk(site: Site) -> str:
    """Whether there is room for the ledger, the audit log and prepared images.

    Raises:
        FaultError: There is too little room; a warning where there is little.
    """
    free = shutil.disk_usage(site.folder).free / _GIGABYTE
    fact = f"{free:.1f} GB free"
    if free < _LEAST_GIGABYTES:
        raise FaultError(
            fact=fact, remedy=f"make room: below {_LEAST_GIGABYTES} GB a round may not be kept."
        )
    if free < _FEW_GIGABYTES:
        raise FaultError(
            fact=fact, remedy="make room for prepared images and large models.", status="warn"
        )
    return fact


def check_device(site: Site) -> str:
    """Which processor it trains on.

    Raises:
        FaultError: It trains on the CPU though nobody asked for that: a warning.
    """
    import torch

    from wardround.client.site.device import choose_device

    device = choose_device(site.settings.device)
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return f"{facts.name}, {facts.total_memory / _GIGABYTE:.0f} GB"
    if site.settings.device == "auto":
        raise FaultError(
            fact="no GPU: it trains on the CPU",
            remedy="for large networks give this account a GPU; or write device = 'cpu'.",
            status="warn",
        )
    return "the CPU, as site.toml says"


def check_data_folder(site: Site) -> str:
    """Whether the folder that relative paths start from can be read.

    Raises:
        FaultError: It is not there, or this account may not read it.
    """
    if not site.data_root.is_dir():
        remedy = "write data_root in site.toml, or mount the folder."
        raise FaultError(fact="the data folder is not there", remedy=remedy)
    try:
        next(site.data_root.iterdir(), None)
    except PermissionError:
        remedy = "give this account the right to read it; it needs none to write."
        raise FaultError(
            fact="the data folder may not be read by this account", remedy=remedy
        ) from None
    return "is there and can be read"


def check_manifest(site: Site) -> str:
    """How many examinations there are, and how many of their files are missing.

    Raises:
        FaultError: It cannot be read, or names files that are missing.
    """
    rows = _read_rows(site)
    header, *examinations = rows
    if "patient" not in header:
        remedy = "give it a header; manifest.example.csv shows one."
        raise FaultError(fact="the manifest has no column patient", remedy=remedy)
    if not examinations:
        raise FaultError(fact="the manifest has no rows", remedy="add a row for each examination.")
    patient = header.index("patient")
    patients = {row[patient] for row in examinations if len(row) > patient}
    fact = f"{len(examinations)} examinations of {len(patients)} patients"
    if missing := _count_missing(site, header, examinations):
        fact += f"; {missing} of the files they name are missing"
        raise FaultError(fact=fact, remedy="mount the data, or set data_root in site.toml.")
    return fact


def check_parts(site: Site) -> str:
    """How many patients were given a part for good, and whether any was ever in another.

    Raises:
        FaultError: What is written is damaged; a warning where patients were moved.
    """
    from wardround.client.data.manifest.examination import SPLITS
    from wardround.client.data.manifest.written_parts import parts_are_mixed, read_parts

    written = read_parts(site.folder)
    if written is None and not parts_are_mixed(site.folder):
        return "nobody has one yet: no study was opened"
    counts = Counter[str]() if written is None else written.counts()
    fact = ", ".join(f"{counts[part]} {part}" for part in SPLITS) + " patients"
    if not parts_are_mixed(site.folder):
        return fact
    if written is not None and not written.begun_late:
        fact += f"; {len(written.former)} were in another part before"
    else:
        fact += "; the ledger is older, so who was trained on before is not known"
    remedy = (
        "what is spent on any part counts for all patients. Put a lost folder 'parts' back; "
        "change the column split for new patients only."
    )
    raise FaultError(fact=fact, remedy=remedy, status="warn")


def check_policy(site: Site) -> str:
    """Whether the hospital's rules can be read, and allow anything.

    Raises:
        FaultError: It cannot be read; a warning where it allows everything.
    """
    from wardround.client.policy.policy import open_policy

    policy = open_policy(site.folder)
    if policy.simulated:
        remedy = "write a cautious one with 'wardround site policy new' where this is a hospital."
        raise FaultError(
            fact="simulated = true: it allows everything", remedy=remedy, status="warn"
        )
    if not policy.approved:
        return "no study is approved in it"
    return f"{len(policy.approved)} studies approved in it"


def check_ledger(site: Site) -> str:
    """Whether the record of what was spent on patients is whole.

    Raises:
        FaultError: It was damaged or changed.
    """
    from wardround.client.privacy.ledger.entries import LedgerError
    from wardround.client.privacy.ledger.file import (
        LEDGER_FILE,
        find_ledger_folder,
        read_ledger,
    )
    from wardround.client.privacy.ledger.totals import LedgerBook

    if not (find_ledger_folder(site.folder) / LEDGER_FILE).exists():
        return "none yet: no private study was answered"
    try:
        entries = read_ledger(site.folder).entries
        LedgerBook(entries)
    except LedgerError as error:
        remedy = "run 'wardround site ledger verify'; restore the folder from a backup."
        raise FaultError(fact=str(error), remedy=remedy) from None
    return f"intact, {len(entries)} entries"


def check_audit_log(site: Site) -> str:
    """Whether the record of what left is whole."""
    from wardround.client.egress.receipts import kept_receipts
    from wardround.common.security.audit_log import LOG_FILE
    from wardround.common.security.audit_verification import RECEIPTS_FILE, verify_log
    from wardround.common.security.signing_key import PUBLIC_FILE, open_public_key

    folder = site.folder / "audit"
    if not any((folder / name).exists() for name in (LOG_FILE, RECEIPTS_FILE)):
        return "none yet: nothing has left"
    key = open_public_key(site.key_folder / PUBLIC_FILE)
    receipts = kept_receipts(site.folder, key)
    return f"intact, {verify_log(folder, key, receipts=receipts).entries} entries"


def check_certificate(site: Site) -> str:
    """Whether the site has joined, with keys that only it can read.

    Raises:
        FaultError: The site has not joined, or its keys can be read by others.
    """
    from wardround.client.site.credentials import load_site_tls
    from wardround.common.security.tls_key_pair import is_renewal_due, read_certificate

    tls = load_site_tls(site.folder)
    fact, now = f"valid until {tls.expires:%Y-%m-%d %H:%M} UTC", datetime.now(UTC)
    certificate = read_certificate(tls.cert_path)
    if certificate.not_valid_before_utc > now:
        raise FaultError(
            fact="the site's certificate is not valid yet", remedy="set this machine's clock."
        )
    if is_renewal_due(certificate, now):
        remedy = f"the daemon renews it; or 'wardround site renew {site.folder}'."
        raise FaultError(fact=fact, remedy=remedy, status="warn")
    return fact


FOLDER_CHECKS: dict[str, Callable[[Site], str]] = {
    "versions": check_versions,
    "disk": check_disk,
    "processor": check_device,
    "data folder": check_data_folder,
    "manifest": check_manifest,
    "parts": check_parts,
    "policy": check_policy,
    "ledger": check_ledger,
    "audit log": check_audit_log,
    "certificate": check_certificate,
}


def _read_rows(site: Site) -> list[list[str]]:
    try:
        with site.manifest_path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        remedy = "write it, a row for each examination; manifest.example.csv shows the columns."
        raise FaultError(fact="there is no manifest", remedy=remedy) from None
    except (UnicodeDecodeError, csv.Error):
        remedy = "save it as a comma-separated file in UTF-8."
        raise FaultError(fact="the manifest is not a comma-separated file", remedy=remedy) from None
    if not rows:
        raise FaultError(fact="the manifest is empty", remedy="give it a header and rows.")
    return [[cell.strip() for cell in row] for row in rows]


def _count_missing(site: Site, header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return how many cells name no file."""
    columns = [
        place for place, name in enumerate(header) if name.partition(".")[0] in _IMAGE_COLUMNS
    ]
    cells = [row[place] for row in rows for place in columns if place < len(row)]
    return sum(1 for cell in cells if not _names_file(site, cell))


def _names_file(site: Site, cell: str) -> bool:
    try:
        return bool(cell) and parse_location(cell, site.data_root).path.exists()
    except (ValueError, InputError):
        return False
