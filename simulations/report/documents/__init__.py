"""The documents beside the report: model card and data sheet, written from the run."""
