"""What ``--param`` understands, and what it says to what it does not."""

import pytest

from wardround.common.errors import InputError, StudyError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.sweeps.search_space import (
    ALIASES,
    Choice,
    Range,
    _keys,
    chosen_value,
    parse_parameters,
    read_aliases,
)


@pytest.fixture(scope="module")
def study() -> Study:
    return parse_study(
        {
            "study": {"name": "tiny", "task": "classification"},
            "data": {"classes": ["normal", "abnormal"], "size": [16, 16]},
            "model": {"network": "small-cnn", "features": [4, 8]},
        }
    )


def test_a_range_keeps_its_ends_its_kind_and_its_scale(study: Study) -> None:
    parsed = parse_parameters(
        ["training.learning_rate=1e-4..1e-1:log", "training.batch_size = 8 .. 32"], study
    )
    assert parsed == (
        Range("training.learning_rate", 1e-4, 1e-1, is_whole=False, is_log=True),
        Range("training.batch_size", 8, 32, is_whole=True, is_log=False),
    )


def test_a_number_that_may_be_a_fraction_is_no_whole_number_however_it_is_written(
    study: Study,
) -> None:
    (parsed,) = parse_parameters(["training.weight_decay=0..1"], study)
    assert isinstance(parsed, Range)
    assert not parsed.is_whole


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("training.batch_size=8,16,32", [8, 16, 32]),
        ("training.optimiser=adam,sgd", ["adam", "sgd"]),
        ("training.optimiser='adam', 'sgd'", ["adam", "sgd"]),
        ("model.features=[4, 8],[8, 16]", [[4, 8], [8, 16]]),
        ("training.learning_rate=1e-3,1e-2", [1e-3, 1e-2]),
    ],
)
def test_values_come_back_as_they_were_meant(study: Study, text: str, values: list[object]) -> None:
    (parsed,) = parse_parameters([text], study)
    assert isinstance(parsed, Choice)
    assert [chosen_value(parsed, line) for line in parsed.values] == values


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("training.learn_rate=1e-4..1e-1", r"did you mean 'training\.learning_rate'"),
        ("training.gc=1,2", r"did you mean 'training\.gradient_clip'"),
        ("training.local=8,16", r"'training\.local_steps'.*'training\.local_epochs'"),
        ("weather.rain=1,2", r"known here: .*training\.batch_size"),
        ("training.batch_sise=8,16", r"did you mean 'training\.batch_size'"),
        ("batch_size=8,16", r"did you mean 'training\.batch_size'"),
        ("training.learning_rate=1..0.1", r"1 is not below .* 0\.1: write 0\.1\.\.1\."),
        ("training.learning_rate=1..1", "two different ends"),
        ("training.learning_rate=0..1:log", "begins above 0"),
        ("training.learning_rate=1e-4..1e-1:lin", "unknown scale 'lin'"),
        ("training.learning_rate=1e-4..", "'' is no number"),
        ("training.learning_rate=1..inf", "'inf' is no number"),
        ("training.batch_size=1.5..4", "give whole numbers"),
        ("training.optimiser=1..2", "has no range"),
        ("model.features=1..4", "has no range"),
        ("training.batch_size=8", "is one value"),
        ("training.batch_size=8,8", "twice"),
        ("training.optimiser=adam,", "is one value|empty"),
        ("training.batch_size", "cannot be read"),
        ("training.batch_size=", "cannot be read"),
        ("=8,16", "cannot be read"),
        ("federation.seed=0,1,2", "chance"),
        ("simulation.sites=2,4", "who the patients are"),
        ("evaluation.metric=auroc,accuracy", "--metric"),
    ],
)
def test_what_cannot_be_varied_is_refused_with_a_remedy(study: Study, text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        parse_parameters([text], study)


@pytest.mark.parametrize(
    "text", ["training.optimiser=adam,sdg", "model.dropout=0..1", "training.batch_size=0..8"]
)
def test_a_value_the_study_refuses_is_refused_before_the_first_trial(
    study: Study, text: str
) -> None:
    with pytest.raises(StudyError, match="cannot be"):
        parse_parameters([text], study)


def test_the_usual_abbreviations_are_read_and_said(study: Study) -> None:
    texts = ["training.lr=1e-4..1e-1:log", "training.optimizer=adam,sgd", "model.dropout=0..0.5"]
    rate, optimiser, _ = parse_parameters(texts, study)
    assert rate == Range("training.learning_rate", 1e-4, 1e-1, is_whole=False, is_log=True)
    assert optimiser.key == "training.optimiser"
    assert read_aliases(texts) == (
        "training.lr was read as training.learning_rate.",
        "training.optimizer was read as training.optimiser.",
    )


def test_every_abbreviation_is_of_a_key_and_is_none_itself() -> None:
    keys = dict(_keys(Study))
    assert all(key in keys for key in ALIASES.values())
    assert not any(alias in keys for alias in ALIASES)


def test_a_key_and_its_abbreviation_are_the_same_key(study: Study) -> None:
    with pytest.raises(InputError, match=r"training\.batch_size is given twice"):
        parse_parameters(["training.bs=8,16", "training.batch_size=32,64"], study)


def test_the_same_key_twice_is_refused(study: Study) -> None:
    twice = ["training.batch_size=8,16", "training.batch_size=32,64"]
    with pytest.raises(InputError, match="given twice"):
        parse_parameters(twice, study)


def test_nothing_to_vary_is_refused(study: Study) -> None:
    with pytest.raises(InputError, match="nothing to vary"):
        parse_parameters([], study)
