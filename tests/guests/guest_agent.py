# SPDX-License-Identifier: Apache-2.0
"""The guest's end of `agent.py`: one long-lived process that runs commands and moves files over a virtio-serial port.

It runs in the guest with nothing but Debian's python3 (3.11 or newer), and as soon as local file systems are there.
A frame is a mark, two big-endian 32-bit lengths, a JSON header and a body. The mark lets either end find the next
frame when the other one was reset in the middle of one. Each request is answered by one frame with the same id, in
the order of completion: requests run in threads, so a hung command does not hold up the next.
"""

import contextlib
import json
import os
import signal
import struct
import subprocess
import threading
import time
from typing import Any

MARK = b"\xffkqguest"
START = struct.Struct(f">{len(MARK)}sII")
PORTS, NAME = "/sys/class/virtio-ports", "org.keyquorum.guests.agent"
PAUSE = 0.2  # seconds between looks for the port, whose driver may be loaded later than this is started
SURROUNDINGS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def answer(request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Do what was asked; an OSError becomes part of the answer."""
    try:
        match request["do"]:
            case "ping":
                return {"code": 0}, b""
            case "run":
                return run(request["argv"], body, request["timeout"], request["env"])
            case "put":
                return put(request["path"], body, request["mode"])
            case "get":
                with open(request["path"], "rb") as file:
                    return {"code": 0}, file.read()
            case other:
                return {"code": 127, "error": f"unknown request {other}"}, b""
    except OSError as error:
        return {"code": 127, "error": str(error)}, b""


def run(argv: list[str], data: bytes, timeout: float, env: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """Run a command to its end; what it leaves running in the background does not hold up the answer.

    Output goes to memory files and not to pipes: a daemon that keeps a pipe open would look like a hung command.
    """
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        write_all(streams[0], data)
        os.lseek(streams[0], 0, os.SEEK_SET)
        late = False
        process = subprocess.Popen(
            argv, stdin=streams[0], stdout=streams[1], stderr=streams[2], start_new_session=True, env=SURROUNDINGS | env
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        output, errors = (read_all(stream) for stream in streams[1:])
    finally:
        for stream in streams:
            os.close(stream)
    return {"code": code, "late": late, "output": len(output)}, output + errors


def put(path: str, body: bytes, mode: int) -> tuple[dict[str, Any], bytes]:
    """Write a file whole; missing directories are made. A device or pipe is written into, not replaced."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb", buffering=0) as file:
            write_all(file.fileno(), body)
        return {"code": 0}, b""
    temporary = f"{path}.{threading.get_ident()}"
    with open(temporary, "wb") as file:
        file.write(body)
    os.chmod(temporary, mode)
    os.rename(temporary, path)
    return {"code": 0}, b""


def read_all(descriptor: int) -> bytes:
    """A memory file from its start."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however small the bites."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read so many bytes; the end of the channel is an EOFError."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other end closed the channel")
        parts += part
    return bytes(parts)


def read_frame(descriptor: int) -> tuple[dict[str, Any], bytes]:
    """The next frame; what stands before its mark is the rest of a lost one and is dropped."""
    start = read_exactly(descriptor, START.size)
    while not start.startswith(MARK):
        start = start[1:] + read_exactly(descriptor, 1)
    _, header_size, body_size = START.unpack(start)
    header = json.loads(read_exactly(descriptor, header_size))
    return header, read_exactly(descriptor, body_size)


def frame(header: dict[str, Any], body: bytes) -> bytes:
    """One frame."""
    encoded = json.dumps(header).encode()
    return START.pack(MARK, len(encoded), len(body)) + encoded + body


def serve(port: int) -> None:
    """Answer requests until the port goes away."""
    lock = threading.Lock()

    def handle(request: dict[str, Any], body: bytes) -> None:
        reply, output = answer(request, body)
        with lock:
            write_all(port, frame({**reply, "id": request["id"]}, output))

    while True:
        threading.Thread(target=handle, args=read_frame(port), daemon=True).start()


def port(ports: str = PORTS) -> str:
    """Wait for the port of this name, and give its device. A port is there before it has a name."""
    while True:
        for entry in os.listdir(ports) if os.path.isdir(ports) else ():
            with contextlib.suppress(FileNotFoundError), open(f"{ports}/{entry}/name", encoding="ascii") as file:
                if file.read().strip() == NAME:
                    return f"/dev/{entry}"
        time.sleep(PAUSE)


if __name__ == "__main__":
    serve(os.open(port(), os.O_RDWR | os.O_CLOEXEC))
