"""Frame sizes and the checkpoint's preprocessor files. The pixels themselves: test_processor.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from topreward_ros.scoring import patches
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.device import send_image
from topreward_ros.scoring.patches import Preprocessing, frame_size, normalized, read_preprocessing

sides = st.integers(1, 5000)
shapes = st.tuples(sides, sides).filter(lambda shape: max(shape) <= 200 * min(shape))


@given(shapes, st.sampled_from([28, 32]), st.integers(1, 2_000_000))
def test_a_frame_is_whole_units_within_its_budget(shape, unit, max_pixels):
    fitted = frame_size(*shape, unit, max_pixels)
    assert all(side >= unit and side % unit == 0 for side in fitted)
    assert fitted[0] * fitted[1] <= max_pixels or fitted == (unit, unit)


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.integers(200 * 32 * 32, 10**6))
def test_sizes_are_the_processors(height, width, max_pixels):
    """Where the frame is no smaller than a unit: a smaller one the processor enlarges first."""
    height, width = height + 31, width + 31
    try:
        # two frames that share twice the budget, with no least size
        expected = smart_resize(2, height, width, factor=32, min_pixels=0, max_pixels=2 * max_pixels)
    except ValueError:
        with pytest.raises(ScorerError, match=rf"{width} x {height} pixels.*1:200.*crop it"):
            frame_size(height, width, 32, max_pixels)
    else:
        assert frame_size(height, width, 32, max_pixels) == expected


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 201), (240, 48_001)])
def test_a_shape_beyond_the_processors_limit_is_refused(shape):
    with pytest.raises(ScorerError, match=rf"{shape[1]} x {shape[0]} pixels.*1:200.*crop it"):
        frame_size(*shape, 32, 307_200)


def test_the_budget_of_a_frame_is_the_smaller_of_its_own_and_its_share_of_the_video():
    assert Preprocessing(video_pixels=1000).frame_pixels(max_pixels=90, frames=10) == 90
    assert Preprocessing(video_pixels=1000).frame_pixels(max_pixels=300, frames=10) == 100
    assert Preprocessing(video_pixels=1000).frame_pixels(max_pixels=300, frames=2000) == 1


@given(st.integers(200, 2000), st.integers(200, 2000), st.integers(100_000, 1_000_000))
def test_its_shape_is_kept_to_within_a_unit(height, width, max_pixels):
    fitted_height, fitted_width = frame_size(height, width, 32, max_pixels)
    scale = fitted_height / height
    assert abs(fitted_width - width * scale) <= 32 * (1 + width / height)


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_the_video_file_comes_first(tmp_path):
    write(tmp_path, "preprocessor_config.json", {"image_mean": [0.1] * 3, "size": {"longest_edge": 7}})
    assert read_preprocessing(tmp_path) == Preprocessing(
        mean=(0.1, 0.1, 0.1)
    )  # an image's budget is not a video's
    write(tmp_path, "processor_config.json", {"video_processor": {"image_mean": [0.2] * 3}})
    assert read_preprocessing(tmp_path).mean == (0.2, 0.2, 0.2)
    write(
        tmp_path,
        "video_preprocessor_config.json",
        {
            "image_mean": [0.3] * 3,
            "image_std": [0.4] * 3,
            "rescale_factor": 0.5,
            "size": {"longest_edge": 99},
        },
    )
    assert read_preprocessing(tmp_path) == Preprocessing((0.3, 0.3, 0.3), (0.4, 0.4, 0.4), 0.5, 99)


def test_without_a_file_the_released_values_are_used_and_said(tmp_path, caplog):
    assert read_preprocessing(tmp_path) == Preprocessing()
    assert "no preprocessor file" in caplog.text


@pytest.mark.parametrize(
    "content", [[], {"image_mean": 3}, {"image_std": [0, 0, 0]}, {"size": {"longest_edge": 0}}, {"size": 5}]
)
def test_a_file_that_makes_no_sense_is_named(tmp_path, content):
    write(tmp_path, "video_preprocessor_config.json", content)
    with pytest.raises(ScorerError, match=r"video_preprocessor_config\.json cannot be (used|read)"):
        read_preprocessing(tmp_path)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *(({"rescale_factor": value}, "rescale_factor is ") for value in (0, -1, NAN, INF, "x", True, [1])),
        *(
            ({"image_mean": value}, "image_mean is ")
            for value in ([], [NAN] * 3, [0.5], 0.5, ["a"] * 3, [INF] * 3)
        ),
        *(
            ({"image_std": value}, "image_std is ")
            for value in ([], [0.5, 0, 0.5], [NAN] * 3, [-1] * 3, [INF] * 3)
        ),
        *(({"size": {"longest_edge": value}}, "longest_edge is ") for value in (-1, NAN, INF, "x", True)),
        ({"size": 5}, "size is 5 and must be an object"),
        ({"image_std": [1e-30] * 3}, "make -5e+29 of black and 5e+29 of white"),
        ({"image_std": [1e9] * 3}, "make -5e-10 of black and 5e-10 of white"),
        ({"rescale_factor": 1e-300}, "make -1 of black and -1 of white"),
    ],
)
def test_a_value_that_makes_no_pixels_is_named(tmp_path, content, said):
    write(tmp_path, "video_preprocessor_config.json", content)
    with pytest.raises(ScorerError) as error:
        read_preprocessing(tmp_path)
    path = tmp_path / "video_preprocessor_config.json"
    assert str(error.value).startswith(f"{path} cannot be used (") and said in str(error.value)
    assert str(error.value).endswith("): restore it from the checkpoint")


def test_null_is_what_is_not_said(tmp_path):
    names = ("image_mean", "image_std", "rescale_factor", "size", "do_rescale", "do_normalize")
    write(tmp_path, "video_preprocessor_config.json", dict.fromkeys(names))
    assert read_preprocessing(tmp_path) == Preprocessing()


def test_a_step_that_is_left_out_is_left_out(tmp_path):
    write(tmp_path, "video_preprocessor_config.json", {"do_normalize": False})
    image = torch.arange(0, 252, 21, dtype=torch.uint8).view(1, 3, 2, 2)
    torch.testing.assert_close(normalized(image, read_preprocessing(tmp_path)), image / 255)
    said = {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}
    write(tmp_path, "video_preprocessor_config.json", said)
    torch.testing.assert_close(normalized(image, read_preprocessing(tmp_path)), (image.float() - 100) / 50)


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "video_preprocessor_config.json").write_text("{")
    with pytest.raises(ScorerError, match="cannot be read"):
        read_preprocessing(tmp_path)


@settings(max_examples=settings().max_examples // 2)
@given(
    st.tuples(*[st.integers(20, 300)] * 2),
    st.tuples(*[st.integers(1, 9)] * 2),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_gpu_resizes_as_a_cpu_does(shape, units, black_or_white, seed):
    """Noise, and noise of black and white, in which every step rounds and clamps."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
    if black_or_white:
        image = (image > 127).to(torch.uint8) * 255
    size = (32 * units[0], 32 * units[1])
    made, expected = patches.resize_in_float(image, size), patches.resize_tensor(image, size)
    assert made.dtype == torch.uint8 and made.shape == expected.shape
    differs = (made.int() - expected.int()).abs()
    assert differs.max() <= patches.RESIZE_DIFFERS
    assert (differs > 0).float().mean() < 0.05
    assert (differs > 1).float().mean() < 1e-3


def test_a_frame_of_the_right_size_stays_as_it_is_on_a_gpu_too():
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    assert patches.resize_in_float(image, (64, 96)) is image


def test_an_image_is_copied_whatever_lies_in_memory():
    """Turned, read-only, or a part of a larger one."""
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    image.flags.writeable = False
    for given_image in (image, image[::-1], image[5:9, ::2], image[..., ::-1]):
        sent = send_image(given_image, torch.device("cpu"))
        assert sent.is_contiguous() and np.array_equal(sent.numpy(), given_image.transpose(2, 0, 1))
        assert not np.shares_memory(sent.numpy(), image)
