"""What goes back to an archive: a segmentation, a report of numbers or boxes, a FHIR resource."""
