"""The ways to mirror an image: what test-time augmentation averages over."""

from itertools import product


def mirrored_axes(dimensions: int) -> tuple[tuple[int, ...], ...]:
    """Return every choice of an image's spatial axes, the empty one first: ``2**dimensions``.

    Args:
        dimensions: 2 or 3. Axes are counted from the last, -1, -2, ..., so that they are those of
            images ``(B, C, *spatial)`` and of outputs ``(B, K, *spatial)`` alike.
    """
    axes = range(-dimensions, 0)
    return tuple(
        tuple(axis for axis, is_flipped in zip(axes, chosen, strict=True) if is_flipped)
        for chosen in product((False, True), repeat=dimensions)
    )
