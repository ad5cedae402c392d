"""Work out whom `understudy compare` asks: the daemon for one of its colors, a backend of the file, or any server at a URL.

Called by cli.compare before anything is sent. Asks the running daemon where its public port is; reads the file where a backend is
named. Never prints a key.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.cli.admin_call import call
from understudy.core.color import NO_PROMPT, Color, Prompt

KEY_VARIABLE = "UNDERSTUDY_KEY"
KEY_VARIABLES = {Color.BLUE: "UNDERSTUDY_BLUE_KEY", Color.GREEN: "UNDERSTUDY_GREEN_KEY"}
JUDGE_KEY_VARIABLE = "UNDERSTUDY_JUDGE_KEY"
COLOR_HEADER = "X-Understudy-Color"
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104  what the daemon may listen on is recognised, nothing is bound


class CannotCompareError(Exception):
    """It cannot be done; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are asked.

    `url` has no slash at its end; `socket` is the path of a unix socket, "" none. `asked_color` is asked for and must have
    answered, NONE: nobody is asked for a color. `models` are (what the prompts call a model, what it is called there); `model`,
    when not "", is the one to ask for whatever the prompts say. `listed` are the models that it is known to have, None unknown.
    """

    title: str
    url: str
    socket: str = ""
    key: bytes = field(default=b"", repr=False)
    asked_color: Color = Color.NONE
    models: tuple[tuple[str, str], ...] = ()
    model: str = ""
    prompt: Prompt = NO_PROMPT
    listed: tuple[str, ...] | None = None


def sides_of(args: argparse.Namespace) -> tuple[Side, Side]:
    """Return blue and green as the command line says. Raises CannotCompareError, admin_call.CallError, ConfigError."""
    door = _Door(args)
    door.refuse_without_color(*(color for color, who in ((Color.BLUE, args.blue), (Color.GREEN, args.green)) if not who))
    given = ((Color.BLUE, args.blue, args.blue_model), (Color.GREEN, args.green, args.green_model))
    blue, green = (_side(color, who or "", model or "", args, door) for color, who, model in given)
    return blue, green


def judge_of(args: argparse.Namespace) -> Side:
    """Return whom the judge is asked through. Raises as `sides_of` does."""
    if args.judge_url:
        return Side("the judge", _url(args.judge_url, "--judge-url"), key=_key(JUDGE_KEY_VARIABLE), model=args.judge)
    url, socket = _Door(args).place()
    return Side("the judge", url, socket, key=_key(KEY_VARIABLE), model=args.judge)


def judge_warning(args: argparse.Namespace) -> str:
    """Return in one line what may bend the word of a judge behind the daemon: a prompt of its own there; "" none that is known.

    The prompts stand in the file alone: `-c FILE`, or the one that a daemon on this machine says it has read. One that cannot be
    read here, as its secrets may be the daemon's alone, leaves nothing to warn of.
    """
    from understudy.config.compile import compile_plan
    from understudy.config.load import load_file
    from understudy.errors import ConfigError

    if args.judge_url:
        return ""
    path: Path | None = args.config or _Door(args).file()
    try:
        plan = compile_plan(load_file(path, os.environ)) if path is not None else None
    except (ConfigError, OSError):
        plan = None
    if plan is None:
        return ""
    owners = [str(color) for color in KEY_VARIABLES if not plan.rollout.prompt_of(color).is_empty]
    owners += [backend.name for backend in plan.backends if not backend.prompt.is_empty]
    if not owners:
        return ""
    have = "has a prompt of its own" if len(owners) == 1 else "have prompts of their own"
    return f"the judge is asked behind the daemon, where {', '.join(owners)} {have}; --judge-url with an engine is better"


class _Door:
    """The daemon's public port; asked for once, when it is needed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._status: dict[str, Any] | None = None

    def status(self) -> dict[str, Any]:
        """Return what the daemon says of itself; {} where `--url` leaves nothing to ask. Raises CallError."""
        if self._status is None:
            self._status = {} if self._args.url else call(self._args.admin, "GET", "/api/status").value
        return self._status

    def file(self) -> Path | None:
        """Return the file that a daemon on this machine has read, None where there is none to be known."""
        told = self.status().get("file")
        return Path(told) if isinstance(told, str) and self._is_here() else None

    def refuse_without_color(self, *colors: Color) -> None:
        """Raise CannotCompareError where the daemon says that one of `colors` cannot answer."""
        if not colors or not self.status():
            return
        if "rollout" in self.status() and self.status()["rollout"] is None:
            raise CannotCompareError("no backend has a color; set backends[].color, or say whom to ask with --blue and --green")
        for color in colors:
            backends = _backends_of(self.status(), color)
            if not any(_may_serve(backend) for backend in backends):
                found = ", ".join(f"{backend.get('name')} {_standing(backend)}" for backend in backends) or "it has none"
                raise CannotCompareError(f"{color} has no backend that is up ({found}); want one, or --{color} URL")

    def place(self) -> tuple[str, str]:
        """Return the URL, and the path of a unix socket or ""."""
        if self._args.url:
            return _url(self._args.url, "--url"), ""
        listen = self.status().get("listen")
        addresses = [str(each) for each in listen] if isinstance(listen, list) else []
        if not addresses:
            raise CannotCompareError(f"the daemon at {self._args.admin} does not say where it listens; say it with --url")
        # A port can be asked from wherever the admin port can be, a socket cannot.
        address = next((each for each in addresses if not each.startswith("unix:")), addresses[0])
        if address.startswith("unix:"):
            return "http://localhost", address.removeprefix("unix:")
        host, _, port = address.rpartition(":")
        return f"http://{self._reached(host, address)}:{port}", ""

    def _reached(self, host: str, address: str) -> str:
        """Return the host by which an address of the daemon's machine is reached from this one."""
        from urllib.parse import urlsplit

        asked = urlsplit(self._args.admin).hostname or _LOOPBACK
        is_here = self._is_here()
        if host in _EVERYWHERE:
            return _LOOPBACK if is_here else f"[{asked}]" if ":" in asked else asked
        if not is_here and (host in ("localhost", "[::1]") or host.startswith("127.")):
            raise CannotCompareError(
                f"the daemon at {self._args.admin} listens on {address} of its own machine alone; say how to reach it with --url"
            )
        return host

    def _is_here(self) -> bool:
        """Whether the admin port is one of this machine; a unix socket's URL has no host."""
        from urllib.parse import urlsplit

        asked = urlsplit(self._args.admin).hostname or _LOOPBACK
        return asked in ("localhost", "::1") or asked.startswith("127.")


def _side(color: Color, who: str, model: str, args: argparse.Namespace, door: _Door) -> Side:
    if not who:
        url, socket = door.place()
        return Side(
            f"the daemon at {f'unix:{socket}' if socket else url}",
            url,
            socket,
            key=_key(KEY_VARIABLE),
            asked_color=color,
            model=model,
            listed=_listed(door.status(), color),
        )
    if "://" in who:
        url = _url(who, f"--{color}")
        return Side(url, url, key=_key(KEY_VARIABLES[color]), model=model)
    return _backend_side(color, who, model, args)


def _listed(status: dict[str, Any], color: Color) -> tuple[str, ...] | None:
    """Return the models of a color's backends by the clients' names; None where one of them does not tell its own."""
    backends = _backends_of(status, color)
    found: dict[str, None] = {}
    for backend in backends:
        if not isinstance(backend.get("models"), list):
            return None
        found.update(dict.fromkeys(map(str, backend["models"])))
    return tuple(found) if backends else None


def _backends_of(status: dict[str, Any], color: Color) -> list[dict[str, Any]]:
    """Return the backends that serve a color."""
    backends = [each for each in status.get("backends") or () if isinstance(each, dict)]
    return [each for each in backends if each.get("color") in (str(color), str(Color.NONE))]


def _may_serve(backend: dict[str, Any]) -> bool:
    # One that has not been probed yet will be when it is asked.
    return backend.get("condition") != "down" and backend.get("duty", "ready") == "ready"


def _standing(backend: dict[str, Any]) -> str:
    """Say why a backend serves nobody."""
    duty = backend.get("duty", "ready")
    if duty != "ready":
        return {"draining": "is draining", "maintenance": "is in maintenance"}.get(str(duty), f"is {duty}")
    reason = str(backend.get("reason") or "")
    return f"is down: {reason}" if reason else "is down"


def _backend_side(color: Color, name: str, model: str, args: argparse.Namespace) -> Side:
    """Return a backend of the file. One that serves both colors has the prompt of the color that it stands for here."""
    from understudy.config.addresses import write_url
    from understudy.config.compile import compile_plan
    from understudy.config.load import DEFAULT_PATHS, find_file, load_file

    if any(mark in name for mark in ".:/["):
        # No backend has such a name, and every address has one of these.
        raise CannotCompareError(f"--{color}: found {name}; want a URL such as http://{name}, or the name of a backend")
    path: Path | None = args.config or find_file()
    if path is None:
        places = " or ".join(map(str, DEFAULT_PATHS))
        raise CannotCompareError(f"--{color} {name}: found no file ({places}); want -c FILE that has this backend, or a URL")
    plan = compile_plan(load_file(path, os.environ))
    backend = next((each for each in plan.backends if each.name == name), None)
    if backend is None:
        names = ", ".join(each.name for each in plan.backends)
        raise CannotCompareError(f"--{color} {name}: found no backend of this name in {path}; want one of {names}, or a URL")
    own = backend.color if backend.color is not Color.NONE else color
    url = write_url(backend.address)
    return Side(
        f"{name} at {url}",
        url,
        key=os.fsencode(backend.api_key),
        models=backend.models,
        model=model,
        prompt=plan.rollout.prompt_of(own).under(backend.prompt),
    )


def _url(text: str, option: str) -> str:
    """Read a URL; one that ends with /v1, as clients' base URLs do, is the same without."""
    from understudy.config.addresses import read_url, write_url
    from understudy.config.quantities import Unreadable

    try:
        return write_url(read_url(text)).removesuffix("/v1")
    except Unreadable as error:
        raise CannotCompareError(f"{option}: found {error.found or ascii(text)}; want {error.want}") from error


def _key(variable: str) -> bytes:
    key = os.environ.get(variable, "").strip()
    if any(character < " " or character == "\x7f" for character in key):
        raise CannotCompareError(f"{variable}: found a line break or another control character in it; want the key alone")
    return os.fsencode(key)
