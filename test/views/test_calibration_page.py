"""The page of a calibration, as a human reads it."""

from __future__ import annotations

import re

from test.core.calibrations import BASE, RATE, drawn, setup
from topreward_ros.core.calibration.fit import Fit, fit_task
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.events import SuccessSettings
from topreward_ros.views.calibration_page import page

USUAL = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=0.5, min_scores=3, smoothing=1)


def page_of(fit: Fit, problems: tuple[str, ...] = ()) -> str:
    return page(Calibrations(setup(), (fit.calibration,)), [fit], problems, [])


def test_the_threshold_stands_on_every_plot_of_scores_in_nat() -> None:
    fit = fit_task("open it", drawn(10, 10, seed=1, apart=4.5), USUAL, RATE, 0.02)
    assert fit.comparison.keeps_fitted
    html = page_of(fit)
    nats = f"{fit.calibration.success.threshold:.3f} nat"
    assert html.count(f">{nats}</text>") == 2 + 20  # the trade, the probability, every episode
    assert f"<b>{nats}</b>threshold" in html and "log-odds of" not in html
    assert html.count(">score [nat]</text>") == 1 + 20 and ">threshold [nat]</text>" in html


def test_what_is_not_used_is_said_with_who_decides() -> None:
    fit = fit_task("open it", drawn(2, 2, seed=1), USUAL, RATE, 0.02)
    html = page_of(fit, ("see `topreward evaluate`",))
    assert "calibrated: false, and SUCCESS is judged by the parameters success_* of the monitor" in html
    learnt = f"{fit.choice.settings.threshold:.3f} nat"
    assert f">{learnt}</text>" in html and f"{learnt}, which is not kept" in html
    assert "`" not in html and "<code>topreward evaluate</code>" in html and "<code>calibrated: false" in html


def test_episodes_are_counted_in_whole_numbers_and_delays_told_to_the_look() -> None:
    fit = fit_task("open it", drawn(6, 6, seed=1), BASE, RATE, 0.02)
    figure = re.search(r"From done to SUCCESS</h3>(.*?)</svg>", page_of(fit), re.DOTALL)
    assert figure is not None
    below = [text for _, text in re.findall(r'text-anchor="(middle)">([^<]+)<', figure[1])]
    assert below.pop() == "successes, shortest first" and below[:2] == ["0", "1"]
    assert all(text.isdigit() for text in below)
    assert re.search(r"<b>-?\d+\.\d\d s</b>delay, median", page_of(fit))
