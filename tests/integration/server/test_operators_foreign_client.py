"""A client made from ``operators.proto`` alone, as another language's is, asks a real server."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.studies.tiny_study import SMALLEST_STUDY

from wardround.server.operators.client import server_at
from wardround.server.operators.grpc_server import operators_served
from wardround.server.operators.messages import Submission
from wardround.server.operators.proto import operators_pb2
from wardround.server.operators.wire import SOCKET_FILE
from wardround.server.service.installation import init_server

CLIENT = """
import json, sys
import grpc
import operators_pb2 as api, operators_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    operators = operators_pb2_grpc.OperatorsStub(channel)
    runs = operators.ListRuns(api.Nothing(), timeout=20).runs
    details = operators.ShowRun(api.AboutRun(run=runs[0].run), timeout=20)
    server = operators.ShowServer(api.Nothing(), timeout=20)
    events = operators.WatchRun(api.AboutRun(run=runs[0].run), timeout=20)
    first = next(events)
    events.cancel()
    try:
        operators.ShowRun(api.AboutRun(run="none"), timeout=20)
    except grpc.RpcError as error:
        refused = [error.code().name, error.details()]
    form = api.STUDY_FORM_TOML
    try:
        operators.SubmitStudy(api.Submission(text=sys.argv[2], form=form), timeout=20)
    except grpc.RpcError as error:
        refused_study = error.details()

print(json.dumps({
    "runs": [run.run for run in runs],
    "is_queued": details.summary.state == api.RUN_STATE_QUEUED,
    "rounds": type(details.summary.rounds).__name__,
    "has_value": details.summary.HasField("value"),
    "has_ended": details.summary.HasField("ended"),
    "submitted": details.summary.submitted,
    "counts": dict(server.runs),
    "is_a_state_event": first.kind == api.RUN_EVENT_KIND_STATE,
    "refused": refused,
    "refused_study": refused_study,
    "ours": sorted(name for name in sys.modules if name.startswith("wardround")),
}))
"""


def test_a_client_made_from_the_proto_alone_lists_runs_and_shows_one(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("s") / "server"  # a socket's path is short
    client = tmp_path_factory.mktemp("client")
    init_server(folder, "Demo", ["localhost"], "127.0.0.1", 8443)
    _make_client(client)
    with operators_served(folder), server_at(str(folder)) as line:
        submitted = line.submit(Submission(SMALLEST_STUDY))
        said = _run_client(client, folder / SOCKET_FILE)
        assert said.pop("submitted") == line.show(submitted.run).summary.submitted
    assert said == {
        "runs": ["tiny-1"],
        "is_queued": True,
        "rounds": "int",
        "has_value": False,
        "has_ended": False,
        "counts": {"queued": 1},
        "is_a_state_event": True,
        "refused": ["INVALID_ARGUMENT", "there is no run 'none' on this server. Known: tiny-1."],
        "refused_study": (
            "this study is queued already, as run tiny-1: wait for that one, or stop it first."
        ),
        "ours": [],
    }


def _make_client(folder: Path) -> None:
    proto = Path(operators_pb2.__file__).with_name("operators.proto")
    (folder / proto.name).write_bytes(proto.read_bytes())
    out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), *out, proto.name]
    subprocess.run(command, cwd=folder, check=True)
    (folder / "client.py").write_text(CLIENT, encoding="utf-8")


def _run_client(folder: Path, socket: Path) -> dict[str, object]:
    command = [sys.executable, str(folder / "client.py"), f"unix:{socket}", SMALLEST_STUDY]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said
