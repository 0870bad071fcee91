"""What a simulation's rounds have spent of the privacy that its study promises."""

from collections.abc import Mapping

from wardround.common.errors import WardroundError
from wardround.common.study.study import Study


class PrivacySpent:
    """Counts what rounds spend; the accountant is asked once for each number of rounds."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._known: dict[tuple[int, ...], tuple[str, ...]] = {}

    def words(self, rounds: Mapping[str, int]) -> tuple[str, ...]:
        """Return the promise, and what was spent of it, in sentences.

        Args:
            rounds: In how many rounds each site took part.
        """
        counts = tuple(sorted({0, *rounds.values()}))
        if counts not in self._known:
            self._known = {counts: self._say(counts[-1])}
        return self._known[counts]

    def _say(self, most: int) -> tuple[str, ...]:
        try:
            return _of_patients(self._study, most) if self._is_patients else _of_sites(self._study)
        except WardroundError as error:  # the accountant is not installed here
            return (str(error),)

    @property
    def _is_patients(self) -> bool:
        return self._study.privacy.mode == "patient"


def _of_patients(study: Study, most: int) -> tuple[str, ...]:
    from wardround.common.privacy.accounting import epsilon_of
    from wardround.common.study.plans.patient_privacy import plan_privacy

    plan = plan_privacy(study)
    spent = epsilon_of([plan.spend(most)], plan.delta) if most else 0.0
    return (
        f"Each training patient is promised epsilon = {plan.epsilon:.3g} at delta = "
        f"{plan.delta:g} over {plan.rounds} rounds.",
        f"{most} rounds have spent epsilon = {spent:.3g} of it; each site's own ledger is the "
        "account, and counts what is measured on validation and test patients too.",
    )


def _of_sites(study: Study) -> tuple[str, ...]:
    from wardround.common.study.plans.site_privacy import plan_site_privacy

    plan = plan_site_privacy(study)
    return (
        f"Each hospital is promised epsilon = {plan.epsilon:.3g} at delta = {plan.delta:g} over "
        f"{plan.rounds} rounds; the server adds the noise.",
    )
