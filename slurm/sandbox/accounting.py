"""Accounting for the sandbox: its own MariaDB and slurmdbd, so that `sacct` works."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable

from pokevla.errors import ClusterError
from slurm.sandbox.configuration import SandboxConfig, slurmdbd_conf

ACCOUNT = "robots"
"""The account of the user who runs the sandbox, and the only one."""
_SETUP_TIMEOUT_S = 300.0


def start_accounting(
    config: SandboxConfig, start: Callable[[str, list[str]], None], wait_for: Callable[[str, Callable[[], bool]], None]
) -> None:
    """Create a database and start slurmdbd on it. `start` starts a daemon, `wait_for` waits for a condition.

    Raises:
        ClusterError: the database cannot be created, or a daemon does not start.
    """
    folder, password = config.folder, secrets.token_hex(16)
    conf = folder / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(slurmdbd_conf(config, password), encoding="utf-8")
    data, database_socket = folder / "database", folder / "database.socket"
    if not data.is_dir():
        _run("mariadb-install-db", f"--datadir={data}", f"--user={config.user}",
             "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
    start("mariadbd", ["mariadbd", "--no-defaults", f"--user={config.user}", f"--datadir={data}",
                       f"--socket={database_socket}", f"--port={config.database_port}", "--bind-address=127.0.0.1",
                       f"--pid-file={folder}/mariadbd.pid", "--innodb-buffer-pool-size=64M",
                       "--innodb-lock-wait-timeout=900", "--skip-name-resolve"])  # fmt: skip
    client = ["mariadb", "--no-defaults", "--user=root", f"--socket={database_socket}"]
    wait_for("the database to answer", lambda: _succeeds(*client, "--execute=select 1"))
    _run(*client, "--execute=create database if not exists slurm_acct_db; "
         f"create or replace user 'slurm'@'127.0.0.1' identified by '{password}'; "
         "grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1'")  # fmt: skip
    start("slurmdbd", ["slurmdbd", "-D"])
    wait_for("slurmdbd to answer", lambda: _succeeds("sacctmgr", "--noheader", "show", "cluster", conf=config))
    for words in (("cluster", "sandbox"), ("account", ACCOUNT), ("user", config.user, f"account={ACCOUNT}")):
        _run("sacctmgr", "--immediate", "add", *words, conf=config)


def _environment(conf: SandboxConfig | None) -> dict[str, str]:
    return {**os.environ, **({"SLURM_CONF": str(conf.folder / "slurm.conf")} if conf else {})}


def _succeeds(*command: str, conf: SandboxConfig | None = None) -> bool:
    done = subprocess.run(command, env=_environment(conf), capture_output=True, timeout=_SETUP_TIMEOUT_S, check=False)
    return done.returncode == 0


def _run(*command: str, conf: SandboxConfig | None = None) -> None:
    done = subprocess.run(
        command,
        env=_environment(conf),
        capture_output=True,
        text=True,
        timeout=_SETUP_TIMEOUT_S,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise ClusterError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}")
