"""DICOM: files told by their content, series checked slice by slice, values in their units."""
