"""A site's patients as they were read, until its manifest or an image of theirs has changed."""

import logging
from contextlib import suppress
from dataclasses import replace

from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.data.reading.array_files import forget_arrays
from wardround.client.data.source_files import SourceFiles, lists_of, remove_outdated
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


class SiteData:
    """The patients of one site for one study; let go and read anew where something changed.

    Raises:
        DataError: The site's manifest cannot be used.
    """

    def __init__(self, site: Site, study: Study) -> None:
        self.site = site
        self._study = study
        self._cohorts: Cohorts | None
        self._cohorts, self._files = self._open()

    @property
    def cohorts(self) -> Cohorts:
        """The site's patients, as the manifest and the images were when they were read.

        Raises:
            DataError: They were let go, and cannot be read anew.
        """
        cohorts = self._cohorts
        if cohorts is None:
            self.site = replace(open_site(self.site.folder), is_tolerant=self.site.is_tolerant)
            cohorts, self._files = self._open()
            self._cohorts = cohorts
        return cohorts

    @cohorts.setter
    def cohorts(self, cohorts: Cohorts) -> None:
        self._cohorts = cohorts

    def is_stale(self, images: bool) -> bool:
        """Return whether the manifest or an image is no longer as it was when it was read.

        Args:
            images: Whether to look at each image, and not at the manifest alone.
        """
        held = self._cohorts
        if held is None:
            return False
        return self._files.have_changed(images) or (images and held.prepared.is_lost)

    def let_go(self) -> None:
        """Drop every copy of the data, in memory and on disk, and read the manifest anew.

        Prepared images of this study's settings stay where their sources are as they were. Where
        the manifest cannot be used, whoever asks for the patients next is told so.
        """
        if self._cohorts is not None:
            remove_outdated(self.site, None, keep=self._cohorts.prepared.folder)
        self._cohorts = None
        forget_arrays()
        with suppress(DataError):
            _ = self.cohorts

    def _open(self) -> tuple[Cohorts, SourceFiles]:
        """Return the patients, and how their files lay before any was read."""
        files = SourceFiles(lists_of(self.site))
        cohorts = open_cohorts(self.site, self._study)
        files.add_images(cohorts.images)
        for note in cohorts.parting:
            logger.warning("%s", note)
        return cohorts, files
