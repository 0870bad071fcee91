"""What a notebook or a script calls: studies, whole simulated runs, finished models."""
