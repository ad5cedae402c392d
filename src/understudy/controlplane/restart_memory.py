"""Whether the kernel has killed for want of memory among our own processes: its count of that, and who may claim one of them.

Used by controlplane.restart_child and restart_command when a process was ended by SIGKILL, which by itself says nothing of who
sent it. Reads two small files of the kernel's (cgroups(7); cgroup v2, memory.events); where there are none, nothing is known.
"""

from pathlib import Path
from typing import Final

_OURS: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def events_path(ours: Path = _OURS, root: Path = _ROOT) -> Path | None:
    """Return the memory.events of our own control group, None where there is none: no Linux, cgroup v1, or no group of ours."""
    try:
        lines = ours.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/"):
            return root / line.removeprefix("0::/") / "memory.events"
    return None


class MemoryKills:
    """The kernel's count of processes that it killed for want of memory in the group whose memory.events is at `path`.

    The count is of the group and not of a process, so each kill explains one end only. It is raised before the signal is sent.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._claimed = 0

    def count(self) -> int:
        """Return the count as of now, 0 where it is not known."""
        if self._path is None:
            return 0
        try:
            text = self._path.read_text()
        except OSError:
            return 0
        counts = dict(line.partition(" ")[::2] for line in text.splitlines())
        told = counts.get("oom_kill", "")
        return int(told) if told.isdecimal() else 0

    def claim(self, since: int) -> bool:
        """Tell whether a kill beyond the count `since` is left that explains an end, and take it for this one."""
        explained = max(since, self._claimed)
        if self.count() <= explained:
            return False
        self._claimed = explained + 1
        return True
