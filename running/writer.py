"""The files of a training run: writes its checkpoint and its history."""

from typing import Any

import torch

from agents import Agent
from models import describe_inference
from running.machine import environment
from scoring import Scores
from storage.checkpoint import Checkpoint, packed, write_checkpoint
from storage.files import FILES, check_room, event_files, remove
from storage.history import History, describe, write_history


class Writer:
    """Writes the state of an agent to the files of its run.

    Attributes:
        saves_model: whether the run has a checkpoint.
        as_trained: scores with batch-norm statistics estimated again, once there are any.
    """

    def __init__(self, agent: Agent, sessions: list[dict[str, Any]], code: str, has_history: bool) -> None:
        """
        Args:
            agent: agent of the run, at the step from which the session starts.
            sessions: sessions of the run so far; the present one is added.
            code: fingerprint of the present code.
            has_history: whether the run has a history from an earlier session.
        """
        run = agent.run
        self.saves_model = run.save_model or run.resume
        self.as_trained: Scores | None = None
        self._saves_history = run.save_history or has_history
        self._agent = agent
        self._code = code
        self._model_path, self._history_path = (run.save_path / name for name in FILES)
        self._options = run.recorded | {"device": str(agent.data.device)}
        self._inference = describe_inference(agent.data.spec, agent.targets(), agent.scored())
        start = {"epoch": len(agent.epochs), "step": agent.step, "code": code}
        if run.spec.path:
            start["file"] = str(run.spec.path.resolve())
        where = environment(agent.data.device, torch.get_num_threads(), run.compile)
        self._sessions = [*sessions, start | {"environment": where}]

    def check_room(self) -> None:
        """Check that the checkpoint fits on the disk.

        Raises:
            UserError: it does not.
        """
        if self.saves_model:
            buffers = self._agent.state()["optimizer"]["state"].values()
            tensors = [*self._agent.model.state_dict().values()]
            tensors *= 1 + (self._agent.run.keep == "best")
            tensors += [value for values in buffers for value in values.values() if torch.is_tensor(value)]
            check_room(self._model_path, sum(tensor.nbytes for tensor in tensors) + 1_000_000)

    def delete_earlier(self) -> None:
        """Delete the files of an earlier run, if this one writes any."""
        run = self._agent.run
        if self.saves_model or self._saves_history or run.tensorboard:
            for path in (self._model_path, self._history_path, *event_files(run.save_path)):
                remove(path)

    def save(self, model: bool, finished: bool = False) -> str:
        """Write the files that are asked for.

        Args:
            model: whether to write the checkpoint.
            finished: whether the run has ended.

        Returns:
            the names of the files, in words.

        Raises:
            UserError: the model is not finite, even if it is not saved; or a file cannot be written.
        """
        agent = self._agent
        if model or finished:
            agent.check_diverged()
        files = []
        if model and self.saves_model:
            training = agent.state() | {"sessions": self._sessions}
            scored = agent.kept or agent.scored_state()
            if agent.run.keep == "best":
                rest = {name: scored[name] for name in ("extra", "weights")}
                training |= packed({"network": agent.model.state_dict(), "kept": rest})
            inference = dict(self._inference)
            if scored["weights"] is not None:
                inference["weights"] = scored["weights"]
            checkpoint = Checkpoint(self._options, scored["network"], training, self._code, inference)
            write_checkpoint(self._model_path, checkpoint)
            files.append(f"the model in {self._model_path}")
        if self._saves_history:
            write_history(self._history_path, self._history(finished))
            files.append(f"the history in {self._history_path}")
        return " and ".join(files)

    def _history(self, finished: bool) -> History:
        agent, again = self._agent, self.as_trained
        return History(
            options=self._options,
            data_set=describe(agent.run.spec),
            sessions=self._sessions,
            tasks=agent.names,
            constant_accuracy=agent.scorer.constant_accuracy,
            num_answers=agent.scorer.num_answers,
            parameters={
                "encoder": sum(parameter.numel() for parameter in agent.model.encoder.parameters()),
                "heads": sum(parameter.numel() for parameter in agent.model.heads.parameters()),
            },
            loss_parameters=dict(agent.combiner.constants),
            epochs=agent.epochs,
            finished=finished,
            kept_epoch=agent.kept_epoch,
            right=agent.scores.right if finished and agent.scores else None,
            as_trained={name: getattr(again, name) for name in ("accuracy", "balanced_accuracy", "right")}
            if again
            else None,
        )
