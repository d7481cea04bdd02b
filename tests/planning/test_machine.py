"""What the operating system counts."""

import socket
import sys
from contextlib import closing

import pytest

from disttgl_hpc.planning.machine import own_cores, processor, tcp_bytes_sent, versions


def test_the_machine_is_named():
    assert own_cores()
    assert processor()
    assert set(versions()) == {"python", "torch", "numpy", "mpi4py"}


@pytest.mark.skipif(sys.platform != "linux", reason="counted by Linux only")
def test_bytes_sent_through_tcp_are_counted_and_others_are_not():
    with closing(socket.create_server(("127.0.0.1", 0))) as server, closing(socket.socket()) as client:
        client.connect(server.getsockname())
        other_end, _ = server.accept()
        pair = socket.socketpair()
        with closing(other_end), closing(pair[0]), closing(pair[1]):
            before = tcp_bytes_sent()
            client.sendall(b"x" * 1000)
            other_end.sendall(b"y" * 10)
            pair[0].sendall(b"z" * 77)
            assert tcp_bytes_sent() - before == 1010
