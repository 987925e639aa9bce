"""A proxy in front of a broker that loses answers: what is done once then, and what again?"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from dwkernel._closing import Closing

__all__ = ["Cutter"]


class Cutter(Closing):
    """A proxy that loses answers: what was asked is done, and nobody is told.

    Attributes:
        port: where it listens, on 127.0.0.1.
        losses: so many answers get lost from now on; to be set.
        lost: how many were.
        is_mute: whether a connection that lost an answer stands on, as if a plug was pulled; else
            it ends.

    """

    def __init__(self, port: int) -> None:
        """Listen in front of a server.

        Args:
            port: the server's, on 127.0.0.1.

        """
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.losses = 0
        self.lost = 0
        self.is_mute = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _loses(self) -> bool:
        self.losses -= 1
        if self.losses < 0:
            return False
        self.lost += 1
        return True

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            asking = threading.Thread(target=_copy, args=(client, server), daemon=True)
            asking.start()
            try:
                while answer := server.recv(1 << 20):
                    if not self._loses():
                        client.sendall(answer)
                    elif not self.is_mute:
                        break
            finally:
                # Closing alone does not end what another thread reads.
                _end(client)
                _end(server)

    def close(self) -> None:
        """Listen no more."""
        _end(self._listener)
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 20):
            target.sendall(data)
    _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
