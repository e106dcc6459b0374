"""The address of an MLflow store, and a check that the store can be used.

Does not use MLflow: its import takes seconds, and its client retries for minutes.
"""

import base64
import http.client
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from distmeta.config.base import expand
from distmeta.errors import TrackingError
from distmeta.tracking.sqlite import check_sqlite

HEALTH_TIMEOUT_SECONDS = 5.0
SECRET_WORDS = "token|passw|pwd|secret|api_?key|access_?key|auth|credential|signature"
USABLE = "give sqlite:///FOLDER/mlflow.db or the http address of an MLflow server"


def resolve_uri(configured: str | None) -> str:
    """The store: as configured, else ``$MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    The path of an SQLite file is made absolute, so that it names the same store from every directory.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if not uri.startswith("sqlite:///") or path in ("", ":memory:"):
        return uri
    try:
        return address(Path(expand(urllib.parse.unquote(path))).absolute(), uri)
    except ValueError as error:
        key = "tracking.uri" if configured else "$MLFLOW_TRACKING_URI"
        raise TrackingError(key, f"invalid value {uri!r}", str(error)) from error


def key_of(uri: str) -> str:
    """What names a resolved store, for messages: the environment variable or the setting."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return "$MLFLOW_TRACKING_URI" if given and resolve_uri(None) == uri else "tracking.uri"


def address(path: Path, former: str = "") -> str:
    """The address of an SQLite file, with the parameters of a former address."""
    text = str(path)
    for letter in "%?#":  # in an address they mean something else
        text = text.replace(letter, urllib.parse.quote(letter))
    _, mark, query = former.partition("?")
    return f"sqlite:///{text}{mark}{query}"


def environment() -> dict[str, str]:
    """This process's environment variables with the store's address and credentials."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")}


def mask(text: str) -> str:
    """Replaces secrets: the ``user:password@`` of every address, and parameters such as ``?token=``.

    A password may hold any character. The path of an SQLite file may hold an @.
    """
    text = re.sub(r"://(?!/)(?:[^/?#\s@:]*:.*|\S*)@", "://***@", text)
    return re.sub(rf"(?i)([?&;][^\s=&;]*(?:{SECRET_WORDS})[^\s=&;]*=)[^\s&;'\"]+", r"\1***", text)


def database(uri: str) -> Path:
    """The file of an SQLite URI.

    Raises:
        TrackingError: the URI names no file.
    """
    path, _, query = uri.removeprefix("sqlite:///").partition("?")
    if not uri.startswith("sqlite:///") or path in ("", ":memory:"):
        raise TrackingError(key_of(uri), f"{mask(uri)!r} names no SQLite file", "give sqlite:///FOLDER/mlflow.db")
    if query and "=" not in query:
        raise TrackingError(key_of(uri), f"{mask(uri)!r} has a ? in its path", "write it %3F")
    return Path(urllib.parse.unquote(path))


def check_store(uri: str, experiment: str | None = None, run_id: str | None = None) -> None:
    """Checks within seconds that a resolved URI can be used; in a file, also that experiment and run were not deleted.

    Raises:
        TrackingError: the server does not answer, the file cannot be written, or the kind of store is
            not supported. The message has no credentials.
    """
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite":
        check_sqlite(database(uri), uri, key_of(uri), experiment, run_id)
    elif "://" not in uri or scheme == "file":
        raise TrackingError(key_of(uri), f"{mask(uri)!r} is a file store, which MLflow 3 refuses", USABLE)
    else:
        raise TrackingError(key_of(uri), f"the kind of store {scheme!r} is not supported", USABLE)


def _check_server(uri: str) -> None:
    def fault(found: str) -> TrackingError:
        remedy = "start it (mlflow server), or fix the address or $MLFLOW_TRACKING_USERNAME and _PASSWORD"
        return TrackingError(key_of(uri), f"{mask(uri)} {found}", remedy)

    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port  # raises ValueError if it is no number
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("@ after the host")
    except ValueError:  # its text may hold a part of the password
        found = "is no address of a server"
        # Without the sign itself: what hides passwords takes all before it for one.
        remedy = "give http://HOST:PORT, and a user and password in MLFLOW_TRACKING_USERNAME and _PASSWORD; or in them "
        remedy += "write %40 for an at sign, %2F for a slash, %3A, %3F and %23 for a ':', '?' and '#'"
        raise TrackingError(key_of(uri), f"{mask(uri)} {found}", remedy) from None
    if parts.query or parts.fragment:
        remedy = "leave out what follows the ? or #; a token is given in MLFLOW_TRACKING_TOKEN"
        raise TrackingError(key_of(uri), f"{mask(uri)} has parameters, which MLflow does not send", remedy)
    try:
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/health")
        request = urllib.request.Request(plain.geturl(), headers=_authorization(parts))
        with urllib.request.urlopen(request, timeout=HEALTH_TIMEOUT_SECONDS, context=_tls()) as answer:
            body = answer.read(100)
    except urllib.error.HTTPError as error:
        raise fault(f"answers /health with {error.code}") from None
    except (ValueError, http.client.InvalidURL):  # its text may hold the address or the header
        found = f"{mask(uri)} or its user, password or token has a character that cannot be sent"
        raise TrackingError(key_of(uri), found, "remove blanks and line breaks") from None
    except (OSError, http.client.HTTPException) as error:
        raise fault(f"does not answer ({mask(str(getattr(error, 'reason', error)))})") from None
    if body.strip() != b"OK":
        raise fault("is not an MLflow server")


def _authorization(parts: urllib.parse.SplitResult) -> dict[str, str]:
    """The header that MLflow's own client would send."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = urllib.parse.unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = urllib.parse.unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _tls() -> ssl.SSLContext:
    """Certificates as MLflow's own client would check them."""
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
