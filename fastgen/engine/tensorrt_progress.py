"""What TensorRT's builder is doing, as nested bars on a terminal; elsewhere nothing, since a build says its steps."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class BuildProgress:
    """Bars of one build; a context manager."""

    def __init__(self, name: str) -> None:
        """Prepare; `name` is the component that is built."""
        self._name = name
        self._bars: Progress | None = None
        self._tasks: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> "BuildProgress":
        """Show bars if standard error is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars."""
        if self._bars is not None:
            self._bars.stop()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside of `parent`."""
        if self._bars is not None:
            depth = self._tasks[parent][1] + 1 if parent in self._tasks else 0
            label = f"{'  ' * depth}{phase}" if depth else f"{self._name}: {phase}"
            self._tasks[phase] = (self._bars.add_task(label, total=steps), depth)

    def step(self, phase: str, done: int) -> None:
        """`done` steps of a phase are finished."""
        if self._bars is not None and phase in self._tasks:
            self._bars.update(self._tasks[phase][0], completed=done)

    def finish(self, phase: str) -> None:
        """A phase has ended, finished or not."""
        if self._bars is not None and phase in self._tasks:
            self._bars.remove_task(self._tasks.pop(phase)[0])

    def monitor(self, trt: Any) -> Any:
        """Return a `tensorrt.IProgressMonitor` that draws these bars.

        An exception may not pass through the builder, so Ctrl-C sets `interrupted` and ends the build.
        """
        progress = self

        class Monitor(trt.IProgressMonitor):
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.interrupted = False

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                self._call(progress.start, phase_name, parent_phase, num_steps)

            def phase_finish(self, phase_name: str) -> None:
                self._call(progress.finish, phase_name)

            def step_complete(self, phase_name: str, step: int) -> bool:
                self._call(progress.step, phase_name, step + 1)
                return not self.interrupted

            def _call(self, function: Any, *arguments: Any) -> None:
                try:
                    function(*arguments)
                except KeyboardInterrupt:
                    self.interrupted = True

        return Monitor()
