"""PET in standardised uptake values by body weight (SUVbw), from what the scanner wrote.

SUVbw = activity concentration [Bq/ml] x weight [g] / decayed dose [Bq] (QIBA FDG-PET/CT profile,
"SUV vendor-neutral pseudo-code"). 1 where the tracer is spread evenly in the body.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from wardround.client.data.reading.dicom import dates
from wardround.client.data.reading.dicom.frames import first
from wardround.client.data.reading.image import UnreadableError

_PHILIPS_SUV = (0x7053, 0x1000)
_PHILIPS_ACTIVITY = (0x7053, 0x1009)
_SMALLEST_DOSE = 1e5  # Bq; a smaller number was written in another unit
_WEIGHTS = (0.1, 650.0)  # kg, from a newborn (or a mouse in grams, which is refused) on
_LONGEST_WAIT = timedelta(days=2)


def suv_factors(datasets: Sequence[Any]) -> list[float]:
    """Return what the rescaled values of each file are multiplied by to be SUVbw.

    Args:
        datasets: Of one series of PET.

    Raises:
        UnreadableError: What is needed is missing or cannot be; says what.
    """
    start = _start_of_scan(datasets)
    return [_factor(dataset, start) for dataset in datasets]


def _factor(dataset: Any, start: datetime | None) -> float:
    units = str(dataset.get("Units") or "").strip().upper()
    if units == "GML":
        kind = str(dataset.get("SUVType") or "BW").strip().upper()
        if kind != "BW":
            _refuse(f"its uptake is not by body weight (SUVType {kind[:8]})")
        return 1.0
    scale = 1.0
    if units == "CNTS":
        suv, scale = _private(dataset, _PHILIPS_SUV), _private(dataset, _PHILIPS_ACTIVITY)
        if suv:
            return suv
        if not scale:
            _refuse("its units are counts, and the scanner's scale factor is missing")
    elif units != "BQML":
        known = units if units.isalnum() and len(units) <= 8 else "not given"
        _refuse(f"its units are not BQML, GML or CNTS (Units: {known})")
    return scale * _weight_in_grams(dataset) / _dose_at_scan(dataset, start)


def _weight_in_grams(dataset: Any) -> float:
    weight = _number(dataset, "PatientWeight")
    if not weight:
        _refuse("the patient's weight is missing")
    if not _WEIGHTS[0] <= weight <= _WEIGHTS[1]:
        _refuse(f"the patient's weight cannot be ({weight:g} kg)")
    return weight * 1000


def _dose_at_scan(dataset: Any, start: datetime | None) -> float:
    tracer = first(dataset.get("RadiopharmaceuticalInformationSequence"))
    dose = None if tracer is None else _number(tracer, "RadionuclideTotalDose")
    if tracer is None or not dose:
        _refuse("the injected dose is missing")
    if dose < _SMALLEST_DOSE:
        _refuse(f"the injected dose cannot be ({dose:g} Bq)")
    correction = str(dataset.get("DecayCorrection") or "").strip().upper()
    if correction == "ADMIN":
        return dose
    if correction != "START":
        _refuse("its pixels are not corrected for decay (DecayCorrection)")
    half_life = _number(tracer, "RadionuclideHalfLife")
    if not half_life or half_life < 0:
        _refuse("the half-life of the tracer is missing")
    waited = _time_from_injection(dataset, tracer, start)
    return float(dose * 2.0 ** (-waited.total_seconds() / half_life))


def _time_from_injection(dataset: Any, tracer: Any, start: datetime | None) -> timedelta:
    if start is None:
        _refuse("the time of the scan is missing")
    injected = dates.moment(tracer.get("RadiopharmaceuticalStartDateTime"))
    if injected is not None and abs(start - injected) > _LONGEST_WAIT:
        injected = None  # one of the two dates was shifted by a de-identification
    if injected is None:
        clock = tracer.get("RadiopharmaceuticalStartTime")
        if not clock:
            clock = str(tracer.get("RadiopharmaceuticalStartDateTime") or "")[8:]
        injected = dates.moment_of(start.strftime("%Y%m%d"), clock)
        if injected is not None and injected > start:
            injected -= timedelta(days=1)  # injected before midnight
    if injected is None:
        _refuse("the time of the injection is missing")
    waited = start - injected
    if not timedelta(0) <= waited <= _LONGEST_WAIT:
        _refuse(f"the scan begins {waited.total_seconds() / 60:.0f} minutes from injection")
    return waited


def _start_of_scan(datasets: Sequence[Any]) -> datetime | None:
    """Return when the scan began, which the pixels are decay-corrected to.

    The series' time is that; but of a series that was made later it is later than that of the
    first acquisition, which then counts.
    """
    acquired = [
        moment
        for d in datasets
        if (moment := dates.moment_of(d.get("AcquisitionDate"), d.get("AcquisitionTime")))
        or (moment := dates.moment(d.get("AcquisitionDateTime")))
    ]
    first_dataset = datasets[0]
    series = dates.moment_of(first_dataset.get("SeriesDate"), first_dataset.get("SeriesTime"))
    if series is None or not acquired:
        return series or min(acquired, default=None)
    return min(series, *acquired)


def _number(dataset: Any, name: str) -> float | None:
    value = dataset.get(name)
    return float(value) if value not in (None, "") else None


def _private(dataset: Any, tag: tuple[int, int]) -> float:
    element = dataset.get(tag)
    try:
        value = element.value if element is not None else 0
        return float(value.decode().strip("\0 ") if isinstance(value, bytes) else value or 0)
    except (TypeError, ValueError):
        return 0.0


def _refuse(fact: str) -> NoReturn:
    msg = (
        f"it is a PET whose uptake (SUV) cannot be worked out: {fact}; export it again with all "
        "of its header, or store it as NIfTI in the values that the study uses."
    )
    raise UnreadableError(msg)
