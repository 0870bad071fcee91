"""From a folder or an archive to a checked, de-identified data set with a manifest."""
