"""A site's words for classes: mapped where they are known, refused in words where not."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.hospitals.hospital import ask, log_of
from tests.support.hospitals.image_ward import volume, ward_study, write_ward

from wardround.client.app import close_sessions
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.label_words import label_words
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError, StudyError
from wardround.common.messages.instructions import DESCRIBE
from wardround.common.messages.replies import unpack_refusal
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

CODES = {"benign": "SCT:3898006", "malignant": "SCT:86049000"}


def table_study(labels: dict[str, object], multi_label: bool = False) -> Study:
    return parse_study(
        {
            "study": {"name": "words", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["benign", "malignant"],
                "multi_label": multi_label,
                "covariates": [{"name": "x"}],
                "labels": labels,
            },
            "model": {"network": "mlp", "features": []},
            "evaluation": {"validation_fraction": 0.0, "test_fraction": 0.0},
        }
    )


def read(tmp_path: Path, cells: list[str], study: Study, words: str = "") -> list[object]:
    (tmp_path / "site.toml").write_text(f'name = "north"\n{words}')
    rows = [f"p{number},{cell},1" for number, cell in enumerate(cells)]
    (tmp_path / "manifest.csv").write_text("\n".join(["patient,label,x", *rows]))
    site = open_site(tmp_path)
    found = open_cohorts(site, study, keeps_parts=False).train.examinations
    return [one.label for one in sorted(found, key=lambda one: one.row)]


def test_words_and_codes_of_site_and_study_become_classes(tmp_path: Path) -> None:
    study = table_study({"codes": CODES, "words": {"gutartig": "benign"}})
    words = '[labels.words]\nB = "malignant"\n"Cancer " = "SCT:86049000"\nother = "no class"\n'
    cells = ["benign", "gutartig", "GUTARTIG", "sct:86049000", "b", "cancer", "1"]
    labels = [(0,), (0,), (0,), (1,), (1,), (1,), (1,)]
    assert read(tmp_path, cells, study, words) == labels


def test_the_site_wins_over_the_study(tmp_path: Path) -> None:
    study = table_study({"words": {"grade 1": "benign"}})
    words = '[labels.words]\n"grade 1" = "malignant"\n'
    assert read(tmp_path, ["Grade  1"], study, words) == [(1,)]


def test_several_labels_are_mapped_one_by_one(tmp_path: Path) -> None:
    study = table_study({"words": {"gut": "benign", "schlecht": "malignant"}}, multi_label=True)
    assert read(tmp_path, ["gut|schlecht", "schlecht", "none"], study) == [(1, 1), (0, 1), (0, 0)]


def test_an_unknown_word_is_refused_with_row_known_words_and_what_was_meant(
    tmp_path: Path,
) -> None:
    study = table_study({"words": {"gutartig": "benign"}})
    with pytest.raises(DataError) as refused:
        read(tmp_path, ["benign", "gutartik"], study)
    said = str(refused.value)
    for part in ("row 3", "benign, malignant", "gutartig", "did you mean 'gutartig'?"):
        assert part in said
    assert "gutartik" not in said


def test_values_of_masks_are_mapped_and_strange_ones_refused(tmp_path: Path) -> None:
    study = ward_study(labels={"codes": {"kidney": "SCT:64033007"}})
    masks = [np.zeros((12, 12, 8), np.uint8) for _ in range(3)]
    for mask in masks:
        mask[0], mask[1] = 7, 200
    words = '[labels.words]\n"7" = "liver"\n"200" = "SCT:64033007"\n'
    volumes = [volume(seed) for seed in range(3)]
    folder = write_ward(tmp_path / "north", volumes, study, masks=masks, labels=words)
    train = open_cohorts(open_site(folder), study).train
    counts = train.class_counts()
    assert counts is not None
    assert counts.tolist()[1:] == [96, 96]
    masks[2][2] = 9
    folder = write_ward(tmp_path / "south", volumes, study, masks=masks, labels=words)
    with pytest.raises(DataError, match=r"row 4.*value 9.*7 is liver, 200 is kidney.*labels.words"):
        open_cohorts(open_site(folder), study).train.class_counts()


def test_a_class_that_is_not_annotated_needs_a_study_that_allows_it(tmp_path: Path) -> None:
    strict, partial = ward_study(), ward_study(labels={"partial": True})
    labels = '[labels]\nannotated = ["kidney", "spleen"]\n'
    volumes = [volume(seed) for seed in range(3)]
    folder = write_ward(tmp_path / "north", volumes, strict, labels=labels)
    with pytest.raises(DataError, match=r"not annotated liver.*data\.labels\.partial"):
        open_cohorts(open_site(folder), strict)
    assert label_words(open_site(folder), partial).annotated == (0, 2)
    none = write_ward(tmp_path / "south", volumes, partial, labels='[labels]\nannotated = ["x"]\n')
    with pytest.raises(DataError, match="none of the study's classes"):
        open_cohorts(open_site(none), partial)


def test_the_digest_of_the_mapping_stands_in_the_audit_log(tmp_path: Path) -> None:
    study = ward_study()
    words = '[labels.words]\n"1" = "liver"\n"2" = "kidney"\n'
    volumes = [volume(seed) for seed in range(6)]
    folder = write_ward(tmp_path / "north", volumes, study, labels=words)
    assert unpack_refusal(ask(folder, DESCRIBE, study=study)) is None
    close_sessions()
    noted = [e.event for e in log_of(folder) if e.event.kind == "labels"]
    assert [one.sha256 for one in noted] == [label_words(open_site(folder), study).digest]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"codes": {"spleen": "SCT:78961009"}}, "unknown class 'spleen'"),
        ({"words": {"Milz": "spleen"}}, "unknown class 'spleen'"),
        ({"codes": {"liver": "X:1", "kidney": "X:1"}}, "to two classes"),
        ({"words": {"liver": "kidney"}}, "is a class itself"),
    ],
)
def test_labels_of_a_study_that_contradict_themselves_are_refused(
    labels: dict[str, object], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        ward_study(labels=labels)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"loss": "bce"}}, "training.loss = 'bce' has no form"),
        ({"federation": {"aggregation": "fair-mean"}}, "not comparable"),
    ],
)
def test_partial_labels_need_a_loss_and_a_strategy_that_bear_them(
    sections: dict[str, dict[str, object]], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        ward_study(labels={"partial": True}, **sections)
    with pytest.raises(StudyError, match="is for segmentation and for"):
        table_study({"partial": True})
