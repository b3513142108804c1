"""A bag annotated: a copy of it with task_progress, task_reward, task_event and monitor/info in it.

What a live monitor would have said (bag_watch.py) goes into the copy as messages, at the times at which the
images came that they speak of; every recorded message stays byte for byte (bag_additions.py). The copy keeps
storage, compression, splitting and version of the bag. Beside its files lies `REPORT`: what was annotated
with which settings, by which a bag is known to be done. The copy has its name when it is whole, not before.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from topreward_ros.core.output_files import written_folder
from topreward_ros.core.printable import printable
from topreward_ros.offline import task_messages
from topreward_ros.offline.annotation_copy import AnnotationTypes, check_free, messages_of, write_copy
from topreward_ros.offline.annotation_report import (
    Annotation,
    AnnotationSettings,
    BagJob,
    Report,
    is_annotation,
)
from topreward_ros.offline.bag_choice import monitor_of, parameters_for, what_to_watch
from topreward_ros.offline.bag_watch import BagWatch, find_sources
from topreward_ros.offline.bags import Bag, BagError, OpenBag
from topreward_ros.offline.calibration_file import camera_name, check_setup, setup_of
from topreward_ros.offline.camera_images import ImageReader
from topreward_ros.offline.raw_samples import Converter
from topreward_ros.offline.recorded_episodes import EVENT
from topreward_ros.offline.side_by_side import Episode
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings


def annotate_bag(
    job: BagJob,
    settings: AnnotationSettings,
    info: ScorerInfo,
    converter: Callable[[], Converter],
    on_progress: Callable[[float], None] | None = None,
) -> Episode[Annotation]:
    """Make the annotated copy of a bag: yields what is to be scored, and returns what was done.

    ``converter``: what makes RGB of raw images. ``on_progress`` is called with the share that is done,
    [0, 1]. Raises `BagError`, `OutputFileError` and what is thrown into it.
    """
    bag = Bag(job.source)
    if is_annotation(job.source):
        raise BagError(f"{bag.shown} is an annotation already: name the bag that was recorded")
    with written_folder(job.target) as folder, bag.opened(folder) as opened:
        _check_room(bag, folder)
        check_free(opened, settings.namespace)
        types = AnnotationTypes()
        monitor = monitor_of(opened, settings, types.read)
        sources, episodes, note = what_to_watch(opened, settings, monitor, job.task, types.read)
        watch = BagWatch(
            opened,
            sources,
            settings.parameters,
            ImageReader(types.read, converter),
            types.text_of,
            settings.calibrations,
        )
        cameras = [it.name for it in sources.cameras]
        here = setup_of(
            info,
            watch.settings,
            ScorerSettings.from_parameters(settings.parameters),
            sources.layout,
            [camera_name(name, settings.namespace) for name in cameras],
        )
        note = "; ".join(filter(None, [note, check_setup(settings.calibrations, here)]))
        episode = watch.run(job.task, episodes)
        score = None
        try:
            request = next(episode)
            while True:
                if on_progress is not None:
                    on_progress(_share(opened, watch))
                score = yield request
                request = episode.send(score)
        except StopIteration:
            pass
        if lost := len(episodes) - watch.begun:
            note = f"{note}; without any image in the bag: {lost}"
        if monitor and not settings.chosen:
            shown = printable(f"{' '.join(cameras)} ({sources.layout})", 300)
            note = "; ".join(filter(None, [f"cameras as {printable(monitor.topic)} says: {shown}", note]))
        notes = [*sources.notes, *filter(None, [note])]
        watched = watch.monitor
        described = task_messages.info_fields(
            info, watched.settings_in_force, cameras, sources.layout, 0, calibrated=watched.calibrated
        )
        differences = monitor.differences(described) if monitor else ""
        report = Report.of(job, bag, settings, info, watch, notes, differences)
        messages = messages_of(watch, info, settings, described, bag, types)
        write_copy(folder, opened, messages, settings.namespace, report)
    return report.annotation


def check_bag(job: BagJob, settings: AnnotationSettings) -> None:
    """Raise `BagError` for what prevents an annotation, as far as that is known without a model, and without
    reading images or decompressing whole files."""
    bag = Bag(job.source)
    if bag.compression == "file":
        return
    with bag.opened(bag.path) as opened:
        check_free(opened, settings.namespace)
        parameters = parameters_for(settings, monitor_of(opened, settings, AnnotationTypes().read))
        has_events = any(topic.type == EVENT and topic.count for topic in opened.topics)
        told = job.task or (has_events and not settings.whole)  # the events say the task
        find_sources(opened, parameters, settings.namespace, "-" if told else "", chosen=settings.chosen)


def _check_room(bag: Bag, folder: Path) -> None:
    """Raise `OSError` before the work where the copy of ``bag`` cannot fit on the disk of ``folder``."""
    needed = sum(file.stat().st_size for file in bag.files)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _share(opened: OpenBag, watch: BagWatch) -> float:
    duration_ns = opened.bag.duration_ns
    return min(1.0, watch.elapsed_ns / duration_ns) if duration_ns else 0.0
