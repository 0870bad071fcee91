"""Gradients clipped for each patient: ghost norms, vmap, or one patient at a time."""
