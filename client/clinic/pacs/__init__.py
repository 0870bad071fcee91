"""The picture archive: asked, read from, written to; results as DICOM objects."""
