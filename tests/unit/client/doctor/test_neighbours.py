"""The doctor finds two ledgers of the same patients, and a site that would forget one refuses."""

from pathlib import Path

import pytest

from wardround.client.doctor.check import FaultError
from wardround.client.doctor.neighbours import check_one_ledger
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.site.folder import open_site


def write(folder: Path, rows: list[str], ledger: str = "ledger", epsilon: float = 2.0) -> Path:
    folder.mkdir()
    lines = [f'name = "{folder.name}"', f'ledger = "{ledger}"', 'data_root = ".."']
    (folder / "site.toml").write_text("\n".join(lines) + "\n")
    (folder / "manifest.csv").write_text("\n".join(["patient,image,label", *rows]) + "\n")
    (folder / "policy.toml").write_text(f"lifetime_epsilon = {epsilon}\n")
    return folder


def rows(prefix: str, *patients: str) -> list[str]:
    return [f"{name},{prefix}/{name}.png,a" for name in patients]


@pytest.mark.parametrize(
    ("theirs", "status", "fact"),
    [
        (rows("images", "SECRET1", "SECRET2"), "fail", "2 files are those of lung too"),
        (rows("others", "SECRET1", "SECRET3"), "warn", "1 patients have the same names as in lung"),
    ],
)
def test_the_same_files_or_patients_with_two_ledgers_are_found(
    theirs: list[str], status: str, fact: str, tmp_path: Path
) -> None:
    heart = write(tmp_path / "heart", rows("images", "SECRET1", "SECRET2"))
    write(tmp_path / "lung", theirs)
    with pytest.raises(FaultError, match=fact) as fault:
        check_one_ledger(open_site(heart))
    assert fault.value.status == status
    assert "ledger = " in fault.value.remedy
    assert "SECRET" not in str(fault.value) + fault.value.remedy


def test_other_patients_or_one_ledger_are_no_fault(tmp_path: Path) -> None:
    heart = write(tmp_path / "heart", rows("images", "1"))
    write(tmp_path / "lung", rows("others", "2"))
    assert "no site folder" in check_one_ledger(open_site(heart))
    write(tmp_path / "brain", rows("images", "1"), ledger="../heart/ledger")
    assert check_one_ledger(open_site(heart)).startswith("shared with 1")


def test_two_caps_of_one_ledger_are_pointed_at(tmp_path: Path) -> None:
    heart = write(tmp_path / "heart", rows("images", "1"))
    write(tmp_path / "lung", rows("images", "1"), ledger="../heart/ledger", epsilon=8.0)
    with pytest.raises(FaultError, match="together they spend the larger") as fault:
        check_one_ledger(open_site(heart))
    assert fault.value.status == "warn"


def test_a_site_does_not_forget_the_ledger_that_it_had_of_its_own(tmp_path: Path) -> None:
    heart = write(tmp_path / "heart", rows("images", "1"))
    PrivacyLedger.open(heart, durable=False).close()
    (heart / "site.toml").write_text('name = "heart"\nledger = "../elsewhere"\n')
    with pytest.raises(LedgerError, match="what it holds would be forgotten"):
        PrivacyLedger.open(heart, durable=False)


def test_a_run_of_another_server_is_not_answered(tmp_path: Path) -> None:
    with PrivacyLedger.open(tmp_path, durable=False) as ledger:
        ledger.bind("a" * 32, "first")
        ledger.bind("a" * 32, "first")
        assert ledger.counter == 2, "once is enough"
        with pytest.raises(LedgerError, match="another server's"):
            ledger.bind("a" * 32, "second")
