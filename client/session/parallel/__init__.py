"""The local step over several devices of one site: a process a device, one batch among them."""
