"""Task progress, dense reward and success events for ROS 2 from a video vision-language model.

Nothing that matters may stand in this file: when ROS interfaces are generated, their generator
installs a package of the same name, and which ``__init__.py`` wins depends on the ament version.
``extend_path`` lets this half and the generated ``msg``, ``srv`` and ``action`` meet.
"""

__path__ = __import__("pkgutil").extend_path(__path__, __name__)
