import pytest

from nic_helpers.course.predictions import Predictions

CHOICES = ["falls apart", "hardly changes"]


@pytest.fixture
def asked() -> Predictions:
    return Predictions()


def said(capsys) -> str:
    return capsys.readouterr().out


def test_a_choice_is_locked_answered_and_counted(asked, capsys):
    asked.predict("one_step", "Hardly changes ", CHOICES)
    assert "Locked: you say “hardly changes”" in said(capsys)
    asked.answer("one_step", "falls apart", "It loses 9 dB.")
    assert said(capsys) == "✗ You said “hardly changes”. It is “falls apart”. It loses 9 dB.\n"
    asked.score()
    assert "0 of 1 right" in (text := said(capsys)) and "one step" in text


def test_the_first_guess_counts_and_none_is_taken_after_the_answer(asked, capsys):
    asked.predict("loss", 3, unit="dB")
    asked.predict("loss", 9, unit="dB")
    assert "you said 3 dB first" in said(capsys)
    asked.predict("loss", ..., unit="dB")
    assert "Locked: you said 3 dB." in said(capsys)
    asked.answer("loss", 3.4, "So much.", within=0.5)
    assert said(capsys).startswith("✓ You said 3 dB. It is 3.4 dB.")
    asked.predict("late", ..., CHOICES)
    asked.answer("late", "falls apart", "It does.")
    said(capsys)
    asked.predict("late", "falls apart", CHOICES)
    assert "out already" in said(capsys)
    asked.score()
    assert "1 of 1 right, 1 not made" in said(capsys)


def test_dots_never_block_a_run(asked, capsys):
    asked.predict("one_step", ..., CHOICES)
    assert '"falls apart", "hardly changes"' in said(capsys)
    asked.answer("one_step", "falls apart", "It loses 9 dB.")
    assert said(capsys) == "It is “falls apart”. It loses 9 dB.\n"
    asked.score()
    assert "none of the 1" in said(capsys)


@pytest.mark.parametrize(
    "slip, options", [("grows", CHOICES), (3, CHOICES), ("3", None), (float("nan"), None), (True, None), (None, None)]
)
def test_a_slip_is_told_kindly_and_may_be_mended(asked, slip, options, capsys):
    asked.predict("key", slip, options)
    assert "cannot be taken" in said(capsys)
    asked.predict("key", options[0] if options else 1.5, options)
    assert "Locked" in said(capsys)


def test_a_notebooks_own_mistakes_are_errors(asked):
    with pytest.raises(ValueError, match="nothing was predicted as 'typo'"):
        asked.answer("typo", 1, "", within=1)
    asked.predict("choice", ..., CHOICES)
    asked.predict("number", ...)
    with pytest.raises(ValueError, match="must be one of"):
        asked.answer("choice", "grows", "")
    with pytest.raises(ValueError, match="within"):
        asked.answer("number", 1.0, "")
    with pytest.raises(ValueError, match="two different"):
        asked.predict("number", ..., CHOICES)
