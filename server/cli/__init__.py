"""The commands `wardround server`, `wardround runs`, `wardround sites` and `study submit`."""
