"""A label from words in a report. Negation is not understood: "no pneumonia" has the word."""

import re

from wardround.client.clinic.onboarding.rules import ReportLabels
from wardround.common.errors import InputError

_LONGEST = 100_000  # characters of a report that are looked at


class ReportWords:
    """The patterns of ``[labels.report]``, ready to be tried."""

    def __init__(self, rule: ReportLabels) -> None:
        """Compile the patterns.

        Raises:
            InputError: One is no regular expression.
        """
        self._otherwise = rule.otherwise
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for label, patterns in rule.words.items():
            for pattern in patterns:
                try:
                    self._patterns.append((label, re.compile(pattern, re.IGNORECASE)))
                except re.error as error:
                    msg = (
                        f"labels.report.words: {pattern!r} is no regular expression ({error.msg})."
                    )
                    raise InputError(msg) from None

    def label(self, text: str) -> str | None:
        """Return the label of a text, several joined by ";", None where none fits."""
        text = text[:_LONGEST]
        found = dict.fromkeys(label for label, pattern in self._patterns if pattern.search(text))
        return ";".join(found) or self._otherwise or None
