"""A TCP proxy in front of a server, whose connections go wrong on demand."""

import socket
import struct
import threading
import time

from common import HOST

PIECE = 16 << 10


class Proxy:
    """Passes bytes on. `down` refuses and resets, `cut` resets each connection after so many bytes of the
    server, `stall` holds everything back."""

    def __init__(self, port: int):
        self._behind = port
        self._fault: str | None = None
        self._cut_after = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def down(self) -> None:
        self._fault = "down"
        self.reset()

    def cut(self, after: int) -> None:
        self._cut_after = after
        self._fault = "cut"

    def stall(self) -> None:
        self._fault = "stall"

    def heal(self) -> None:
        self._fault = None

    def reset(self) -> None:
        """Ends every connection that is open, as if the other side had died."""
        with self._lock:
            for one in self._open:
                _abort(one)

    def close(self) -> None:
        self._fault = "down"
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._fault == "down":
                raise OSError("down on purpose")
            server = socket.create_connection((HOST, self._behind), timeout=5)
            server.settimeout(None)
        except OSError:
            _abort(client)
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        up = threading.Thread(target=self._pump, args=(client, server, False), daemon=True)
        up.start()
        self._pump(server, client, True)
        up.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        passed = 0
        try:
            while piece := source.recv(PIECE):
                while self._fault == "stall":
                    time.sleep(0.01)
                passed += len(piece)
                if self._fault == "down" or (is_answer and self._fault == "cut" and passed > self._cut_after):
                    raise OSError("cut on purpose")
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _abort(source)
            _abort(sink)


def _abort(one: socket.socket) -> None:
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
