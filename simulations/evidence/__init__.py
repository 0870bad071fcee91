"""What a run's predictions say: how good, for whom, how sure. No network runs here."""
