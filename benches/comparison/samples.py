"""Samples of perf: of which thread, and what it was doing."""

import re
from collections import Counter

SEND = re.compile(r"\b__(x64_)?sys_(sendto|sendmsg|write|writev)\b|\bksys_write\b")


def counted(script: str) -> Counter:
    """Samples by thread and kind, of what `perf script` prints: a line with the thread, its stack from the inside, a blank."""
    found: Counter = Counter()
    for sample in re.split(r"\n\n+", script.strip()):
        head, *stack = sample.splitlines()
        thread = "shard" if head.startswith("shard-") else "worker" if head.startswith("tokio") else "other"
        if head.startswith("fanbench"):
            thread = "floor"
        if any(SEND.search(frame) for frame in stack):
            kind = "send"
        elif stack and "[kernel" in stack[0]:
            kind = "kernel"
        else:
            kind = "own"
        found[thread, kind] += 1
    return found
