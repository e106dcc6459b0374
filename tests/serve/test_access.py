"""Where the service listens, and its token."""

import socket
from pathlib import Path

import pytest

from distmeta.errors import ConfigError
from distmeta.serve.access import TOKEN, find_token, is_loopback, listen


def test_only_this_machine_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)
        assert find_token(host, None, pytest.fail) is None
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(ConfigError, match="and there is no token; give --token-file"):
            find_token(host, None, pytest.fail)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setenv(TOKEN, "from-the-environment")
    assert find_token("0.0.0.0", None, notes.append) == "from-the-environment"
    made = find_token("0.0.0.0", tmp_path / "token", notes.append)
    assert made is not None
    assert len(made) >= 32
    assert find_token("0.0.0.0", tmp_path / "token", notes.append) == made, "it is made once"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert notes == [f"a new token is in {tmp_path / 'token'}"]
    (tmp_path / "token").chmod(0o644)
    find_token("0.0.0.0", tmp_path / "token", notes.append)
    assert "`chmod 600` it" in notes[-1]
    assert made not in "".join(notes)


@pytest.mark.parametrize("token", ["", "short", "with a space in the middle", "ümlaut-ümlaut-ümlaut", "a" * 20 + "\0"])
def test_a_token_that_cannot_be_used(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(ConfigError, match="ASCII and without spaces") as caught:
        find_token("127.0.0.1", tmp_path / "token", print)
    assert not token or token not in str(caught.value)
    if "\0" not in token:
        monkeypatch.setenv(TOKEN, token)
        with pytest.raises(ConfigError, match="ASCII and without spaces"):
            find_token("127.0.0.1", None, print)


def test_a_token_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        find_token("127.0.0.1", tmp_path / "none" / "token", print)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_token("127.0.0.1", tmp_path, print)


def test_a_port_that_is_taken_and_a_host_that_is_unknown() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=r"cannot be listened at \(.*\); give another, or 0"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])
    for host in ("999.999.0.1.invalid", "no host", "192.0.2.1", "a" * 300):
        with pytest.raises(ConfigError, match="is no address of this machine"):
            listen(host, 0)


def test_answers_do_not_wait_for_the_client_to_confirm_their_head() -> None:
    with listen("127.0.0.1", 0) as server, socket.create_connection(server.getsockname()), server.accept()[0] as caller:
        assert caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
