"""An error leads back to what was wrong at the beginning."""

from wardround.common.errors import causes, root_cause


def test_the_root_of_an_error_is_found_through_causes_contexts_and_what_was_hidden() -> None:
    first = ValueError("at the beginning")
    try:
        try:
            try:
                raise first
            except ValueError as error:
                raise KeyError from error
        except KeyError:
            raise TypeError  # noqa: B904 # the context is what is tested
    except TypeError:
        try:
            raise OSError from None
        except OSError as error:
            last = error
    assert [type(error) for error in causes(last)] == [OSError, TypeError, KeyError, ValueError]
    assert root_cause(last) is first
    assert root_cause(first) is first
