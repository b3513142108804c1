"""What goes wrong around a monitor, and the robot of test/robot.py for the tests of this folder.

Where each fault is tested, by its kind; the files are below test/:

    silence of usable images, whatever the reason     ros/test_silence.py, core/test_silence.py
    time is up, by stamps and by the wall clock       ros/test_silence.py, core/test_episode.py
    Ctrl-C and SIGTERM at any moment                  ros/test_monitor_start.py
    single wrong stamps, stamps that go back          core/test_stamps.py, ros/test_monitor_images.py
    names of episodes                                 core/test_episode.py, ros/test_monitor_control.py
    two publishers, two monitors                      core/test_publishers.py, ros/test_silence.py
    the second camera of a tile                       ros/test_silence.py, ros/test_monitor_images.py
    one truth for the task, long texts                ros/test_monitor_control.py, core/test_instruction.py
    misspelt and refused parameters                   ros/test_monitor_control.py, nodes/test_parameters.py
    success that is none                              core/test_events.py
    a disk that is full, while files are written      core/test_output_files.py
    a kill while files are written                    faults/test_kill_while_writing.py
    downloads that lie                                offline/test_models.py
    hostile texts, states and events unknown          views/test_hostile_texts.py, ros/test_hostile_wire.py
    hostile checkpoints                               offline/test_bounded_call.py, cli/test_models.py
    DDS security                                      ros/test_security_policy.py
    a monitor that is stopped                         ros/test_silence.py
    a monitor or a player that is killed or stopped   faults/test_processes.py
    a camera's driver that comes back otherwise       faults/test_camera_drivers.py
    a disk that is full, while a monitor runs         faults/test_processes.py
    simulated time that jumps                         faults/test_processes.py
    a scorer that raises, hangs, gives no number      faults/test_scorers.py, scoring/test_worker.py
    images with any fields                            faults/test_messages.py, nodes/test_images.py
    any sequence of calls of the state machine        core/test_episode_machine.py
    all of it, for a minute or an hour                ../bench/soak.py, faults/test_invariants.py

The services cannot be fuzzed on the wire by a client of ours. Tried: before anything is sent, rclpy refuses
surrogates and values of another type, and cuts a text at a zero. Long and hostile texts, which it does send,
are tested in the files above.
"""

from test.camera_rig import bare, new_node, new_rig
from test.robot import robot, shared_robot

__all__ = ["bare", "new_node", "new_rig", "robot", "shared_robot"]
