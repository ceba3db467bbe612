"""One sitting of a run: load, build, go on from where it was left, train or evaluate, print, save."""

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch

from agents import AGENTS
from data import load
from files import check_room, remove
from history import History, check_records, describe, write_history
from models import Model
from options import Run, as_given
from running.checkpoint import check_network, check_training, damaged, read_model, save_model
from running.directory import FILES, MODEL, check_same
from running.machine import core_quota, num_cores
from running.printing import accuracy_line, give_title, summary, summary_of_own_statistics
from running.provenance import code_of, environment
from running.released import known_as
from running.stopping import Stopped, StopSignals
from running.streams import OutputError, give, say
from scoring import Scores
from settings import SETTINGS, UserError, entry


def pick_device(name: str) -> torch.device:
    """The device that --device asks for.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name} here; use --device cpu")
    if core_quota() < torch.get_num_threads() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_cores())  # more than a container grants would wait for each other
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # of its driver, or of a PyTorch that is not made for it
        reason = str(error).splitlines()[0]
        raise UserError(f"the device {name} cannot be used ({reason}); use --device cpu") from error
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, in convolutions as in all else
    return torch.device(name)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step, where it is one that can (glibc).

    It would give large blocks back to the system, which then has to clear the same pages for every step.
    """
    max_mappings, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt
    with suppress(OSError, TypeError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(max_mappings, 0)
        c_library.mallopt(trim_threshold, 2**31 - 1)


class Sitting:
    """An agent on its data, and the files that its run leaves behind."""

    def __init__(
        self, run: Run, history: History | None, network: Callable | None, save_interval: float
    ) -> None:
        """
        Args:
            run: what to do.
            history: what an earlier sitting of the run has left, if there was one.
            network: makes the model; None for the program's own.
            save_interval: seconds between two writings of the model.
        """
        self.run = run
        self.model_path, self.history_path = (run.save_path / name for name in FILES)
        self._saves_model = run.save_model or run.resume
        self._saves_history = run.save_history or history is not None
        self._save_interval = save_interval
        saved = self._saved() if run.resume else None
        self._code = code_of(network)
        if saved:
            say_other_code(self.model_path, saved, self._code, run)
        data = load(run.spec, run.data_path, run.image_size, pick_device(run.device), run.task)
        keep_freed_memory()
        setting = SETTINGS[run.setting]
        give_title(run.spec.title, run.synthetic)
        say(
            f"{run.spec.title}, {len(data.train)} training and {len(data.test)} {run.spec.scored_on} images "
            f"of {run.image_size} x {run.image_size} pixels, on {data.device} in {run.precision}; "
            f"{setting.name}: {setting.words}"
        )
        agent = entry(AGENTS, run.setting, "AGENTS of agents.py", "SETTINGS of settings.py")
        self.agent = agent(data, run, network or Model)
        self._options = run.recorded | {"device": str(data.device)}
        self._sessions: list[dict] = []
        self._own_statistics: Scores | None = None
        if saved:
            self._restore(saved)
        elif run.mode == "train":
            if run.resume:
                say(f"there is no {self.model_path} to resume from: starting anew")
            self._begin_session()

    def _saved(self) -> dict | None:
        """The content of the model file to go on from, or None where there is none yet.

        Raises:
            UserError: the file cannot be read, is damaged, or was made with other options.
        """
        if not self.model_path.exists():
            return None
        saved = read_model(self.model_path, self.run.table)
        check_same(self.run, self.model_path, saved["options"])
        try:
            check_training(saved.get("training"))
        except ValueError as error:
            raise damaged(self.model_path, error) from None
        done = len(saved["training"]["epochs"]) + (saved["training"]["step"] > 0)
        if done > self.run.epochs:
            raise UserError(
                f"{self.model_path} has come to epoch {done} already: give --epochs {done} or more"
            )
        return saved

    def _restore(self, saved: dict) -> None:
        """Bring the agent to where a model file was written; the options are those of the file.

        Raises:
            UserError: the file does not fit the network or the data.
        """
        agent, training = self.agent, saved["training"]
        check_network(self.model_path, saved["model"], agent.model)
        try:
            check_records(training["epochs"], len(agent.names))
            agent.resume(saved["model"], training)
        except ValueError as error:
            other_code = known_as(saved["code"], self.run.spec) != self._code
            raise damaged(self.model_path, f"training.{error}", other_code) from error
        self._sessions = [
            session | {"code": known_as(session["code"], self.run.spec)} for session in training["sessions"]
        ]
        self._begin_session()
        if len(agent.epochs) < self.run.epochs:
            num_steps = agent.plan.steps_per_epoch
            say(f"going on after epoch {len(agent.epochs)} and {agent.step} steps of {num_steps}")

    def _begin_session(self) -> None:
        """Record that a session begins here."""
        where = environment(self.agent.data.device, torch.get_num_threads(), self.run.compile)
        place = {"epoch": len(self.agent.epochs), "step": self.agent.step}
        self._sessions.append(place | {"environment": where, "code": self._code})

    def _history(self, finished: bool) -> History:
        agent = self.agent
        return History(
            options=self._options,
            data_set=describe(self.run.spec),
            sessions=self._sessions,
            tasks=agent.names,
            constant_accuracy=agent.scorer.constant_accuracy,
            num_answers=agent.scorer.num_answers,
            parameters={
                "encoder": sum(parameter.numel() for parameter in agent.model.encoder.parameters()),
                "heads": sum(parameter.numel() for parameter in agent.model.heads.parameters()),
            },
            loss_parameters=dict(agent.combination.constants),
            epochs=agent.epochs,
            finished=finished,
            own_statistics=self._own_statistics and asdict(self._own_statistics),
        )

    def _save(self, model: bool, finished: bool = False) -> str:
        """Write the files that are asked for; gives back which.

        Args:
            model: whether it is time for the model.
            finished: whether the run has come to its end.

        Raises:
            UserError: the model is not finite, whether or not it is to be saved; or a file cannot be written.
        """
        if model or finished:
            self.agent.check_finite()
        files = []
        if model and self._saves_model:
            training = self.agent.state() | {"sessions": self._sessions}
            save_model(self.model_path, self._options, self.agent.model.state_dict(), training, self._code)
            files.append(f"the model in {self.model_path}")
        if self._saves_history:
            write_history(self.history_path, self._history(finished))
            files.append(f"the history in {self.history_path}")
        return " and ".join(files)

    def train(self, signals: StopSignals) -> None:
        """Train to the end, saving and printing along the way.

        Raises:
            UserError: a loss or a weight is not finite, or a file cannot be written.
            Stopped: a signal has stopped it; what is asked for was saved.
        """
        agent, run = self.agent, self.run
        trains = len(agent.epochs) < run.epochs
        if self._saves_model and trains:
            check_room(self.model_path, self._model_size())
        if run.overwrite and (self._saves_model or self._saves_history):
            for path in (self.model_path, self.history_path):
                remove(path)
        if run.compile and trains:
            say("compiling the encoder: the first step takes up to half a minute longer")
        with signals.deferred(), compiling(run.compile):
            self._train(signals)
            files = self._save(model=trains)
            self._score_with_own_statistics(signals, files)
            self._save(model=False, finished=True)
        accuracy = agent.epochs[-1]["accuracy"]
        self._say_scores(accuracy)
        if trains:
            say(f"saved {files}" if files else "saved nothing: --save_model and --save_history save")
        give(accuracy_line(run.setting, accuracy))

    def _train(self, signals: StopSignals) -> None:
        """Train the agent from where it stands, saving as it goes."""
        agent = self.agent
        last_saved = time.monotonic()
        try:
            for record in agent.train(self.run.epochs, pause=signals.check):
                if record["epoch"] < self.run.epochs:
                    due = time.monotonic() - last_saved >= self._save_interval
                    self._save(model=due)
                    last_saved = time.monotonic() if due else last_saved
                if self.run.verbose:
                    line = accuracy_line(self.run.setting, record["accuracy"])
                    self._give(f"[Epoch {record['epoch']}] {line}")
        except Stopped as stopped:
            files = self._save(model=True)
            num_steps = agent.plan.steps_per_epoch
            where = f"after {agent.step} of {num_steps} steps of epoch {len(agent.epochs) + 1}"
            raise self._stopped(stopped, where, files) from None
        except OSError:  # of a progress bar; printing and saving raise UserError
            self._save(model=True)
            raise

    def _give(self, result: str) -> None:
        """Print a result on the way.

        Raises:
            OutputError: it cannot be written; the run was saved. A closed terminal does not end a training.
        """
        try:
            give(result)
        except OutputError as error:
            if not error.hung_up:
                self._save(model=True)
                raise

    def _score_with_own_statistics(self, signals: StopSignals, files: str) -> None:
        """Score the network with each task's own normalisation statistics, where there are any.

        Args:
            signals: that may stop it.
            files: what has been written.

        Raises:
            Stopped: a signal has stopped it.
        """
        try:
            self._own_statistics = self.agent.evaluate_with_own_statistics(progress=True, pause=signals.check)
        except Stopped as stopped:
            where = "after the last epoch, before the scores with each task's own normalisation statistics"
            raise self._stopped(stopped, where, files) from None

    def _stopped(self, stopped: Stopped, where: str, files: str) -> Stopped:
        """What a signal has led to, in words.

        Args:
            stopped: the signal.
            where: it came.
            files: what has been written.
        """
        if self._saves_model:
            how = "the same command with --resume goes on from there"
        else:
            how = "it takes --save_model to go on from there"
        return Stopped(stopped.number, f" {where}: saved {files or 'nothing'}; {how}")

    def _say_scores(self, accuracy: Sequence[float]) -> None:
        """Say what the accuracies of the tasks mean, and what their own statistics would change."""
        agent, scored_on = self.agent, self.run.spec.scored_on
        say(summary(agent.names, accuracy, agent.scorer.constant_accuracy, scored_on))
        if self._own_statistics:
            say(summary_of_own_statistics(self._own_statistics.accuracy, accuracy, scored_on))

    def evaluate(self) -> None:
        """Score the network as it stands and print the result."""
        accuracy = self.agent.evaluate(progress=True).accuracy
        self._own_statistics = self.agent.evaluate_with_own_statistics(progress=True)
        self._say_scores(accuracy)
        give(accuracy_line(self.run.setting, accuracy))

    def _model_size(self) -> int:
        """About how many bytes model.pt takes."""
        state = self.agent.state()["optimizer"]["state"]
        buffers = [value for values in state.values() for value in values.values()]
        tensors = [*self.agent.model.state_dict().values(), *filter(torch.is_tensor, buffers)]
        return sum(tensor.nbytes for tensor in tensors) + 1_000_000


@contextmanager
def compiling(compiled: bool):
    """Say in one line when torch.compile cannot do its work."""
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


def say_other_code(path: Path, saved: dict, code: str, run: Run) -> None:
    """Say so where a model was made by other code."""
    was = known_as(saved["code"], run.spec)
    if was != code:
        say(f"{path} was made by other code ({was}, this is {code}): the result may be neither's")


def evaluate(run: Run, network: Callable | None = None) -> None:
    """Evaluate the model saved in --save_path and print the result.

    Raises:
        UserError: there is no model, or none that can be evaluated like that.
    """
    path = run.save_path / MODEL
    saved = read_model(path, run.table)
    check_fits(run, path, saved["options"])
    unless_given = {
        option.name: saved["options"][option.name]
        for option in run.table
        if option.from_model and run.values[option.name] is None
    }
    say_other_code(path, saved, code_of(network), run)
    # No losses are formed, so what forms them need not be installed.
    sitting = Sitting(run.changed(resume=False, loss=None, **unless_given), None, network, 0.0)
    check_network(path, saved["model"], sitting.agent.model)
    sitting.agent.model.load_state_dict(saved["model"])
    sitting.evaluate()


def check_fits(run: Run, path: Path, trained: dict) -> None:
    """Make sure that a model can be evaluated as the options ask.

    Args:
        run: the evaluation.
        path: of the model.
        trained: the options that it was trained with.

    Raises:
        UserError: it is another kind of model, or was trained on other images.
    """
    setting = trained["setting"]
    kind, wanted = SETTINGS[setting].kind, SETTINGS[run.setting].kind
    if kind != wanted:
        raise UserError(
            f"{path} is a {kind} model, trained with --setting {setting}, and --setting {run.setting} "
            f"evaluates {wanted} models: change --setting or --save_path"
        )
    for option in run.table:
        asked, was = run.values[option.name], trained[option.name]
        taken = option.from_model and asked is None
        on_test = option.name == "validation" and asked == 0
        if option.decides == "data" and not taken and not on_test and option.differs(asked, was):
            raise UserError(
                f"{path} was trained {as_given(option.name, was)}: evaluate it like that, or change "
                f"--save_path"
            )
