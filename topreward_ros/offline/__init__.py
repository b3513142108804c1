"""The same line without ROS: videos and bags in, curves and files out."""
