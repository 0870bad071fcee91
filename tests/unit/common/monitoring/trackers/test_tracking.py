"""What trackers hold, read back with their own readers; what happens when they cannot be told."""

import json
import socket
import sys
from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.common.monitoring.trackers.course import (
    KEPT_STEP,
    Course,
    Point,
    name_of,
    parameters_of,
    plain_part,
)
from wardround.common.monitoring.trackers.tensorboard_tracker import scalars_in
from wardround.common.monitoring.trackers.tracking import Tracking
from wardround.common.monitoring.trackers.user_file import (
    MlflowTable,
    TrackTable,
    find_user_file,
    read_user_file,
)

KEY = "0123456789abcdef" * 2
DICE = name_of("federated", "validation", "dice")
OF_CLASS = name_of("federated", "validation", "dice", "../tu mour/é")


def course(rounds: int, state: str = "running", files: tuple[Path, ...] = ()) -> Course:
    points = [
        Point(site, name, number, 0.1 + number / 7)
        for site in ("", "north", "south")
        for name in (DICE, OF_CLASS)
        for number in range(rounds)
    ]
    if state == "finished":
        points.append(Point("", name_of("federated", "test", "dice"), KEPT_STEP, 0.75))
    parameters = parameters_of({"training": {"learning_rate": 0.1, "steps": [1, 2]}})
    tags = {"wardround.digest": "abc"}
    return Course(KEY, "study", parameters, tags, tuple(points), state, files)  # type: ignore[arg-type]


def told(table: TrackTable, *courses: Course) -> tuple[str, ...]:
    """Tell each course by trackers of its own, as processes that follow each other would."""
    problems: tuple[str, ...] = ()
    for one in courses:
        tracking = Tracking(table)
        tracking.write(one, is_last=True)
        tracking.close()
        problems += tracking.problems
    return problems


def table_of(folder: Path, text: str) -> TrackTable:
    (folder / "user.toml").write_text(text, encoding="utf-8")
    return read_user_file(folder / "user.toml").track


def test_mlflow_has_each_number_once_however_often_it_is_told(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>", encoding="utf-8")
    table = table_of(tmp_path, '[track.mlflow]\naddress = "mlruns"\n')
    whole = course(4, "finished", (report,))
    assert told(table, course(1), course(2, "stopped"), course(3), whole, whole) == ()
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("wardround")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"study", "north", "south"}
    parent = runs["study"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["study"].data.params == {
        "training.learning_rate": "0.1",
        "training.steps": "[1, 2]",
    }
    assert runs["study"].data.tags["wardround.digest"] == "abc"
    assert runs["north"].data.tags["mlflow.parentRunId"] == parent
    for name in (DICE, OF_CLASS):
        history = client.get_metric_history(runs["north"].info.run_id, name)
        assert [(one.step, one.value) for one in history] == [
            (number, 0.1 + number / 7) for number in range(4)
        ]
    assert [one.path for one in client.list_artifacts(parent)] == ["report.html"]


def test_tensorboard_has_each_number_once_as_a_32_bit_number(tmp_path: Path) -> None:
    table = table_of(tmp_path, '[track.tensorboard]\nfolder = "boards"\n')
    assert told(table, course(1), course(3), course(4, "finished")) == ()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    places = {path.name: path for path in (tmp_path / "boards").glob("*/*")}
    assert set(places) == {"all sites", "north", "south"}
    assert len(scalars_in(places["all sites"])) == 2 * 4 + 1
    board = EventAccumulator(str(places["north"])).Reload()
    assert set(board.Tags()["scalars"]) == {DICE, OF_CLASS}
    steps = [(one.step, one.value) for one in board.Scalars(DICE)]
    assert steps == [(n, pytest.approx(0.1 + n / 7, rel=1e-7)) for n in range(4)]


def test_an_event_file_torn_by_a_crash_is_gone_on_with(tmp_path: Path) -> None:
    table = table_of(tmp_path, '[track.tensorboard]\nfolder = "boards"\n')
    told(table, course(3))
    (place,) = (tmp_path / "boards").glob("*/north")
    (file,) = place.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert told(table, course(3)) == ()
    assert set(scalars_in(place)) == {(name, n) for name in (DICE, OF_CLASS) for n in range(3)}


def test_a_name_of_foreign_letters_is_one_that_every_tracker_takes() -> None:
    assert plain_part("grey matter") == "grey matter"
    assert plain_part("a/b") != plain_part("a:b")
    hostile = name_of("federated", "validation", "dice", "../../etc/\x1b[31m" + "x" * 500)
    assert hostile.startswith("federated/validation/dice.")
    assert hostile.count("/") == 2
    assert len(hostile) < 200


@pytest.mark.parametrize("package", ["mlflow", "tensorboard", "wandb"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (package, f"{package}.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    key = "address" if package == "mlflow" else "folder"
    (problem,) = told(table_of(tmp_path, f'[track.{package}]\n{key} = "x"\n'), course(1))
    assert "its package is not installed. Run pip install" in problem
    assert package in problem


def test_a_server_that_is_away_costs_a_sentence_without_its_token(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    address = f"http://me:TOKEN@127.0.0.1:{port}/?key=TOKEN"
    board = '[track.tensorboard]\nfolder = "b"\n'
    table = table_of(tmp_path, f'[track.mlflow]\naddress = "{address}"\n{board}')
    (problem,) = told(table, course(2))
    assert problem.startswith(f"MLflow (http://127.0.0.1:{port}) was not told everything: it does")
    assert "TOKEN" not in problem
    assert list((tmp_path / "b").glob("*/north"))  # the others are told


def test_a_place_that_cannot_be_written_costs_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    table = table_of(tmp_path, '[track.tensorboard]\nfolder = "file/boards"\n')
    (problem,) = told(table, course(1))
    assert "TensorBoard" in problem


@pytest.mark.long
def test_wandb_offline_notes_what_it_has_and_writes_the_rest(tmp_path: Path) -> None:
    table = table_of(tmp_path, '[track.wandb]\nfolder = "."\n')
    whole = course(4, "finished")
    assert told(table, course(2), whole, whole) == ()
    offline = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(offline) == 2  # the third time nothing was new
    rows = [row for path in offline for row in history_in(path)]
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert [row[f"north/{DICE}"] for row in rows] == [0.1 + number / 7 for number in range(4)]


def history_in(path: Path) -> list[dict[str, float]]:
    """Read an offline run: LevelDB's log format, behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, rows, record, place = path.read_bytes(), [], b"", 7
    while place + 7 <= len(data):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            said = Record.FromString(record)
            record = b""
            if said.WhichOneof("record_type") == "history":
                items = said.history.item
                names = (".".join(one.nested_key) or one.key for one in items)
                values = (json.loads(one.value_json) for one in items)
                rows.append(dict(zip(names, values, strict=True)))
    return rows


def test_the_users_file_is_found_where_its_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("WARDROUND_USER_FILE")
    assert find_user_file() is None
    (tmp_path / "wardround").mkdir()
    usual = tmp_path / "wardround" / "user.toml"
    usual.write_text("", encoding="utf-8")
    assert find_user_file() == usual
    monkeypatch.setenv("WARDROUND_USER_FILE", "")
    assert find_user_file() is None
    monkeypatch.setenv("WARDROUND_USER_FILE", str(tmp_path / "other.toml"))
    with pytest.raises(InputError, match="WARDROUND_USER_FILE names"):
        find_user_file()
    with pytest.raises(InputError, match="--track names"):
        find_user_file(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[track.mlflow]\n", "track.mlflow.address is missing"),
        ('[track.mlfow]\naddress = "x"\n', "did you mean 'mlflow'"),
        ('[traces]\nendpoint = "ftp://x"\n', "http://127.0.0.1:4318"),
        ('[track.mlflow]\naddress = "https://mlflow.example.org:99999"\n', "https://mlflow"),
        ('[track.mlflow]\naddress = "https://"\n', "https://mlflow"),
        ('[track.mlflow]\naddress = "http://[::1"\n', "https://mlflow"),
        ('[track.mlflow]\naddress = "localhost:5000"\n', "https://mlflow"),
        ('[track.tensorboard]\nfolder = "~nobody-of-this-name/runs"\n', "no home folder"),
        ('[track.wandb]\nfolder = "runs\\u0000"\n', "no character"),
    ],
)
def test_a_users_file_that_says_something_unknown_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "user.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_user_file(tmp_path / "user.toml")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/user.toml", "user\0.toml"])
def test_a_users_file_whose_name_cannot_be_is_refused_in_words(name: str) -> None:
    with pytest.raises(InputError, match=r"--track names .*, which is no file"):
        find_user_file(Path(name))


@pytest.mark.parametrize("address", ["runs", "C:\\runs", "file:///srv/runs", "./a b"])
def test_a_folder_of_mlflow_is_no_server_on_any_system(address: str) -> None:
    assert not MlflowTable(address=address).is_server
