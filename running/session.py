"""A session, that is, one start of a training run.

It begins from scratch or from a checkpoint, and ends with the run or at a signal.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

import torch

from agents import Network, make_agent
from errors import UserError
from options import Run
from running.curves import Curves
from running.hint import with_hint
from running.printing import accuracy_line, print_epoch, print_scores
from running.provenance import code_of, warn_of_other_code
from running.released import known_as
from running.resuming import find_checkpoint, restore
from running.setup import load_data
from running.stopping import Stopped, StopSignals
from running.streams import OutputError, print_message, print_result
from running.writer import Writer
from storage.files import MODEL


class Session:
    """Trains the agent of a run, and saves and prints."""

    def __init__(
        self, run: Run, signals: StopSignals, network: Network | None, save_interval: float, has_history: bool
    ) -> None:
        """
        Args:
            run: options of the run.
            signals: stops the run when a signal comes.
            network: makes the model; None for the program's own.
            save_interval: seconds between two checkpoints during training.
            has_history: whether the run has a history from an earlier session.

        Raises:
            UserError: the checkpoint, the device or the data cannot be used.
        """
        self.run = run
        self._signals = signals
        self._save_interval = save_interval
        checkpoint = find_checkpoint(run) if run.resume else None
        code = code_of(network)
        if checkpoint:
            warn_of_other_code(run.save_path / MODEL, known_as(checkpoint.code, run.spec), code)
        self.agent = make_agent(load_data(run), run, network)
        if run.resume and not checkpoint:
            print_message(f"there is no {run.save_path / MODEL} to resume from: starting from the beginning")
        sessions = restore(self.agent, checkpoint, code) if checkpoint else []
        self.writer = Writer(self.agent, sessions, code, has_history)
        self._curves = Curves(self.agent) if run.tensorboard else None
        self._pause = signals.check
        if not (checkpoint or has_history):
            self._pause = with_hint(self.agent, signals.check)

    def train(self) -> None:
        """Train to the last epoch, save, and print the result.

        Raises:
            UserError: a loss or a weight is not finite, or a file cannot be written.
            Stopped: a signal stopped the run, which is saved as --save_model and --save_history say.
        """
        agent, run, writer = self.agent, self.run, self.writer
        trains = len(agent.epochs) < run.epochs
        if trains:
            writer.check_room()
        if run.overwrite:
            writer.delete_earlier()
        if run.compile and trains:
            print_message("compiling the encoder: the first step takes up to half a minute longer")
        with self._signals.deferred(), compiling(run.compile):
            self._train_epochs()
            files = writer.save(model=trains)
            self._score_as_trained(files)
            writer.save(model=False, finished=True)
        accuracy = agent.epochs[-1]["accuracy"]
        as_trained = writer.as_trained.accuracy if writer.as_trained else None
        constant = agent.scorer.constant_accuracy
        print_scores(agent.names, accuracy, constant, as_trained, run.spec.scored_on)
        if agent.kept_epoch and writer.saves_model:
            kept = agent.epochs[agent.kept_epoch - 1]
            print_message(
                f"{MODEL} keeps the network of epoch {kept['epoch']} of {run.epochs}, whose mean validation "
                f"accuracy is {fmean(kept['accuracy']):.4f}"
            )
        if trains:
            curves = f"event files in {run.save_path}" if self._curves else ""
            saved = " and ".join(filter(None, (files, curves)))
            print_message(
                f"saved {saved}" if saved else "saved nothing: --save_model and --save_history save"
            )
        print_result(accuracy_line(run.setting, accuracy))

    def _train_epochs(self) -> None:
        """Train the epochs that are left, and save after each.

        The model is saved if `save_interval` has passed.
        """
        agent, run, writer = self.agent, self.run, self.writer
        last_saved = time.monotonic()
        try:
            for record in agent.train(run.epochs, pause=self._pause):
                if self._curves:
                    self._curves.draw(record)
                if record["epoch"] < run.epochs:
                    due = time.monotonic() - last_saved >= self._save_interval
                    writer.save(model=due)
                    if due:
                        last_saved = time.monotonic()
                if run.verbose:
                    line = accuracy_line(run.setting, record["accuracy"])
                    self._give(f"[Epoch {record['epoch']}] {line}")
                    rate = agent.learning_rate_of(record["epoch"])
                    print_epoch(record, run.epochs, rate, run.spec.scored_on)
        except Stopped as stopped:
            files = writer.save(model=True)
            num_steps = agent.plan.steps_per_epoch
            where = f"after {agent.step} of {num_steps} steps of epoch {len(agent.epochs) + 1}"
            raise self._stopped(stopped, where, files) from None
        except OSError:  # from a progress bar; printing and saving raise UserError
            writer.save(model=True)
            raise
        finally:
            if self._curves:
                self._curves.close()

    def _give(self, result: str) -> None:
        """Print a result during training.

        Raises:
            OutputError: standard output fails; the run is saved. A closed terminal does not end a training.
        """
        try:
            print_result(result)
        except OutputError as error:
            if not error.hung_up:
                self.writer.save(model=True)
                raise

    def _score_as_trained(self, files: str) -> None:
        """Score the network with batch-norm statistics of batches like those of its training.

        Args:
            files: files that are written already, in words.

        Raises:
            Stopped: a signal stopped it.
        """
        agent, check = self.agent, self._signals.check
        try:
            if agent.scores is None:  # resumed after its last evaluation
                agent.evaluate(progress=True, pause=check)
            self.writer.as_trained = agent.evaluate_as_trained(progress=True, pause=check)
        except Stopped as stopped:
            where = "after the last epoch, before scoring with batch-norm statistics estimated again"
            raise self._stopped(stopped, where, files) from None

    def _stopped(self, stopped: Stopped, where: str, files: str) -> Stopped:
        """The signal with its message to the user.

        It says where training stopped and which files are written.
        """
        if self.writer.saves_model:
            how = "the same command with --resume continues from there"
        else:
            how = "resuming takes --save_model"
        return Stopped(stopped.number, f" {where}: saved {files or 'nothing'}; {how}")


@contextmanager
def compiling(compiled: bool) -> Iterator[None]:
    """Turn errors of torch.compile, if the encoder is compiled, into one line."""
    try:
        yield
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.ShortenTraceback) as error:
        if not compiled:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch.compile cannot compile the network ({reason}): install a C++ compiler such as g++, "
            "for a GPU also Triton, or leave --compile out"
        ) from error
