"""Processes meet before JAX connects them, because JAX ends a process that waits in vain, after minutes and in C++.

Process 0 listens at the address of the coordinator until every other process has sent its number; then all know that
all are there, and JAX takes the same address.
"""

import contextlib
import json
import socket
import time

from experiments.base.errors import NetworkError, UsageError

LONGEST_NAME = 253
_HELLO_BYTES = 200
_PAUSE = 0.2


def meet(address: str, process: int, processes: int, seconds: float) -> None:
    """Wait until all processes are there.

    Raises:
        UsageError: the address is none, or the processes do not agree about their number.
        NetworkError: not all have come in time.
    """
    host, _, number = address.rpartition(":")
    port = int(number) if number.isascii() and number.isdecimal() and len(number) <= 5 else 0
    if not 0 < port < 65536 or not 0 < len(host) <= LONGEST_NAME:
        raise UsageError(f"--devices.coordinator {address} is not HOST:PORT with a port from 1 to 65535.")
    end = time.monotonic() + seconds
    if process == 0:
        _receive(address, port, processes, end)
    else:
        _announce(address, (host.strip("[]"), port), process, processes, end)


def _receive(address: str, port: int, processes: int, end: float) -> None:
    """Be found by all other processes."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with contextlib.ExitStack() as held:
        try:
            listener = held.enter_context(socket.create_server(("", port), family=family, dualstack_ipv6=both))
        except OSError as error:
            raise UsageError(
                f"--devices.coordinator {address}: no process can listen there ({error.strerror})."
            ) from None
        present: dict[int, socket.socket] = {}
        while len(present) < processes - 1:
            listener.settimeout(max(end - time.monotonic(), 0.01))
            try:
                visitor, _ = listener.accept()
            except TimeoutError:
                raise NetworkError(
                    f"{len(present) + 1} of {processes} processes came to {address} in time: start the others, or give "
                    f"them longer with --devices.wait."
                ) from None
            held.enter_context(visitor)
            hello = _hello(visitor, end)
            if hello is None:  # not a process of this run
                continue
            other, count = hello
            if count != processes or not 0 < other < processes or other in present:
                raise UsageError(
                    f"a process came as --devices.process {other} of {count}, expected each of {processes} once."
                )
            present[other] = visitor
        for visitor in present.values():
            with contextlib.suppress(OSError):
                visitor.sendall(b"all")


def _hello(visitor: socket.socket, end: float) -> tuple[int, int] | None:
    """Return the number that a process says and of how many; None for what is no process of ours."""
    visitor.settimeout(min(max(end - time.monotonic(), 0.01), 5.0))
    try:
        line = visitor.makefile("rb").readline(_HELLO_BYTES)
        process, processes = json.loads(line)["lnpool"]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return (process, processes) if type(process) is type(processes) is int else None


def _announce(address: str, place: tuple[str, int], process: int, processes: int, end: float) -> None:
    """Say to process 0 that this one is there, and wait until it has heard all."""
    reason = "not all processes came"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=left) as connection:
                connection.sendall(json.dumps({"lnpool": [process, processes]}).encode() + b"\n")
                connection.settimeout(max(end - time.monotonic(), 0.01))
                if connection.recv(3) == b"all":
                    return
                reason = "process 0 has hung up"
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or reason
        time.sleep(min(_PAUSE, max(end - time.monotonic(), 0)))
    raise NetworkError(f"the processes did not meet at {address} in time ({reason}): see --devices.wait.")
