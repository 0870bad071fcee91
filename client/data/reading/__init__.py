"""The formats that images come in: NIfTI, DICOM, pictures, NumPy."""
