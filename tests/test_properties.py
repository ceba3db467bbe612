"""Whatever is typed, the program answers in a line."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
from options import OPTIONS

NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-2, 60).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "nan", "-inf", "1e999", "0x10", "1_0", "٣", " 7", "--", "-", "cuda:", "cuda:9", "cpu"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)
TAKES_A_WORD = [option for option in OPTIONS if option.read and not option.many]
NAMES = ["--train", "--eval", *(f"--{option.name}" for option in OPTIONS if option.read is None)]
VALUED = [f"--{option.name}" for option in TAKES_A_WORD if not option.name.endswith("_path")]
WORDS = st.one_of(
    st.sampled_from(NAMES).map(lambda name: [name]),
    st.tuples(st.sampled_from(VALUED), NUMBERS).map(list),
    st.lists(NUMBERS, max_size=20).map(lambda values: ["--weights", *values]),
    NUMBERS.map(lambda value: [value]),
)


@given(mode=st.sampled_from([["--train"], ["--eval"], []]), words=st.lists(WORDS, max_size=6))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
def test_any_command_line_ends_in_one_line_and_never_in_a_traceback(tmp_path, capfd, no_network, mode, words):
    argv = mode + sum(words, [])
    if "--synthetic" in argv and "--train" in argv:
        argv.remove("--synthetic")  # it would train; without it there is no data set to be found
    # Below a file there is no data set and no model, and none can be made.
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "none")
    capfd.readouterr()
    try:
        code = main.main([*argv, "--data_path", nowhere, "--save_path", nowhere])
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    assert code in (1, 2)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("main.py: error: ")
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "file"]
