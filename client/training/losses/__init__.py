"""What training makes small: one number a sample first, their mean after."""
