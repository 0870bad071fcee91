"""Numbers as whole numbers of a modulus, such that no sum of a roster can overflow.

A number in ``[-largest, largest]`` becomes one of the ``2^value_bits - 1`` whole numbers around 0,
to the nearest. The sum of as many sites as a roster may have fits into a signed word, by the
choice of the word: 16, 32 or 64 bits. A number outside the range is refused and not cut: it would
bias the sum, and nobody would see it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.privacy.secure_aggregation.canonical import Writer
from wardround.common.privacy.secure_aggregation.masks import WORD_TYPES, Words
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

Numbers = NDArray[np.float64]
MOST_VALUE_BITS = 48  # a float64 holds 53 bits of a whole number


@dataclass(frozen=True, slots=True)
class Grid:
    """The whole numbers that stand for numbers.

    Attributes:
        largest: Largest absolute value of a number that is coded, above 0.
        value_bits: Of a coded number, its sign included, 4 to 48.
        most_sites: How many sites are added up at most.
    """

    largest: float
    value_bits: int
    most_sites: int

    def __post_init__(self) -> None:
        """Check that a sum fits into a word.

        Raises:
            ValueError: It does not, or a number makes no sense.
        """
        sensible = 0 < self.largest < float("inf") and self.most_sites >= 1
        if not (sensible and 4 <= self.value_bits <= MOST_VALUE_BITS):
            msg = f"no numbers of {self.value_bits} bits up to {self.largest:g} can be coded."
            raise ValueError(msg)
        if self.most_sites * self.top >= 2**63:
            msg = (
                f"the sum of {self.most_sites} sites' numbers of {self.value_bits} bits can "
                "overflow 64 bits: allow fewer bits, or fewer sites."
            )
            raise ValueError(msg)

    @property
    def top(self) -> int:
        """The whole number that stands for ``largest``."""
        return int(2 ** (self.value_bits - 1)) - 1

    @property
    def word_bits(self) -> int:
        """Width of the smallest word that holds every sum: 16, 32 or 64."""
        return next(bits for bits in WORD_TYPES if self.most_sites * self.top < 2 ** (bits - 1))

    @property
    def step(self) -> float:
        """How far two neighbours lie apart: a number is coded to within half of it."""
        return self.largest / self.top

    def write(self, writer: Writer) -> Writer:
        """Add the grid to canonical bytes."""
        writer.text(self.largest.hex()).whole(self.value_bits)
        return writer.whole(self.most_sites).whole(self.word_bits)

    def require_inside(self, numbers: Numbers) -> None:
        """Check that ``(d,)`` numbers are inside the range.

        Raises:
            MaskingError: One is outside, or no number.
        """
        if not bool((np.abs(numbers) <= self.largest).all()):  # NaN is not at most anything
            refuse(
                Refusal.OUT_OF_RANGE,
                f"a number of the update is above {self.largest:g}: raise "
                "federation.masks.largest_change, or lower training.learning_rate",
            )

    def encode(self, numbers: Numbers) -> Words:
        """Return ``(d,)`` words that stand for ``(d,)`` numbers.

        Raises:
            MaskingError: One is outside the range, or no number.
        """
        self.require_inside(numbers)
        return self.words_of(np.rint(numbers / self.step).astype(np.int64))

    def words_of(self, whole: NDArray[np.int64]) -> Words:
        """Return the ``(d,)`` words of ``(d,)`` whole numbers, each from ``-top`` to ``top``.

        Raises:
            MaskingError: One is outside.
        """
        # Not by np.abs: of the smallest int64, which NaN becomes, it is negative.
        if whole.size and not -self.top <= int(whole.min()) <= int(whole.max()) <= self.top:
            refuse(Refusal.OUT_OF_RANGE, f"a count of the update is above {self.top}")
        return whole.astype(WORD_TYPES[self.word_bits])

    def sums_of(self, words: Words) -> NDArray[np.int64]:
        """Return the ``(d,)`` signed whole numbers that the words of a sum stand for."""
        return words.view(f"<i{self.word_bits // 8}").astype(np.int64)

    def decode(self, sums: NDArray[np.int64]) -> Numbers:
        """Return the ``(d,)`` numbers that whole numbers of a sum stand for."""
        numbers: Numbers = sums * np.float64(self.step)
        return numbers
