"""Every file that we write goes through `write_file`: read from the calls in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("topreward_ros", "training", "bench", "docs", "examples", "launch")

#: Methods and functions that write a file, or make one appear, by the last part of their names.
WRITERS = {
    *("write_text", "write_bytes", "imwrite", "VideoWriter", "savefig", "save", "save_svg", "export_text"),
    *("save_pretrained", "save_file", "savez", "savez_compressed", "tofile", "to_csv"),
    *("copyfile", "copy2", "copytree", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp"),
}
OPENERS = {"open", "fdopen"}

#: What may stand elsewhere, by file and call, and why.
ALLOWED = {
    ("topreward_ros/core/output_files.py", "open"): "this is write_file: what cannot be replaced",
    ("topreward_ros/core/output_files.py", "fdopen"): "this is write_file",
    ("topreward_ros/core/output_files.py", "mkdtemp"): "this is temporary_folder",
    ("topreward_ros/offline/annotation_copy.py", "copyfile"): "into a written_folder",
    ("topreward_ros/offline/bag_additions.py", "open"): "into a written_folder",
    ("topreward_ros/offline/zstd.py", "open"): "into a written_folder",
    ("topreward_ros/core/output_files.py", "copyfile"): "into a written_folder",
    ("topreward_ros/views/picture.py", "savefig"): "into memory",
    ("topreward_ros/scoring/question/soft_prompt.py", "save"): "into memory",
    ("bench/false_success.py", "save"): "ours, by write_file",
    ("examples/scorer_plugin/newest_frame.py", "savez"): "into memory",
    ("bench/host_memory.py", "save"): "into memory, and into a temporary folder",
    ("bench/host_memory.py", "copytree"): "into a temporary folder",
    (
        "topreward_ros/offline/bag_recovery.py",
        "open",
    ): "a bag's file, mended where it is, before its folder is renamed",
    ("topreward_ros/nodes/demo.py", "open"): "what a child says, in a temporary folder, as it says it",
    ("topreward_ros/nodes/demo.py", "save_svg"): "ours, by write_file",
    ("topreward_ros/nodes/watch.py", "save_svg"): "ours, by write_file",
    (
        "topreward_ros/scoring/checkpoint/random_weights.py",
        "mkdtemp",
    ): "a folder that is renamed when it is whole",
    ("topreward_ros/scoring/checkpoint/random_weights.py", "save"): "into memory",
    ("training/labelled_clips.py", "open"): "into memory",
    ("training/clips.py", "savez_compressed"): "into memory",
    ("training/success_curves.py", "savez_compressed"): "into memory",
    ("topreward_ros/offline/distill/model_folder.py", "save"): "into memory",
    ("training/train.py", "save"): "into memory",
    ("topreward_ros/offline/distill/training_run.py", "save"): "into memory",
    ("topreward_ros/offline/distill/training_run.py", "open"): "a log, to be read while it grows",
    ("training/generate.py", "save"): "`Clip.save`, by write_file",
    ("training/new_tasks.py", "save"): "`Clip.save`, by write_file",
    ("training/golden_clips.py", "open"): "a video in a temporary folder, copied by write_file",
    ("training/evaluate.py", "imwrite"): "pictures in a temporary folder",
    ("bench/transport.py", "imwrite"): "pictures in a temporary folder",
    ("bench/playing.py", "VideoWriter"): "a video in a temporary folder",
    ("bench/offline_scale.py", "copytree"): "bags in a temporary folder",
    ("bench/offline_scale.py", "open"): "what Ray says, in a temporary folder",
}


def writing_calls(path: Path) -> Iterator[tuple[str, int]]:
    """Name and line of every call that may write a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", None) or getattr(function, "id", "")
        modes = [*node.args, *(word.value for word in node.keywords)]
        texts = [
            mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)
        ]
        to_write = any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)
        if name in WRITERS or (name in OPENERS and to_write):
            yield name, node.lineno


def test_every_file_is_written_by_one_function() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name): line
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in writing_calls(path)
    }
    others = [f"{file}:{found[file, name]}: {name}()" for file, name in found if (file, name) not in ALLOWED]
    assert not others, "write these by core/output_files.write_file, or say in ALLOWED why not"
    assert not set(ALLOWED) - set(found), "no longer there"
