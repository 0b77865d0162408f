"""The database of a study, such that many processes can share it."""

import contextlib
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy

from errors import UserError

# A trial whose process has given no sign for so long is taken over.
HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Opens a database, which is made where SQLite's file is not there."""
    sqlite = url.startswith('sqlite')
    # In local time all heartbeats look old when summer begins.
    arguments: dict[str, Any] = {'options': '-c timezone=utc'} if 'postgres' in url else {}
    arguments = {'timeout': 60} if sqlite else arguments
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            engine_kwargs={'connect_args': arguments, 'pool_pre_ping': not sqlite},
        )
    if sqlite:
        _serialize(storage.engine)
    return storage


def _serialize(engine: sqlalchemy.Engine) -> None:
    """Makes SQLite lock the file at the beginning of each transaction.

    Else two processes read that a trial waits, and both take it; and who reads before it writes
    gives up at once where another one does the same. (SQLAlchemy, "Serializable isolation /
    Savepoints / Transactional DDL", in the documentation of its SQLite dialect.)
    """

    @sqlalchemy.event.listens_for(engine, 'connect')
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # The driver shall begin nothing by itself.

    @sqlalchemy.event.listens_for(engine, 'begin')
    def begin(connection: Any) -> None:
        connection.exec_driver_sql('BEGIN IMMEDIATE')

    engine.dispose()  # Connections made before know nothing of it.


def sqlite_url(path: pathlib.Path) -> str:
    """Returns the URL of a SQLite file."""
    url = sqlalchemy.URL.create('sqlite', database=str(path)).render_as_string()
    return url.replace('{', '{{').replace('}', '}}')  # Optuna fills in what is in braces.


def shown(url: str) -> str:
    """Returns a URL without its password."""
    return sqlalchemy.engine.make_url(url).render_as_string() if url else ''


@contextlib.contextmanager
def user_errors(url: str) -> Iterator[None]:
    """Says what is wrong with a storage in a line.

    Raises:
      UserError: it cannot be opened.
    """
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserError(f'The storage cannot be opened ({reason}): check --storage.') from error
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise UserError(
            f'--storage={re.sub(":[^:@/]*@", ":***@", url)} is no database that can be opened '
            f'({error}): write postgresql://USER@HOST/DATABASE.'
        ) from error
