"""Readers' corrections as DICOM objects of the picture archive."""
