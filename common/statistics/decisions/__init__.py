"""From scores to acting on them: curves, calibration, thresholds, what they are worth, and sets."""
