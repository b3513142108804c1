"""`python -m topreward_ros.cli`: the command line without its script."""

import sys

from topreward_ros.cli.main import command

sys.exit(command())
