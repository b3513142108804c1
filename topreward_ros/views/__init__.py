"""What people look at, in a terminal or in a picture. No ROS, no torch."""
