import asyncio
from api.door import Api
async def test_raw(api: Api):
    port=api.http._base_url.port
    async def send(b, eof=False):
        r,w=await asyncio.open_connection("127.0.0.1",port); w.write(b); await w.drain()
        if eof: w.write_eof()
        try:
            async with asyncio.timeout(2): d=await r.read(1500)
        except TimeoutError: d=b"TIMEOUT"
        w.close(); print(b[:60], "->", d.split(b"\r\n")[0], d[-260:]); 
    await send(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nxx")
    await send(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", eof=True)
    await send(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nabc")
    await send(b"BLAH\r\n\r\n")
    await send(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nExpect: banana\r\nContent-Length: 3\r\n\r\nabc")
    await send(b"GET /api/tasks/%FF HTTP/1.1\r\nHost: x\r\n\r\n")
    await send(b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n")
    await send(b"GET /api/tasks?x=\xed\xa0\x80 HTTP/1.1\r\nHost: x\r\n\r\n")
    await send(b"FOO /api/tasks HTTP/1.1\r\nHost: x\r\n\r\n")
    await send(b"GET //evil.com/x HTTP/1.1\r\nHost: x\r\n\r\n")
    await send(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\r\nContent-Length: 17\r\n\r\n{\"task_type\":\"x\"}")
