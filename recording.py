"""Training steps that cost a GPU one launch, by CUDA graphs."""

import gc
from collections.abc import Callable

import torch


class Recorded:
    """A step on a GPU that is recorded when it is first done and replayed after that.

    The step is given by a number and works on tensors that stay in their place, so that doing the same
    thing again is doing the next step. It never waits for the GPU. A replay is a single launch, however
    many operations the step has.

    The records share one pool of memory: what a step keeps lies outside of it, and what it does not keep
    may be overwritten by the next one. So memory does not grow with the number of records.
    """

    def __init__(self, step: Callable[[int], None], device: torch.device) -> None:
        """
        Args:
            step: what to do, given a number; each number has a record of its own.
            device: a GPU.
        """
        self._step = step
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, number: int) -> None:
        """Do the step; the first time for a number as it is written, after that as it was recorded."""
        if number in self._graphs:
            self._graphs[number].replay()
            return
        # Recording does nothing of what it records, and libraries may not set themselves up during it: hence
        # the step is done once before, on the stream that it will be recorded on.
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(number)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            gc.disable()  # what it might free on the GPU would end the recording
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    self._step(number)
            finally:
                gc.enable()
            self._graphs[number] = graph
