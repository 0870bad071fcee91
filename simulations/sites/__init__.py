"""Patients divided into the folders of simulated sites."""
