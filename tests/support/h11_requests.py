"""Requests as another parser reads them, to compare with ours."""

from __future__ import annotations

import h11


def by_h11(data: bytes, most: int = 1 << 20) -> list[list[bytes]] | None:
    """Method, target and body of each request, the last one maybe incomplete; None when h11 refuses.

    ``most``: bytes of a head.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=most)
    found: list[list[bytes]] = []
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                found.append([event.method, event.target, b""])
            elif isinstance(event, h11.Data):
                found[-1][2] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError:
        return None
