"""A success classifier on the newest frame: logistic regression on a thumbnail of the picture.

    python newest_frame.py fit weights.npz --success good/*.png --failure bad/*.png
    topreward score film.mp4 --model plugin:newest_frame:weights.npz --task 'open the drawer'

It shows what a scorer of your own must give, and no more: it looks at one picture, and reads no task.
"""

import argparse
import hashlib
from io import BytesIO
from math import nan

import numpy as np

from topreward_ros.core.output_files import write_file
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.plugins import ScorerPlugin

SIDE = 16  # pixels of the thumbnail


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The means of SIDE x SIDE blocks of a picture (H, W, 3), in [0, 1], as one row."""
    rows, columns = (np.linspace(0, size, SIDE + 1).astype(int) for size in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    return (sums / np.multiply.outer(np.diff(rows), np.diff(columns))[..., None] / 255.0).ravel()


class NewestFrame(ScorerPlugin):
    """Progress and success are the probability that the newest frame shows a task that is done."""

    def __init__(self, argument: str, settings: ScorerSettings) -> None:
        if not argument:
            raise ScorerError("name the file of its weights: plugin:newest_frame:FILE")
        try:
            with np.load(argument) as file:  # without pickles
                self._weights, self._bias = file["weights"].ravel(), float(file["bias"])
        except (OSError, KeyError, ValueError) as error:
            raise ScorerError(f"{argument!r} holds no weights of newest_frame ({error})") from error
        if self._weights.shape != (SIDE * SIDE * 3,):
            raise ScorerError(f"{argument!r} has weights of shape {self._weights.shape}: fit them anew")
        self.revision = hashlib.sha256(self._weights.tobytes()).hexdigest()[:12]

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        newest = request.prefix[-1].image
        if min(newest.shape[:2]) < SIDE:
            raise ScorerError(f"a picture of {newest.shape[1]} x {newest.shape[0]} pixels is too small")
        odds = float(thumbnail(newest) @ self._weights) + self._bias
        done = 0.5 + 0.5 * float(np.tanh(odds / 2.0))
        return PrefixScore(nan, nan, stated_progress=done, success_probability=done)


def fit(pictures: np.ndarray, labels: np.ndarray, steps: int = 500) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression with a little weight decay."""
    weights, bias = np.zeros(pictures.shape[1]), 0.0
    for _ in range(steps):
        error = 0.5 + 0.5 * np.tanh((pictures @ weights + bias) / 2.0) - labels
        weights -= 0.1 * (pictures.T @ error / len(labels) + 1e-3 * weights)
        bias -= 0.1 * float(error.mean())
    return weights, bias


if __name__ == "__main__":
    from PIL import Image

    parser = argparse.ArgumentParser(description="Fit a success classifier on pictures.")
    parser.add_argument("command", choices=["fit"])
    parser.add_argument("weights", help="the file to write, such as weights.npz")
    parser.add_argument("--success", nargs="+", required=True, help="pictures of a task that is done")
    parser.add_argument("--failure", nargs="+", required=True, help="pictures of one that is not")
    options = parser.parse_args()
    files = [*options.success, *options.failure]
    images = np.stack([thumbnail(np.asarray(Image.open(name).convert("RGB"))) for name in files])
    is_success = np.arange(len(files)) < len(options.success)
    fitted, offset = fit(images, is_success.astype(float))
    content = BytesIO()
    np.savez(content, weights=fitted, bias=offset)
    write_file(options.weights, content.getvalue())
    right = np.mean((images @ fitted + offset > 0.0) == is_success)
    print(f"{options.weights}: fitted on {len(files)} pictures, {right:.0%} of which it calls right")
