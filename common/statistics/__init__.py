"""Statistics of medical evidence on plain numbers: intervals, calibration, decisions.

The unit of every interval is the patient. Nothing here knows of sites, studies or messages.
"""
