"""How sure a run's numbers and differences are; the unit is the patient."""
