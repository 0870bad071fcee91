"""A simulation's stages and rounds as spans, from its log."""

import json
from pathlib import Path

from wardround.simulations.experiment.tracking.spans import spans_of


def test_the_events_of_this_try_are_spans(tmp_path: Path) -> None:
    lines = [
        ("2026-11-29T08:00:00.000+00:00", "event=StageStarted stage=federated rounds=2 done=0"),
        ("2026-11-29T09:00:00.000+00:00", "event=StageStarted stage=federated rounds=2 done=1"),
        ("2026-11-29T09:00:01.000+00:00", "something else went=on"),
        (
            "2026-11-29T09:00:10.000+00:00",
            "event=RoundDone stage=federated round=2 rounds=2 metric=auroc value=nan updates=4 "
            "seconds=9.5",
        ),
        ("2026-11-29T09:00:12.000+00:00", "event=StageFinished stage=federated"),
    ]
    text = "".join(json.dumps({"time": time, "what": what}) + "\n" for time, what in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"torn', encoding="utf-8")
    since = 1_795_942_800.0  # 9 o'clock
    (run,) = spans_of(tmp_path, since)
    (stage,) = run.inside
    (a_round,) = stage.inside
    assert (run.name, stage.name, a_round.name) == ("simulation", "stage", "round")
    assert stage.attributes == {"wardround.stage": "federated"}
    assert (stage.begin, stage.end) == (since, since + 12)
    assert (a_round.begin, a_round.end) == (since + 0.5, since + 10)
    assert spans_of(tmp_path, since + 3600) == ()
    assert spans_of(tmp_path / "none", 0) == ()
