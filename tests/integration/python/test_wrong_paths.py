"""Every function that takes a path says in words that what it got is none."""

from collections.abc import Callable

import pytest

import wardround as wr


@pytest.mark.parametrize("given", [None, 3, "n\0"])
@pytest.mark.parametrize(
    "read",
    [
        wr.load_study,
        wr.open_run,
        wr.open_site,
        wr.load_model,
        wr.resume,
        wr.simulate,
        lambda given: wr.predict(given, [[0.0]]),
        lambda given: wr.simulate("heart-disease", out=given or 0),
        lambda given: wr.data.from_table(given, {"a": [1, 2], "ill": [1, 0]}, "ill"),
    ],
)
def test_what_is_no_path_is_refused_in_words(
    read: Callable[[object], object], given: object
) -> None:
    with pytest.raises(wr.WardroundError):
        read(given)
