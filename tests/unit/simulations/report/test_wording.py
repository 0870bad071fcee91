"""What sentences of a report call things."""

from wardround.simulations.report.wording import sentence_title


def test_a_metric_keeps_the_letters_of_its_name_at_the_head_of_a_sentence() -> None:
    assert sentence_title("map50") == "mAP at IoU .50"
    assert sentence_title("balanced-accuracy")[0].isupper()
