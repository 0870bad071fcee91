"""Federated learning for medical imaging across hospitals: no image leaves its ward."""

import os

__version__ = "0.1.0"

# A hospital's machine calls nobody that its engineer did not name. Flower and Ray read these when
# they are imported, so they are set here, before either can be; set, not offered as a default.
os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
    RAY_USAGE_STATS_ENABLED="0",
)
