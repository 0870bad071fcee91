"""An account that has a number and no name, as a container is given one."""

import os
import subprocess
import sys

import pytest

# The account database as it is in such a container: nobody has this number.
_CODE = """
import getpass, os, pwd
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
import sys
sys.argv = ["wardround", "--version"]
from wardround.cli import main
try:
    main()
except SystemExit:
    pass
print(getpass.getuser())
import torch._dynamo
"""


@pytest.mark.skipif(os.name != "posix", reason="accounts of POSIX")
@pytest.mark.long
def test_an_account_without_a_name_is_given_one_before_torch_asks() -> None:
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {key: text for key, text in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"uid-{os.geteuid()}"
