"""`yidi up --detach`: the same supervisor in a new interpreter and session.

A new interpreter and not a fork: the caller may have threads (a progress display, gRPC).
The options go in through its standard input, progress comes back as JSON lines in a pipe.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from typing import IO

from infra.local.files import tail
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import DOWN_S, Options, Progress, run

_started: list[subprocess.Popen[bytes]] = []
"""Kept so that Python does not warn of a child that is meant to outlive this process."""


def start_detached(options: Options, on_progress: Progress) -> None:
    """Start a supervisor in the background; return when its network is healthy."""
    if options.prepare.__module__ == "__main__":
        raise ValueError("prepare must be a function of an importable module")
    try:
        options.home.mkdir(parents=True, exist_ok=True)
        log = (options.home / "up.log").open("ab")
    except OSError as error:
        raise LocalNetworkError(f"cannot write to {options.home}: {error.strerror}") from error
    read_end, write_end = os.pipe()
    start = log.tell()
    with log, open(read_end, encoding="utf-8") as reports:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.local.detached", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
            start_new_session=True,
        )
        os.close(write_end)
        try:
            assert process.stdin is not None
            with process.stdin as stdin:
                # The search path first: the functions in the options are found by it.
                stdin.write(pickle.dumps(sys.path) + pickle.dumps(options))
            ready = _follow(reports, on_progress)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait(DOWN_S)
            raise
    if not ready:
        process.wait(DOWN_S)
        text = tail(options.home / "up.log", start=start)
        raise LocalNetworkError(f"the background process ended:\n{text}")
    _started.append(process)


def _follow(reports: IO[str], on_progress: Progress) -> bool:
    """Pass on progress until the network is ready (True) or its supervisor ends."""
    for line in reports:
        report = json.loads(line)
        if "error" in report:
            raise LocalNetworkError(report["error"])
        if "ready" in report:
            return True
        on_progress(report["progress"])
    return False


def main() -> int:
    """The background process: options on standard input, the number of the pipe as argument."""
    with open(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as reports:

        def report(**fields: object) -> None:
            print(*fields.values(), flush=True)
            if not reports.closed:
                reports.write(json.dumps(fields) + "\n")

        def ready() -> None:
            report(ready=True)
            reports.close()

        sys.path[:] = pickle.load(sys.stdin.buffer)
        options: Options = pickle.load(sys.stdin.buffer)
        try:
            run(options, lambda text: report(progress=text), ready)
        except LocalNetworkError as error:
            report(error=str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
