"""The curves of a run, in event files that TensorBoard reads: a point per epoch."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from agents import Agent
from errors import UserError
from storage.files import event_files


class Curves:
    """Draws the curves of a run into its directory.

    The files of several sessions show as one. A session begins its file with its first epoch.
    """

    def __init__(self, agent: Agent) -> None:
        """
        Args:
            agent: agent of the run, at the step from which the session starts.
        """
        from torch.utils.tensorboard import SummaryWriter  # of an optional package

        self._agent = agent
        self._make_writer = SummaryWriter
        self._writer: SummaryWriter | None = None

    def draw(self, record: dict[str, Any]) -> None:
        """Draw an epoch, onto the disk.

        Args:
            record: record of the epoch, the agent's last.

        Raises:
            UserError: a file cannot be written.
        """
        with self._errors_of_thread():
            records = [record]
            if self._writer is None:
                directory = self._agent.run.save_path
                if not event_files(directory):  # earlier sessions drew nothing
                    records = self._agent.epochs
                # Hides what an earlier session drew of epochs that it did not save.
                self._writer = self._make_writer(str(directory), purge_step=records[0]["epoch"])
            for each in records:
                for tag, value in points(self._agent, each).items():
                    self._writer.add_scalar(tag, value, each["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    @contextmanager
    def _errors_of_thread(self) -> Iterator[None]:
        """Raise errors of the writer's thread here, in place of printing them there.

        After an error this stays so, as the thread may come to print it later.
        """
        hook = threading.excepthook
        threading.excepthook = lambda error: None if issubclass(error.exc_type, OSError) else hook(error)
        try:
            yield
        except OSError as error:
            self._writer = None
            raise UserError(
                f"cannot write event files in {self._agent.run.save_path}: {error.strerror or error}; make "
                "room, or leave --tensorboard out"
            ) from error
        threading.excepthook = hook


def points(agent: Agent, record: dict[str, Any]) -> dict[str, float]:
    """What to draw of an epoch, by the name of the curve.

    The learning rate is that of the epoch's first step. A curve named like another with `/NAME` after it is
    that of a task; the other is the mean over the tasks.
    """
    scored_on = agent.run.spec.scored_on
    heads = record.get("task_loss", [])
    names = agent.names if len(heads) == len(agent.names) else [f"head {i}" for i in range(len(heads))]
    return {
        "learning_rate": agent.learning_rate_of(record["epoch"]),
        **_curves("train_loss", names, heads),
        "train_loss": record["loss"],  # with the weights of the setting
        **_curves(f"{scored_on}_accuracy", agent.names, record["accuracy"]),
        **_curves(f"{scored_on}_loss", agent.names, record.get("test_loss", [])),
    }


def _curves(name: str, tasks: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    """The mean of some values if all are known, and each, if there are several."""
    known = {f"{name}/{task}": value for task, value in zip(tasks, values, strict=False) if value is not None}
    mean = {name: fmean(known.values())} if known and len(known) == len(values) else {}
    return mean | (known if len(values) > 1 else {})
