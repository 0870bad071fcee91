"""A structured report (SR, TID 1500) of what a model found: volumes, or classes' probabilities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wardround.client.clinic.pacs.archive import PacsError
from wardround.client.clinic.pacs.identity import MANUFACTURER, NOT_FOR_DIAGNOSIS, Algorithm
from wardround.client.clinic.pacs.results.codes import (
    IMAGING,
    MILLILITRE,
    NO_UNIT,
    PREDICTED,
    PROBABILITY,
    VOLUME,
    own_term,
    terms_of,
)
from wardround.client.clinic.pacs.results.segmentation import (
    SR_SERIES_NUMBER,
    ResultNames,
    import_highdicom,
    names_for,
    repeating,
    segment_uid,
    series_description,
)
from wardround.client.clinic.pacs.source import Source

if TYPE_CHECKING:
    from pydicom import Dataset

_DIGITS = 6  # significant ones: DICOM's decimal texts have at most 16 characters


def report_volumes(
    source: Source,
    segmentation: "Dataset",
    classes: Sequence[str],
    voxels: Sequence[int],
    algorithm: Algorithm,
) -> "Dataset":
    """Return a report of each segment's volume.

    Args:
        segmentation: The object of :func:`make_segmentation`, which the report points to.
        classes: K names, background first.
        voxels: How many voxels of each of them.

    Raises:
        PacsError: A voxel's size is not known, or the images lack what a report has to repeat.
    """
    import_highdicom()
    from highdicom.sr import (
        Measurement,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    millilitres = source.voxel_ml
    if millilitres is None:
        msg = "the images do not say how large a voxel is, so no volume can be reported."
        raise PacsError(msg)
    names = names_for(source, algorithm)
    groups = []
    for number, name in enumerate(classes[1:], 1):
        category, kind = terms_of(name)
        volume = Measurement(
            name=VOLUME.concept,
            value=rounded(voxels[number] * millilitres),
            unit=MILLILITRE.concept,
        )
        groups.append(
            VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(
                    uid=segment_uid(names, number), identifier=f"segment {number}"
                ),
                # Not highdicom's from_segmentation: it fails on an object of one segment.
                referenced_segment=ReferencedSegment(
                    str(segmentation.SOPClassUID),
                    str(segmentation.SOPInstanceUID),
                    number,
                    source_series=SourceSeriesForSegmentation(source.series_uid),
                ),
                finding_category=category.concept,
                finding_type=kind.concept,
                algorithm_id=algorithm_id(algorithm),
                measurements=[volume],
            )
        )
    return make_report(source, groups, names, algorithm, [segmentation, *source.datasets])


def report_classes(
    source: Source,
    classes: Sequence[str],
    probabilities: Sequence[float],
    found: Sequence[str],
    algorithm: Algorithm,
) -> "Dataset":
    """Return a report of each class's probability and of the classes that are reported as found.

    Args:
        classes: K names.
        probabilities: One a class, 0 to 1.
        found: Those from the model's operating point on.

    Raises:
        PacsError: The images lack what a report has to repeat.
    """
    import_highdicom()
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )

    names = names_for(source, algorithm)
    images = measured_images(source)
    groups = []
    for number, (name, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
        measurement = Measurement(
            name=PROBABILITY.concept, value=rounded(probability), unit=NO_UNIT.concept
        )
        said = [own_term(name).concept] if name in found else []
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(
                    uid=segment_uid(names, number), identifier=f"class {number}"
                ),
                finding_type=own_term(name).concept,
                algorithm_id=algorithm_id(algorithm),
                measurements=[measurement],
                qualitative_evaluations=[
                    QualitativeEvaluation(name=PREDICTED.concept, value=one) for one in said
                ],
                source_images=images,
            )
        )
    return make_report(source, groups, names, algorithm, list(source.datasets))


def rounded(value: float) -> float:
    """Return a number with as many digits as a report gives."""
    return float(f"{value:.{_DIGITS}g}")


def measured_images(source: Source) -> list[Any]:
    """Return the images that a group of the report is about."""
    from highdicom.sr import SourceImageForMeasurementGroup

    return [
        SourceImageForMeasurementGroup(str(one.SOPClassUID), str(one.SOPInstanceUID))
        for one in source.datasets
    ]


def algorithm_id(algorithm: Algorithm) -> Any:
    """Return who made a group of the report."""
    from highdicom.sr import AlgorithmIdentification

    missing = [algorithm.missing_words] if algorithm.missing else []
    return AlgorithmIdentification(
        name=algorithm.label,
        version=algorithm.version,
        parameters=[NOT_FOR_DIAGNOSIS, f"model {algorithm.digest}", *missing],
    )


def _observer(names: ResultNames, algorithm: Algorithm) -> Any:
    """Return who observed: the model, as a device."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=names.device,
            name=algorithm.label,
            manufacturer_name=MANUFACTURER,
            model_name=algorithm.label,
            serial_number=algorithm.short_digest,
        ),
    )
    return ObservationContext(observer_device_context=device)


def make_report(  # what a report consists of
    source: Source,
    groups: Sequence[object],
    names: ResultNames,
    algorithm: Algorithm,
    evidence: Sequence["Dataset"],
    *,
    in_space: bool = False,
) -> "Dataset":
    """Return a report of groups of measurements.

    Args:
        groups: As highdicom makes them.
        evidence: Of the objects that the groups refer to.
        in_space: Whether a group has places in millimetres of the patient.

    Raises:
        PacsError: The images lack what a report has to repeat.
    """
    from highdicom.sr import Comprehensive3DSR, ComprehensiveSR, MeasurementReport
    from pydicom.sr.codedict import codes

    content = MeasurementReport(
        observation_context=_observer(names, algorithm),
        procedure_reported=IMAGING.concept,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
    )
    kind = Comprehensive3DSR if in_space else ComprehensiveSR
    with repeating("a report"):
        made = kind(
            evidence=list(evidence),
            content=content,
            series_instance_uid=names.report_series,
            series_number=SR_SERIES_NUMBER,
            sop_instance_uid=names.report,
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=algorithm.label,
            software_versions=algorithm.version,
            device_serial_number=algorithm.short_digest,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
    made.SeriesDescription = series_description(algorithm)
    return made
