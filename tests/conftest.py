from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What a user's cache would hold is of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def edit_source():
    """`edit_source(file, old, new)`: edit a source of ours in memory, for as long as the test is.

    What the process keeps of sources is forgotten, and again at the end.
    """
    from ablations import identity, source_facts
    from mm1_jax import workload

    root, read = Path(__file__).parent.parent, source_facts.source_text
    edited: dict[Path, str] = {}

    def forget() -> None:
        for kept in (identity.code_parts, source_facts.source_facts, workload._code):
            kept.cache_clear()

    def edit(file: str, old: str, new: str) -> None:
        source = source_facts.source_text(root / file)
        assert old in source, f"{file} has no {old!r}"
        edited[root / file] = source.replace(old, new, 1)
        forget()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_facts, "source_text", lambda path: edited.get(path) or read(path))
        yield edit
    forget()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Prepared data of the default `DataConfig`; any mixture and packing reads it.

    Kept in a fixed folder: preparing is idempotent, and other code has another fingerprint.
    """
    from mm1_jax.config.data import DataConfig
    from mm1_jax.data.sources.package_preparation import prepare

    root = Path(tempfile.gettempdir()) / f"mm1-test-data-{os.getuid()}"
    prepare(DataConfig(), root)
    return root


@pytest.fixture(scope="session")
def in_context_data(data_root):
    """(Config, root) of prepared data for all tasks that are learnt in context."""
    from mm1_jax.config.data import DataConfig
    from mm1_jax.config.embedded_sources import EmbeddedConfig
    from mm1_jax.data.sources.package_preparation import prepare

    config = DataConfig(
        text_tokens=96,
        images=9,
        embedded=EmbeddedConfig.model_validate(
            {
                "drawings": {"styles": ["twemoji", "openmoji"]},
                "language_documents": {"languages": ["de", "en"]},
                "binding_documents": {"ways": [2]},
                "glossary_documents": {"languages": ["de", "en", "es", "fr"]},
            }
        ),
    )
    prepare(config, data_root)
    return config, data_root


@pytest.fixture(scope="session")
def raw_captions(tmp_path_factory) -> Path:
    """80 captioned pictures in two tars."""
    import own_data

    return own_data.write_captions(tmp_path_factory.mktemp("raw") / "captions")


@pytest.fixture(scope="session")
def own_captions(tmp_path_factory, raw_captions, data_root) -> Path:
    """The same, prepared, in 8 shards."""
    import own_data

    from mm1_jax.data.own import shard_preparation

    folder = tmp_path_factory.mktemp("prepared") / "captions"
    with pytest.MonkeyPatch.context() as patch:
        # Shards are counted in megabytes; ten pictures are a few kilobytes.
        patch.setattr(shard_preparation, "MEGABYTE", 18_000)
        shard_preparation.prepare_own(
            own_data.spec("captions", raw_captions), str(folder), data_root
        )
    return folder


@pytest.fixture(scope="session")
def own_texts(tmp_path_factory, data_root) -> Path:
    """60 prepared texts, in 6 shards."""
    import own_data

    from mm1_jax.data.own import shard_preparation

    folder = tmp_path_factory.mktemp("texts")
    raw = own_data.write_texts(folder / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_preparation, "MEGABYTE", 1_200)
        shard_preparation.prepare_own(own_data.spec("text", raw), str(folder / "out"), data_root)
    return folder / "out"


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, command, *, columns=100, rows=30, cwd=None, env=None):
        import pyte

        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        self._size(columns, rows)
        environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            if name not in (env or {}):
                environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.bytes = b""  # all that was ever written
        self.frames: list[str] = []  # the screen after each piece of output

    def _size(self, columns, rows):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        self._size(columns, rows)
        os.kill(self.process.pid, signal.SIGWINCH)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def press(self, keys):
        """Type keys."""
        os.write(self._master, keys.encode())

    def read(self):
        """Take in a piece of output; False at the end of the program."""
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            piece = b""
        if not piece:
            return False
        self.bytes += piece
        self._stream.feed(piece)
        self.frames.append(self.text)
        return True

    def finish(self):
        """Read to the end; the exit code."""
        while self.read():
            pass
        return self.process.wait()

    def close(self):
        os.close(self._master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal():
    """Start a program in a pseudo-terminal: `Terminal`'s arguments."""
    opened = []

    def start(command, **options):
        opened.append(Terminal(command, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
