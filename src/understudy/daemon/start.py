"""Bind the addresses, configure the log, run the daemon until a signal stops it.

Called by cli.serve. Owns the sockets and the log; what the daemon consists of is daemon.wiring's.
"""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.config.load import NO_OVERRIDES, Overrides
from understudy.config.schema import Settings
from understudy.daemon.wiring import Daemon
from understudy.dataplane.listener import bind
from understudy.telemetry import logs


async def run(settings: Settings, *, source: Path | None, env: Mapping[str, str], overrides: Overrides = NO_OVERRIDES) -> int:
    """Run the daemon until a signal stops it. Returns 0; raises OSError when an address cannot be had."""
    public: list[socket.socket] = []
    admin: socket.socket | None = None
    log: logs.Log | None = None
    try:
        public += [_bind(address.host, address.port, address.path) for address in settings.listen]
        admin = _bind(settings.admin.listen.host, settings.admin.listen.port, settings.admin.listen.path)
        log = logs.configure(settings.log.format, settings.log.level)
        log.adopt_libraries()
        daemon = Daemon(settings, source, env, overrides, log)
        asyncio.get_running_loop().set_exception_handler(_Reporter(log).report)
        await daemon.serve(public, admin)
    finally:
        for sock in (*public, *([admin] if admin else [])):
            sock.close()
        if log is not None:
            log.close()
    return 0


def _bind(host: str, port: int, path: str) -> socket.socket:
    try:
        return bind(host, port, path)
    except OSError as error:
        where = f"unix:{path}" if path else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


class _Reporter:
    """Writes what the event loop could not hand to anybody: our own mistakes outside of an exchange."""

    def __init__(self, log: logs.Log) -> None:
        self._log = log

    def report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Write one event with the traceback."""
        said, error = context.get("message", ""), context.get("exception")
        self._log.error("library.complained", library="asyncio", said=said, exc_info=error)
