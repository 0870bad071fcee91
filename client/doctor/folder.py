"""The doctor's checks of this machine and of the site folder."""

import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import wardround
from wardround.client.doctor.account import check_account
from wardround.client.doctor.check import FaultError
from wardround.client.doctor.manifest import check_manifest
from wardround.client.site.folder import Site
from wardround.common.errors import DataError, PackageError
from wardround.common.files.account import acting_as, owner_of
from wardround.common.flower.environment import (
    INSTALL_FLOWER,
    TESTED_FLOWER,
    is_tested_flower,
)

_GIGABYTE = 10**9
# Prepared images take most of it; ledger and audit log need under 1.
_LEAST_GIGABYTES, _FEW_GIGABYTES = 1, 10
_STUDIES = ("studies", "state/pending")  # those decided on, and those that wait


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
    if not is_tested_flower(flower):
        fact = f"flwr is {flower} and wardround needs {' or '.join(TESTED_FLOWER)}"
        raise FaultError(fact=fact, remedy=f"{INSTALL_FLOWER}.")
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
    """Which processor it trains on, or which of them together.

    Raises:
        InputError: A GPU is named that is not there.
        FaultError: It trains on the CPU though nobody asked for that: a warning.
    """
    import torch

    from wardround.client.site.device import choose_device

    if site.settings.devices:
        return _together(site.settings.devices)
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


def _together(names: tuple[str, ...]) -> str:
    """Return what several devices are.

    Raises:
        InputError: One is not there.
        FaultError: They are no GPUs, or not alike, so that the slowest decides: a warning.
    """
    import torch

    from wardround.client.site.device import choose_device

    devices = [choose_device(name) for name in names]
    if devices[0].type == "cpu":
        raise FaultError(
            fact=f"{len(names)} processes on the CPU: slower than one, which uses all its cores",
            remedy="name GPUs in devices, or remove it.",
            status="warn",
        )
    kinds = [torch.cuda.get_device_properties(device) for device in devices]
    words = ", ".join(f"{one.name}, {one.total_memory / _GIGABYTE:.0f} GB" for one in kinds)
    if len({(one.name, one.total_memory) for one in kinds}) > 1:
        raise FaultError(
            fact=f"{len(names)} GPUs that are not alike ({words})",
            remedy="the slowest decides how long a step takes: name GPUs of one kind.",
            status="warn",
        )
    return f"{len(names)} GPUs together: {words}"


def check_data_folder(site: Site) -> str:
    """Whether the folder that relative paths start from can be read.

    Raises:
        FaultError: It is not there, or this account may not read it.
    """
    owner = owner_of(site.folder)
    try:
        with acting_as(owner):
            is_folder = site.data_root.is_dir()
            next(site.data_root.iterdir(), None)
    except PermissionError:
        remedy = f"give the account {owner.name} the right to read it; it needs none to write."
        fact = f"the data folder may not be read by {owner.name}, under whom the daemon runs"
        raise FaultError(fact=fact, remedy=remedy) from None
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    if not is_folder:
        remedy = "write data_root in site.toml, or mount the folder."
        raise FaultError(fact="the data folder is not there", remedy=remedy)
    return "is there and can be read"


def check_studies(site: Site) -> str:
    """Whether the manifest is what the studies need that this site was asked for.

    Raises:
        FaultError: A study would be refused; the rows are named, and no patient.
    """
    from wardround.client.data.manifest.manifest import read_manifest
    from wardround.common.study.loading import load_study

    paths = [path for name in _STUDIES for path in sorted((site.folder / name).glob("*.toml"))]
    for path in paths:
        study = load_study(path, planned=False)
        try:
            read_manifest(site, study)
        except DataError as error:
            place = f"the manifest {site.manifest_path}"
            fact, _, remedy = str(error).replace(place, "the manifest", 1).rpartition(": ")
            raise FaultError(fact=f"{study.name}: {fact}", remedy=remedy) from None
    if not paths:
        return "none is known yet: cells are checked against a study once the server asks"
    return f"the manifest's cells fit {len(paths)} studies"


def check_parts(site: Site) -> str:
    """How many patients were given a part for good, and whether any was ever in another.

    Raises:
        FaultError: What is written is damaged; a warning where patients were moved.
    """
    from wardround.client.data.manifest.examination import SPLITS
    from wardround.client.data.manifest.parts.written_parts import parts_are_mixed, read_parts

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


def check_packages(site: Site) -> str:
    """Whether what the policy lists is installed here so; nothing of it is imported.

    Raises:
        FaultError: A package is missing, or its files have another hash.
    """
    from wardround.client.policy.policy import open_policy
    from wardround.common.files.packages.snapshot import hash_of

    listed = open_policy(site.folder).packages
    for package, wanted in listed:
        try:
            found = hash_of(package)
        except PackageError as error:
            fact, _, remedy = str(error).partition(": ")
            raise FaultError(fact=fact, remedy=remedy, status="warn") from None
        if found != wanted:
            raise FaultError(
                fact=f"{package} is listed with {wanted}, and its files here have {found}",
                remedy="install the version that was read, or read this one and list its hash.",
                status="warn",
            )
    names = ", ".join(package for package, _ in listed)
    return f"installed as the policy lists them: {names}" if names else "none is listed"


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
    "account": check_account,
    "versions": check_versions,
    "disk": check_disk,
    "processor": check_device,
    "data folder": check_data_folder,
    "manifest": check_manifest,
    "studies": check_studies,
    "parts": check_parts,
    "policy": check_policy,
    "packages": check_packages,
    "ledger": check_ledger,
    "audit log": check_audit_log,
    "certificate": check_certificate,
}
