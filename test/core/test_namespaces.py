"""Several namespaces, as users write them."""

from __future__ import annotations

import pytest

from topreward_ros.core.namespaces import NamespaceError, read_namespaces


@pytest.mark.parametrize(
    "given",
    [
        "/arm1 /arm2",
        "[/arm1,/arm2]",
        "/arm1, /arm2/",
        '["/arm1", "/arm2"]',
        ["/arm1", "/arm2"],
        ["/arm1 /arm2"],
    ],
)
def test_lists_and_texts_are_the_same(given: str | list[str]) -> None:
    assert read_namespaces(given) == ["/arm1", "/arm2"]


def test_one_without_a_slash_lies_below_that_of_the_process() -> None:
    assert read_namespaces("arm1 /arm2 cell/arm3", "/lab") == ["/lab/arm1", "/arm2", "/lab/cell/arm3"]
    assert read_namespaces("arm1", "/") == ["/arm1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "namespaces is empty"),
        ("[]", "namespaces is empty"),
        ([""], "namespaces is empty"),
        ("/arm1 arm1/", "/arm1 comes twice"),
        ("arm-1", "arm-1 is no namespace"),
        ("/", "/ is no namespace"),
        ("//arm", "//arm is no namespace"),
        ("arm\x1b[2J", r"is no namespace"),
    ],
)
def test_what_cannot_be_is_named(given: str | list[str], said: str) -> None:
    with pytest.raises(NamespaceError) as error:
        read_namespaces(given)
    assert said in str(error.value) and "\x1b" not in str(error.value)
