import pytest

from wardround.common.errors import InputError
from wardround.common.study.sections.simulation import Shift
from wardround.simulations.sites.scanner_shifts import assign_scanners, assign_shifts

SITES = ("a", "b", "c", "d")


def test_a_shift_for_all_makes_every_site_another() -> None:
    assigned = assign_shifts([Shift(kind="noise", strength=2.0)], SITES, seed=3)
    assert sorted(own[0].strength for own in assigned.values()) == [0.5, 1.0, 1.5, 2.0]


def test_a_shift_that_names_sites_is_theirs_alone_and_at_full_strength() -> None:
    assigned = assign_shifts([Shift(kind="blur", strength=0.7, sites=("b",))], SITES, seed=3)
    assert assigned == {"a": (), "b": (Shift(kind="blur", strength=0.7),), "c": (), "d": ()}


def test_two_shifts_rank_the_sites_differently_for_some_seed() -> None:
    shifts = [Shift(kind="noise"), Shift(kind="blur")]
    instructions = set()
    for seed in range(10):
        assigned = assign_shifts(shifts, SITES, seed)
        ranks = [tuple(own[kind].strength for own in assigned.values()) for kind in (0, 1)]
        instructions.add(ranks[0] == ranks[1])
    assert False in instructions


def test_an_unknown_site_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'e'.*Known: a, b, c, d"):
        assign_shifts([Shift(kind="noise", sites=("e",))], SITES, seed=0)


def test_scanners_have_seeds_of_their_own_and_repeat() -> None:
    scanners = assign_scanners([Shift(kind="noise")], SITES, seed=1)
    assert len({scanner.seed for scanner in scanners.values()}) == 4
    assert assign_scanners([Shift(kind="noise")], SITES, seed=1) == scanners
    assert assign_scanners([Shift(kind="noise")], SITES, seed=2) != scanners
