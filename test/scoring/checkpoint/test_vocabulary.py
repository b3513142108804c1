"""Which instructions count as known, and what is said of one that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from test.scorers import scorer_info
from topreward_ros.scoring.checkpoint.vocabulary import is_known, made_for, unknown_instruction_warning

WORDINGS = ("open the drawer", "pull the drawer open", "Close the window.")
INFO = scorer_info("embedded", instructions=WORDINGS)
GENERAL = scorer_info("Qwen/Qwen3-VL-8B-Instruct")


@pytest.mark.parametrize(
    "said",
    [
        *WORDINGS,
        "OPEN the drawer",
        " open\tthe  drawer\n",
        "open the drawer.",
        "open the drawer .",
        "close the window",
    ],
)
def test_case_white_space_and_a_full_stop_make_no_difference(said: str) -> None:
    assert is_known(said, INFO)
    assert unknown_instruction_warning(said, INFO, "model:=") == ""


@pytest.mark.parametrize(
    "said", ["open the drawers", "open drawer", "open the drawer!", "fold the towel", "."]
)
def test_any_other_difference_makes_it_another_instruction(said: str) -> None:
    assert is_known(said, INFO) is (said == ".")


def test_without_a_list_all_are_known_and_idle_always_is() -> None:
    assert is_known("fold the towel", GENERAL)
    assert unknown_instruction_warning("fold the towel", GENERAL, "model:=") == ""
    assert is_known("", INFO) and is_known("  ", INFO)


def test_the_warning_names_instruction_neighbour_list_and_mend() -> None:
    said = unknown_instruction_warning("Open  the drawers", INFO, "model:=")
    assert "model 'embedded' does not know the instruction 'Open the drawers'" in said
    assert "'open the drawer' is the closest" in said
    assert "`topreward models info embedded`" in said
    assert "model:=Qwen/Qwen3-VL-8B-Instruct" in said
    assert "--model Qwen/Qwen3-VL-8B-Instruct" in unknown_instruction_warning("x", INFO, "--model ")


def test_the_neighbour_is_one_that_has_all_its_words_before_one_that_is_spelt_alike() -> None:
    info = scorer_info("embedded", instructions=("drawer close", "Open the drawer"))
    assert "'Open the drawer' is the closest" in unknown_instruction_warning("drawer open", info, "model:=")


def test_what_is_like_none_has_no_neighbour_and_a_book_is_cut() -> None:
    for said in ("@", "\N{SNOWMAN}", "schließe das Fenster", "fold the towel " * 10_000):
        warning = unknown_instruction_warning(said, INFO, "model:=")
        assert "instructions that has none like it (" in warning and "closest" not in warning
        assert len(warning) < 600 and "\n" not in warning


def test_what_a_model_was_made_for_is_told_of_one_that_knows_a_list() -> None:
    assert made_for(replace(INFO, summary="for one arm")).startswith("for one arm: before other scenes its")
    assert made_for(INFO) == made_for(replace(GENERAL, summary="for one arm")) == ""
