"""What the documentation points to is there, and what it quotes is what the code does."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from topreward_ros.scoring.question.templates import PAPER, fill

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/RESULTS.md", "training/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
#: Inline links and pictures of Markdown: [text](target) and ![text](target).
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|^ {4}.*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def path_of(page: Path) -> str:
    """Its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code, in which nothing is a link or a heading."""
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What `#...` may name in ``page``, by the rule of GitHub."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = found.get(name, 0)
        found[name] = number + 1
        names.add(f"{name}-{number}" if number else name)
    return names


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


LINKS = list(links())


@pytest.mark.parametrize(
    ("page", "target"), LINKS, ids=[f"{path_of(page)}:{target}" for page, target in LINKS]
)
def test_what_is_linked_is_there(page: Path, target: str) -> None:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.is_relative_to(ROOT) and file.exists(), f"{page.name}: {target} is not there"
    if anchor:
        assert anchor in anchors(file), f"{page.name}: {target}; there are {sorted(anchors(file))}"


def test_links_are_found_in_every_page_that_a_reader_starts_from() -> None:
    assert {page.name for page, _ in LINKS} >= {"README.md", "CONTRIBUTING.md", "engine.md", "models.md"}


def test_the_contents_of_the_readme_name_every_section() -> None:
    readme = ROOT / "README.md"
    listed = [target[1:] for page, target in LINKS if page == readme and target.startswith("#")]
    sections = re.findall(r"^## (.+)$", prose(readme), re.MULTILINE)
    assert list(dict.fromkeys(listed))[: len(sections)] == [
        re.sub(r"[^\w\- ]", "", section.lower()).replace(" ", "-") for section in sections
    ]


def test_the_question_is_quoted_as_it_is() -> None:
    """Its tokens are tested beside the prompts; here stands what a reader of the README is told."""
    assert f"|>{fill(PAPER, 'open the drawer')}`\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{PAPER}`\n" in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_files_that_are_named_are_there(page: Path) -> None:
    """Names in code type, of files of this repository or of the package."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:[\w.]+/)+[\w.]*)`", text)) | set(re.findall(r"`([\w/]+\.\w{2,4})`", text))
    roots = (ROOT, ROOT / "topreward_ros", page.parent, ROOT / "config")
    ours = {path.name for path in ROOT.iterdir()} | {path.name for path in (ROOT / "topreward_ros").iterdir()}
    for name in sorted(names):
        if name.split("/")[0] in ours and "NAME" not in name and not name.startswith(".venv"):
            assert any((root / name).exists() or (root / f"{name}.py").exists() for root in roots), (
                f"{page.name} names {name}"
            )


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_what_is_said_to_stand_in_a_file_stands_there(page: Path) -> None:
    """`name` in (or of) `file.py`: a class, a function or a constant."""
    said = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", page.read_text(encoding="utf-8"))
    assert said or page.name not in ("engine.md", "CONTRIBUTING.md"), "the search finds nothing any more"
    for name, file in said:
        path = next(root / file for root in (ROOT, ROOT / "topreward_ros") if (root / file).exists())
        defined = rf"^ *(class|def) {name}\b|^{name}(:[^=]*)? = "
        assert re.search(defined, path.read_text(encoding="utf-8"), re.MULTILINE), f"{name} in {file}"


def blocks(page: Path) -> Iterator[list[list[str]]]:
    """The commands of each block of a page, as words."""
    for block in re.findall(r"(?:^ {4}\S.*\n(?:^ {8}.*\n)*)+", page.read_text(), re.MULTILINE):
        lines = re.sub(r"\\(?: *#.*)?\n", " ", block).splitlines()
        with suppress(ValueError):  # it is no block of commands
            yield [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_no_command_of_a_block_meets_the_output_of_one_before(page: Path) -> None:
    """`annotate` and `export` refuse an output that another call has made with other options."""
    for block in blocks(page):
        made: set[tuple[str, ...]] = set()
        for words in block:
            if words[:2] not in (["topreward", "annotate"], ["topreward", "export"]):
                continue
            said = words.index("--output") if "--output" in words else 0
            inputs = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
            output = (words[1], words[said + 1]) if said else tuple(inputs)
            assert output not in made or "--overwrite" in words, words
            made.add(output)


def test_rewards_join_transitions_as_the_page_shows() -> None:
    """The code that docs/rl.md gives: t < s <= t', each reward once, NaN as nothing."""
    text = (ROOT / "docs" / "rl.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)  # our own page
    observed = np.array([0, 100, 200, 300]) + 1_700_000_000 * 10**9
    stamps = observed[0] + np.array([-5, 0, 99, 100, 250, 299, 300, 900])
    rewards = np.array([1, 2, 4, 8, 16, np.nan, 32, 64])
    joined = names["rewards_of_transitions"](observed, stamps, rewards)
    assert joined.tolist() == [15, 0, 112]
    # As in a dataset: what frame k shows stands in row k - 1, beside the action that led there.
    assert names["rewards_of_transitions"](observed, observed, np.array([0, 1, 2, 4])).tolist() == [1, 2, 4]


def test_the_drawing_and_its_text_name_the_steps_of_a_tick() -> None:
    """In the order of `run_tick`; every step that is drawn is one that it calls."""
    source = (ROOT / "topreward_ros/scoring/qwen3_vl/tick.py").read_text(encoding="utf-8")
    body = source[source.index("def run_tick") : source.index("def encode")]
    steps = ["begin_tick", "encode", "prepare_passes", "answer", "read", "end_tick"]
    places = [re.search(rf"\b{step}\(", body) for step in steps]
    assert all(places) and [place.start() for place in places if place] == sorted(
        place.start() for place in places if place
    )
    for text in (ROOT / "docs" / "tick.svg", ROOT / "docs" / "engine.md"):
        assert all(re.search(rf"\b{step}\b", text.read_text(encoding="utf-8")) for step in steps), text.name


def drawings() -> ModuleType:
    """docs/drawings.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("drawings", ROOT / "docs" / "drawings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["nodes", "tick"])
def test_a_drawing_is_the_one_that_its_script_draws(name: str) -> None:
    made = getattr(drawings(), name)().svg()
    assert made == (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8"), "python docs/drawings.py docs"
