"""Privacy at a site: the local step whose unit is the patient, and the ledger of what was spent."""
