"""Imported once by the process that forks workers: what each worker would import for itself."""

import wardround.client.privacy.step
import wardround.client.session.session  # noqa: F401 # for what it loads
