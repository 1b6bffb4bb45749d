"""Posts N bytes over HTTP/3 and says whether the same came back: PORT AUTHORITY PATH N."""

import asyncio
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.headers, self.body, self.done = {}, b"", asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        for item in self.http.handle_event(event):
            if isinstance(item, HeadersReceived):
                self.headers = {name.decode(): value.decode() for name, value in item.headers}
            if isinstance(item, DataReceived):
                self.body += item.data
            if item.stream_ended and not self.done.done():
                self.done.set_result(None)

    async def post(self, authority, path, body):
        stream = self._quic.get_next_available_stream_id()
        head = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", authority.encode()), (b":path", path.encode())]
        self.http.send_headers(stream, head)
        self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self.done, 20)


async def main(port, authority, path, size):
    body = bytes(n % 251 for n in range(size))
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE, server_name=authority)
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        await client.post(authority, path, body)
        same = "equal" if client.body == body else "different"
        head = client.headers
        print(head[":status"], head.get("x-method"), head.get("x-url"), len(client.body), same)


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
