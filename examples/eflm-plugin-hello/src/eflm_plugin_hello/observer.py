"""An observer that writes a line of JSON for every stage, to the file that HELLO_STAGE_LOG names."""

import json
import os


class StageLog:
    """Called between stages in the parent process, so it imports no torch."""

    def __init__(self, options):
        self.file = os.environ.get("HELLO_STAGE_LOG")

    def run_started(self, spec, keys):
        self._write(event="run_started", model=spec.model, stages=list(keys))

    def stage_started(self, stage, key):
        pass

    def stage_finished(self, stage, result):
        self._write(event="stage_finished", stage=stage, seconds=result.seconds, reused=result.reused)

    def stage_failed(self, stage, reason):
        self._write(event="stage_failed", stage=stage, reason=reason)

    def run_finished(self, result):
        self._write(event="run_finished", status=result.status)

    def _write(self, **line):
        if self.file:
            with open(self.file, "a") as log:
                log.write(json.dumps(line) + "\n")
