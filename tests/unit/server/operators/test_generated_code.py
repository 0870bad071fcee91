"""The code of the operators' messages is what protoc makes of ``operators.proto``."""

import subprocess
import sys
from pathlib import Path

from wardround.server.operators.proto import operators_pb2

ROOT = Path(__file__).resolve().parents[4]
PROTO = "wardround/server/operators/proto/operators.proto"


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "src", *out, f"src/{PROTO}"]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("operators_pb2.py", "operators_pb2.pyi"):
        made = (tmp_path / PROTO).with_name(name).read_bytes()
        held = Path(operators_pb2.__file__).with_name(name).read_bytes()
        assert made == held, f"{name} is older than operators.proto: make proto"
