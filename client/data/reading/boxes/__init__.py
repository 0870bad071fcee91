"""What boxes are read from: text of a cell, CSV, COCO, Pascal VOC, DICOM SR, and masks."""
