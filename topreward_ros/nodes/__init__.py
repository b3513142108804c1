"""ROS 2 nodes: wiring only, the logic lives in core and scoring."""
