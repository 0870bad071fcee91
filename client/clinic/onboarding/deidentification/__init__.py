"""DICOM without what names a patient: PS3.15's basic profile, and a check of every result."""
