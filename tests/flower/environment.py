"""Make an environment with another version of Flower: python environment.py VERSION FOLDER.

It sees the packages of the interpreter that runs this, torch among them, and holds only what the
other version needs anew. ``make test-flower`` calls it; the index is that of pip's configuration.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

_VERSION, _FOLDER = 1, 2


def main() -> int:
    """Make the environment, anew where one is there."""
    version, folder = sys.argv[_VERSION], Path(sys.argv[_FOLDER])
    venv.create(folder, clear=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    packages = sysconfig.get_path("purelib")
    # With addsitedir its own .pth files hold too: the editable installation of the checkout.
    line = f"import site; site.addsitedir({packages!r})\n"
    (Path(found.stdout.strip()) / "packages.pth").write_text(line)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    return subprocess.run([*pip, "install", "--quiet", f"flwr=={version}"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
