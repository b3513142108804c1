"""The list of faults in conftest.py names files that exist, and all of this folder."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def test_every_file_of_the_list_exists_and_every_suite_of_this_folder_is_listed() -> None:
    listed = (FOLDER / "conftest.py").read_text(encoding="utf-8").split('"""')[1]
    named = set(re.findall(r"\S+\w/\w+\.py", listed.split(":", 1)[1]))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (FOLDER.parent / name).is_file()] == []
    suites = {f"faults/{path.name}" for path in FOLDER.glob("test_*.py")}
    assert suites - named == {f"faults/{Path(__file__).name}"}
