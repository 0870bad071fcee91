"""Bytes with one reading: whole numbers of 8 bytes, and texts and data after their length."""

from dataclasses import dataclass, field

from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

_WHOLE, _LENGTH = 8, 4
LONGEST_TEXT = 200  # bytes of a site's name


@dataclass(slots=True)
class Writer:
    """Bytes as they are put together."""

    written: bytearray = field(default_factory=bytearray)

    def whole(self, value: int) -> "Writer":
        """Add a whole number from 0 to 2^64 - 1."""
        self.written += value.to_bytes(_WHOLE, "big")
        return self

    def data(self, value: bytes) -> "Writer":
        """Add some bytes."""
        self.written += len(value).to_bytes(_LENGTH, "big") + value
        return self

    def text(self, value: str) -> "Writer":
        """Add a text."""
        return self.data(value.encode())

    def texts(self, values: tuple[str, ...]) -> "Writer":
        """Add a list of texts."""
        self.whole(len(values))
        for value in values:
            self.text(value)
        return self

    def done(self) -> bytes:
        """Return all of it."""
        return bytes(self.written)


@dataclass(slots=True)
class Reader:
    """Bytes as they are read, each once; whatever does not fit is refused."""

    given: bytes
    place: int = 0

    def whole(self, most: int = 2**63) -> int:
        """Return a whole number.

        Raises:
            MaskingError: There is none, or it is above ``most``.
        """
        value = int.from_bytes(self._take(_WHOLE), "big")
        if value > most:
            refuse(Refusal.MALFORMED, f"a number is above {most}")
        return value

    def data(self, longest: int) -> bytes:
        """Return some bytes.

        Raises:
            MaskingError: There are none, or more than ``longest``.
        """
        length = int.from_bytes(self._take(_LENGTH), "big")
        if length > longest:
            refuse(Refusal.MALFORMED, f"a part has more than {longest} bytes")
        return self._take(length)

    def exactly(self, length: int) -> bytes:
        """Return some bytes, of which there must be so many.

        Raises:
            MaskingError: There are fewer or more.
        """
        found = self.data(length)
        if len(found) != length:
            refuse(Refusal.MALFORMED, f"a part has {len(found)} bytes and not {length}")
        return found

    def text(self, longest: int = LONGEST_TEXT) -> str:
        """Return a text.

        Raises:
            MaskingError: There is none.
        """
        try:
            return self.data(longest).decode()
        except UnicodeDecodeError:
            refuse(Refusal.MALFORMED, "a name is no text")

    def texts(self, most: int) -> tuple[str, ...]:
        """Return a list of texts.

        Raises:
            MaskingError: There is none, or it has more than ``most``.
        """
        return tuple(self.text() for _ in range(self.whole(most)))

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            MaskingError: Something is.
        """
        if self.place != len(self.given):
            refuse(Refusal.MALFORMED, "a message is longer than what it says")

    def _take(self, length: int) -> bytes:
        end = self.place + length
        if end > len(self.given):
            refuse(Refusal.MALFORMED, "a message is cut off")
        found, self.place = self.given[self.place : end], end
        return found
