"""A command of Flower as a process that ends with the one that started it.

Run as ``python benchmarks/peers/flower_process.py flower-superlink --help``.
"""

import os
import sys
from pathlib import Path

from wardround.common.runtime.system.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent()  # which holds for what takes this process's place, too
    program = Path(sys.executable).parent / sys.argv[1]
    os.execv(program, [str(program), *sys.argv[2:]])
