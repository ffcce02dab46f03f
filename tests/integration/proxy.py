"""A TCP proxy for tests: it can hold bytes back, cut connections, and stay silent with both sides open."""
import socket
import threading


class Proxy:
    """Listens on a port of the loopback and forwards to (host, port). While it is held, no byte passes in either
    direction and new connections wait; cut() closes what there is."""

    host = '127.0.0.1'

    def __init__(self, server):
        self.target = (server.host, server.port)
        self.key = server.key
        self.kind = server.kind
        self._links = set()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._closing = False
        self.cuts = 0
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                self._open.wait()
                far = socket.create_connection(self.target)
            except OSError:
                if self._closing:
                    return
                near.close()
                continue
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._links.add((near, far))
            for here, there in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(here, there, (near, far)), daemon=True).start()

    def _pump(self, here, there, link):
        try:
            while True:
                data = here.recv(1 << 16)
                self._open.wait()
                if not data:
                    break
                there.sendall(data)
        except OSError:
            pass
        self._end(link)

    def _end(self, link, how=socket.SHUT_RDWR):
        with self._lock:
            if link not in self._links:
                return
            self._links.discard(link)
        for sock in link:
            try:
                sock.shutdown(how)
            except OSError:
                pass
            sock.close()

    def connections(self):
        with self._lock:
            return len(self._links)

    def cut(self):
        """Both sides of every connection see it end."""
        with self._lock:
            links = list(self._links)
        self.cuts += len(links)
        for link in links:
            self._end(link)

    def hold(self):
        """From now on nothing passes: each side believes that the other is there."""
        self._open.clear()

    def let_go(self):
        self._open.set()

    def close(self):
        self._closing = True
        self._open.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._accepter.join(10)
        self.cut()
