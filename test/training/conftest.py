"""Where training/ is not installed with the package, as with colcon, none of its tests is collected."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("training") else ["test_*.py"]
