"""In which groups the examinations of a cohort are, by what the study asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.client.data.image_quality import quality_of
from wardround.client.data.reading.readers import read_image
from wardround.common.study.plans.subgroups import QUALITIES, groupings_of, thirds_of
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.cohort import Cohort


def groups_of(cohort: "Cohort", study: Study) -> Mapping[str, tuple[str, ...]]:
    """Return by each grouping the group of each examination, in the cohort's order.

    The thirds of image quality are those of this cohort's images, the first channel's.
    """
    groupings = groupings_of(study)
    told = [grouping.name for grouping in groupings if not grouping.from_image]
    found = {
        name: tuple(examination.groups[place] for examination in cohort.examinations)
        for place, name in enumerate(told)
    }
    if any(grouping.from_image for grouping in groupings):
        data = study.data
        seen = [
            quality_of(read_image(one.held_images[0], data.dimensions, data.colour).array)
            for one in cohort.examinations
        ]
        for name in QUALITIES:
            found[name] = thirds_of([getattr(quality, name) for quality in seen])
    return found
