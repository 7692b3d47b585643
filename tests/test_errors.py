import pytest

from mengzi_mt.errors import InputError, MengziError, RunError, nearest


def test_paragraph_says_what_where_and_what_to_do():
    error = InputError("The key is wrong", where="a.yaml, line 3", fix="write `b`")
    assert str(error) == "The key is wrong. Where: a.yaml, line 3. What to do: write `b`."


@pytest.mark.parametrize("what", ["Ready.", "Ready!", "Ready?"])
def test_paragraph_doubles_no_full_stop(what):
    assert str(MengziError(what, fix="Did you mean 'a'?")) == f"{what} What to do: Did you mean 'a'?"


def test_exit_status_is_2_for_bad_input_and_1_for_a_failed_run():
    assert (InputError("x").exit_code, RunError("x").exit_code) == (2, 1)


def test_nearest_names_the_near_miss():
    assert nearest("tnew", ["tnews", "bustm"]) == "Did you mean 'tnews'?"


def test_nearest_lists_what_is_known_where_nothing_is_near():
    assert nearest("zzz", ["b", "a"]) == "Known names: a, b"
    assert nearest("zzz", []) == "Known names: none"


def test_nearest_cuts_a_long_list():
    assert nearest("zzz", [f"name{i:02}" for i in range(30)]).endswith("name19, …")
