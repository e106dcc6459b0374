"""Who may call the service: where it listens, and the token."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from distmeta.errors import ConfigError

TOKEN = "DISTMETA_SERVE_TOKEN"
SHORTEST = 16  # characters of a token
NAMES = ("localhost", "127.0.0.1", "::1")
MADE = "give --token-file FILE, which is made if it is not there"


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can call this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_token(host: str, file: Path | None, note: Callable[[str], None]) -> str | None:
    """The token that requests must have, from a file or from the environment; a file that is missing is made.

    None: they need none, which only a loopback host may have.

    Raises:
        ConfigError: the token cannot be used, or there is none and others could call the service.
    """
    if file is not None:
        return _from_file(file, note)
    if TOKEN in os.environ:
        return _usable(os.environ[TOKEN], f"${TOKEN}", f"set a longer one, or {MADE}")
    if not is_loopback(host):
        found = f"{host} lets other machines call the service, and there is no token"
        raise ConfigError("--host", found, f"{MADE}, or set {TOKEN}")
    return None


def _from_file(file: Path, note: Callable[[str], None]) -> str:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError("--token-file", f"{file} cannot be made ({error.strerror})", "name another file") from error
    else:
        with os.fdopen(descriptor, "w", encoding="ascii") as new:
            new.write(secrets.token_urlsafe(32) + "\n")
        note(f"a new token is in {file}")
    try:
        token = file.read_text(encoding="utf-8").strip()
        shared = file.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--token-file", f"{file} cannot be read ({error})", "name another file") from error
    if shared:
        note(f"other users of this machine may read {file}: `chmod 600` it")
    return _usable(token, str(file), f"write a longer one, or {MADE}")


def _usable(token: str, where: str, remedy: str) -> str:
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        found = f"the token has {len(token)} characters; it needs {SHORTEST} or more, ASCII and without spaces"
        raise ConfigError(where, found, remedy)
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the host is unknown, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            found = f"{host}:{port} cannot be listened at ({os.strerror(error.errno)})"
            raise ConfigError("--port", found, "give another, or 0 for any that is free") from error
        found = f"{host} is no address of this machine ({reason})"
        raise ConfigError("--host", found, "give one such as 127.0.0.1") from error
    # Connections inherit it. An answer goes out as head and body; without it, the body waits until the client confirms
    # the head, which clients put off for 40 ms. asyncio sets it only on sockets that name their protocol.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server
