"""The network trial: what the hosts of a job run at the same time to try the ways between them with real sockets.

Each host listens at the master's port (on the master) and at a port out of its ephemeral range, as NCCL and gloo do,
connects to every other host at both, sends small messages to and fro, and in rounds, in which each host has one
partner, sends as fast as it can for a moment. It is sent over standard input to the job's interpreter, takes its order
and later the others' ports as lines of JSON, needs Python 3.8 and the standard library, and ends by itself at its
deadline. Only connections that open with the run's token are answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import sys
import threading
import time

TYPE_CHECKING = False  # typing is slow to import, and there is no need of it on the host
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any

    Ports = dict[str, dict[str, Any]]

BEGIN = "<<<dsdoctor-network "
PINGS = 32
CHUNK = b"\0" * (1 << 18)
ATTEMPT = 3.0  # seconds that one connection may take to open
GREETING = 256  # bytes at most
AGAIN = 0.2  # seconds between two attempts


class WrongPeerError(Exception):
    """The other end is not who it should be."""


class Trial:
    """One host's part."""

    def __init__(self, config: dict[str, Any], lines: IO[bytes]) -> None:
        self.lines = lines
        self.me = config["me"]
        self.order = config["order"]
        self.addresses = config["addresses"]
        self.master = config["master"]
        self.master_port = config["master_port"]
        self.token = config["token"]
        self.begun = time.monotonic()
        self.deadline = self.begun + config["seconds"]
        self.moment = config["moment"]  # seconds of sending at full speed, each way
        self.peers = [name for name in self.order if name != self.me]
        self.results: dict[str, dict[str, Any]] = {
            name: {"peer": name, "address": self.addresses[name], "ports": []} for name in self.peers
        }
        self.callers: set[str] = set()  # peers that have connected to this host
        self.left: set[str] = set()  # peers that have said that they are done
        self.finished = threading.Event()  # this host has tried and measured all
        self.round = 0
        self.changed = threading.Condition()
        self.ports: dict[str, int] = {}
        self.problems: list[str] = []

    def run(self) -> dict[str, Any]:
        """Listen, say where, wait for the others' ports, try everything; the answer."""
        servers = [self.listen(0)]
        self.ports["ephemeral"] = servers[0].getsockname()[1]
        if self.me == self.master and self.master_port:
            try:
                servers.append(self.listen(self.master_port))
            except OSError as error:
                self.problems.append(f"port {self.master_port} cannot be listened on: {reason(error)}")
        for server in servers:
            start(self.serve, server)
        self.tell({"ports": self.ports, "problems": self.problems})
        theirs = json.loads(self.lines.readline() or "null")
        if theirs is None:  # the head is gone
            return {}
        self.work(theirs)
        return {"results": list(self.results.values()), "seconds": time.monotonic() - self.begun}

    def tell(self, value: object) -> None:
        """Print a value for the head."""
        sys.stdout.write(f"\n{BEGIN}{json.dumps(value)}\n")
        sys.stdout.flush()

    def listen(self, port: int) -> socket.socket:
        """Listen at this host's address; port 0 lets the kernel choose one of its ephemeral range."""
        own = self.addresses[self.me]
        server = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((own, port))
        server.listen(256)
        return server

    # --- what others ask of this host

    def serve(self, server: socket.socket) -> None:
        """Answer everybody who connects, each in a thread."""
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            start(self.answer, connection)

    def answer(self, connection: socket.socket) -> None:
        """Do what a peer wishes: send its messages back, take or send as fast as it goes, note that it is done."""
        try:
            connection.settimeout(max(1.0, self.deadline - time.monotonic()))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            words = line_of(connection).split()
            if len(words) < 3 or words[0] != self.token or words[1] not in self.results:
                return
            connection.sendall(f"{self.token} {self.me}\n".encode())
            peer, wish = words[1], words[2]
            with self.changed:
                self.callers.add(peer)
            if wish == "end":
                self.part(connection, peer)
            elif wish == "ping":
                while True:
                    message = connection.recv(64)
                    if not message:
                        return
                    connection.sendall(message)
            elif wish in ("send", "receive") and len(words) == 4:
                self.wait_for_round(int(words[3]))
                connection.sendall(b"now\n")
                if wish == "send":
                    count, seconds = receive(connection)
                    connection.sendall(f"{count} {seconds:.6f}\n".encode())
                else:
                    send(connection, self.moment)
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def wait_for_round(self, number: int) -> None:
        """Hold a partner back who is a round ahead."""
        limit = time.monotonic() + 4 * self.moment + ATTEMPT
        with self.changed:
            while self.round < number and time.monotonic() < min(limit, self.deadline):
                self.changed.wait(0.1)

    # --- what this host asks of others

    def work(self, ports: Ports) -> None:
        """Try all ways, then measure, then wait until nobody needs this host any more."""
        threads: list[threading.Thread] = []
        for peer in self.peers:
            if peer not in ports:
                self.results[peer]["error"] = "it was not ready in time"
                continue
            wanted = [("ephemeral", ports[peer]["ephemeral"])]
            if peer == self.master and self.master_port and not ports[peer].get("busy"):
                wanted.append(("master", self.master_port))
            threads.extend(start(self.try_port, peer, kind, port) for kind, port in wanted)
        for thread in threads:
            thread.join(max(0.0, self.deadline - time.monotonic()))
        self.rounds(ports)
        self.finished.set()
        for peer in self.reached(ports):
            start(self.leave, peer, ports[peer]["ephemeral"])
        with self.changed:
            while not self.callers.union(self.reached(ports)) <= self.left and time.monotonic() < self.deadline:
                self.changed.wait(0.1)

    def leave(self, peer: str, port: int) -> None:
        """Part from a peer, over a connection that this host opens."""
        with contextlib.suppress(OSError, ValueError, WrongPeerError), self.open(peer, port, "end") as connection:
            connection.settimeout(max(1.0, self.deadline - time.monotonic()))
            self.part(connection, peer)

    def part(self, connection: socket.socket, peer: str) -> None:
        """Tell a peer that this host needs it no more, once that is so, and wait to hear the same.

        Where a firewall lets connections pass one way only, the one that was opened carries both words.
        """
        self.finished.wait(max(0.0, self.deadline - time.monotonic()))
        connection.sendall(b"done\n")
        line_of(connection)
        with self.changed:
            self.left.add(peer)
            self.changed.notify_all()

    def reached(self, ports: Ports) -> list[str]:
        """The peers whose ephemeral port answered."""
        return [
            peer
            for peer in self.peers
            if peer in ports
            and any(port["kind"] == "ephemeral" and port["error"] is None for port in self.results[peer]["ports"])
        ]

    def try_port(self, peer: str, kind: str, port: int) -> None:
        """Connect to a peer and send messages to and fro; the outcome goes into the results."""
        begun, attempts = time.monotonic(), 2  # a lost packet is no firewall
        result: dict[str, Any] = {"kind": kind, "port": port, "error": None, "round_trip_ms": None}
        while True:
            try:
                connection = self.open(peer, port, "ping")
            except (OSError, ValueError, WrongPeerError) as error:
                result["error"] = reason(error)
                attempts -= 1
                if attempts and time.monotonic() < self.deadline:
                    time.sleep(AGAIN)
                    continue
            else:
                result["error"] = None
                self.ping(connection, result)
            break
        result["seconds"] = round(time.monotonic() - begun, 3)
        self.results[peer]["ports"].append(result)

    def open(self, peer: str, port: int, wish: str) -> socket.socket:
        """A connection to a peer from this host's address, both ends known to each other."""
        address = self.addresses[peer]
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.settimeout(ATTEMPT)
            connection.bind((self.addresses[self.me], 0))
            connection.connect((address, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(f"{self.token} {self.me} {wish}\n".encode())
            words = line_of(connection).split()
            if words != [self.token, peer]:
                who = words[1] if len(words) == 2 and words[0] == self.token else "another program"
                raise WrongPeerError(f"{who} answers at this address")
        except BaseException:
            connection.close()
            raise
        return connection

    def ping(self, connection: socket.socket, result: dict[str, Any]) -> None:
        """Measure the time of small messages to and fro."""
        times = []
        try:
            for _ in range(PINGS):
                begun = time.perf_counter()
                connection.sendall(b"x" * 64)
                count = 0
                while count < 64:
                    count += len(connection.recv(64)) or 64
                times.append(time.perf_counter() - begun)
        except OSError as error:
            result["error"] = reason(error)
            return
        finally:
            connection.close()
        result["round_trip_ms"] = round(statistics.median(times) * 1000, 4)

    def rounds(self, ports: Ports) -> None:
        """Each round pairs all hosts; the lower one of a pair sends, then receives."""
        reached = set(self.reached(ports))
        for number, pairs in enumerate(tournament(self.order), 1):
            with self.changed:
                self.round = number
                self.changed.notify_all()
            if time.monotonic() + 4 * self.moment > self.deadline - 1:
                return
            peer = pairs.get(self.me)
            if peer is None or peer not in reached or self.order.index(self.me) > self.order.index(peer):
                continue
            try:
                self.results[peer]["send_mbit"] = self.speed(peer, ports[peer]["ephemeral"], "send", number)
                self.results[peer]["receive_mbit"] = self.speed(peer, ports[peer]["ephemeral"], "receive", number)
            except (OSError, ValueError, WrongPeerError) as error:
                self.results[peer]["speed_error"] = reason(error)

    def speed(self, peer: str, port: int, way: str, number: int) -> float:
        """How fast data goes one way, in Mbit/s."""
        connection = self.open(peer, port, f"{way} {number}")
        try:
            connection.settimeout(4 * self.moment + 2 * ATTEMPT)
            if line_of(connection) != "now":
                raise ValueError("it did not answer")
            if way == "send":
                send(connection, self.moment)
                told = line_of(connection).split()
                count, seconds = int(told[0]), float(told[1])
            else:
                count, seconds = receive(connection)
        finally:
            connection.close()
        return round(count * 8 / max(seconds, 1e-6) / 1e6, 1)


def send(connection: socket.socket, seconds: float) -> None:
    """Send as fast as it goes for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(CHUNK)
    connection.shutdown(socket.SHUT_WR)


def receive(connection: socket.socket) -> tuple[int, float]:
    """Bytes until the other end has sent all, and the seconds from the first to the last of them."""
    space = bytearray(1 << 18)
    count, begun = 0, time.perf_counter()
    while True:
        got = connection.recv_into(space)
        if not got:
            return count, time.perf_counter() - begun
        begun = begun if count else time.perf_counter()
        count += got


def line_of(connection: socket.socket) -> str:
    """A short line, byte by byte: what follows it is not ours to read."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > GREETING:
            raise ValueError("it closed the connection" if not byte else "another program answers at this address")
        line += byte
    return line.decode("ascii", "replace").strip()


def tournament(order: list[str]) -> Iterator[dict[str, str]]:
    """Rounds in which every two hosts meet once (the circle method): for each round, who meets whom."""
    nobody = ""  # whom one host meets in each round where they are an odd number
    names = order + [nobody] * (len(order) % 2)
    for _ in range(len(names) - 1):
        pairs = {}
        for place in range(len(names) // 2):
            one, other = names[place], names[-1 - place]
            if nobody not in (one, other):
                pairs[one], pairs[other] = other, one
        yield pairs
        names.insert(1, names.pop())


def start(function: Callable[..., None], *arguments: object) -> threading.Thread:
    """Run a function in a thread that does not keep the program alive."""
    thread = threading.Thread(target=function, args=arguments)
    thread.daemon = True
    thread.start()
    return thread


def reason(error: Exception) -> str:
    """An error in the words of the system."""
    if isinstance(error, socket.timeout):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def main() -> None:
    """Take the order from standard input and carry it out."""
    lines = sys.stdin.buffer
    config = json.loads(lines.readline())
    # Whatever hangs: this host is rid of us soon after the deadline, or as soon as the head is gone.
    watchdog = threading.Timer(config["seconds"] + 5, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    trial = Trial(config, lines)
    try:
        answer = trial.run()
    except OSError as error:
        answer = {"error": reason(error)}
    trial.tell(answer)


if __name__ == "__main__":
    main()
