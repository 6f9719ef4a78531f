"""A worker process: chunks come as lines of JSON, answers go back the same way.

    python -m research.sweep.worker

It ends when its standard input does, in mid-computation too: nothing outlives the process that
started it, however that one ended.
"""

import json
import os
import queue
import sys
import threading
import traceback
from typing import IO, Any


def main() -> None:
    """Answer each line until there are no more."""
    answers = _take_standard_output()
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, requests), daemon=True).start()
    while True:
        answers.write(json.dumps(answer(json.loads(requests.get()))) + "\n")
        answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What ``execute`` returns or raises, as plain values."""
    try:
        from research.sweep.engine import execute

        return {"result": execute(**request)}
    except Exception as error:
        summary = f"{type(error).__name__}: {error}"
        return {"error": summary, "traceback": traceback.format_exc()}


def _listen(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)


def _take_standard_output() -> IO[str]:
    """Keep it for answers: whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
