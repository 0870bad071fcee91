"""Model card and data sheet: their fields, who knows each, and the checklists they answer."""
