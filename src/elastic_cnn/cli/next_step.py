"""What a command's last line says: what to do next."""

import os
import shlex

from elastic_cnn.tasks.spec import task_spec


def next_line(*words: object) -> str:
    """`next: elastic WORDS`, fit to be copied to a shell."""
    return f"next: elastic {shlex.join(map(str, words))}"


def how_to_test(task: str, checkpoint: str) -> str:
    """How to test a checkpoint: with a report, where its task has one."""
    spec = task_spec(task)
    folder = checkpoint if os.path.isdir(checkpoint) else os.path.dirname(checkpoint)
    report = ("-o", os.path.join(folder, "report")) if spec.top1 or spec.several else ()
    return next_line("eval", checkpoint, *report)
