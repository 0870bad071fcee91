"""A command of ``wardround`` as a process that ends with the one that started it.

Run as ``python -m wardround.simulations.local_federation.child server start FOLDER``.
"""

import runpy

from wardround.common.runtime.system.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    runpy.run_module("wardround.cli", run_name="__main__")
