"""The wire between one host and the broker. Stopped (SIGSTOP), it is a network that swallows everything.

    python proxy.py PORT TARGET_PORT

Connections still seem to open and what is sent is kept by the kernel, as by a network that sends again later: when it
goes on, it all arrives late, and what the sender gave up and sent anew arrives twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 65536


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(port: int, target: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
