"""The hint that a long training would be faster in bf16."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from running.machine import has_bf16
from running.streams import print_message

if TYPE_CHECKING:
    from agents import Agent

LONG = 60.0
"""Seconds of training from which the hint is given."""

NUM_STEPS = 10
"""Steps after the first, which is slower, from which the time of the training is estimated."""


def with_hint(agent: "Agent", pause: Callable[[], None]) -> Callable[[], None]:
    """Have what is called after each step give the hint once, if it applies.

    It applies to trainings of more than a minute on a processor that computes in bf16, by its own
    instructions, if no precision was chosen.

    Args:
        agent: an agent that has trained no step.
        pause: what is called after each step of its training.
    """
    run = agent.run
    if agent.data.device.type != "cpu" or "precision" in run.given or not has_bf16():
        return pause
    total = run.epochs * agent.plan.steps_per_epoch
    start: float | None = None
    waits = True

    def pause_and_hint() -> None:
        nonlocal start, waits
        pause()
        if not waits:
            return
        if start is None:
            start = time.perf_counter()
        elif agent.steps_done > NUM_STEPS:
            waits = False
            seconds = (time.perf_counter() - start) / NUM_STEPS * (total - agent.steps_done)
            if seconds > LONG:
                print_message(
                    f"training takes about {seconds / 60:.1f} minutes: on this processor --precision bf16 "
                    "would take about half the time, and accuracies would differ a little"
                )

    return pause_and_hint
