"""How the files in a rosbag2 bag are called, for whoever reads, writes or only recognises one."""

from __future__ import annotations

METADATA = "metadata.yaml"
INFORMATION = "rosbag2_bagfile_information"  #: the key in `METADATA` under which all stands
NEWEST_VERSION = 9  #: of the metadata
SUFFIXES = {"mcap": ".mcap", "sqlite3": ".db3"}  #: of the files with messages, by storage
