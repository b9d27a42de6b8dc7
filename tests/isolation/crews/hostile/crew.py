"""A crew that wants out. Each attempt tells what came of it; what must never come of it is ``got in``."""

# ruff: noqa: T201 (a crew prints)

import ctypes
import errno
import glob
import os
import platform
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
GOT_IN = "got in"


def kickoff(inputs: dict[str, Any]) -> Any:
    return globals()[inputs["do"]](inputs)


def why(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


# --- the network ----------------------------------------------------------------------------------------------------------


def connect(inputs: dict[str, Any]) -> dict[str, str]:
    """TCP to each ``[host, port]``; ``gateway`` is whatever the container's is."""
    found = {}
    for host, port in inputs["targets"]:
        with socket.socket() as s:
            s.settimeout(3)
            try:
                s.connect((gateway() if host == "gateway" else host, port))
                found[f"{host}:{port}"] = GOT_IN
            except OSError as error:
                found[f"{host}:{port}"] = why(error)
    return found


def datagrams(inputs: dict[str, Any]) -> dict[str, str]:
    """UDP to each target, and an answer waited for."""
    found = {}
    for host, port in inputs["targets"]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(1)
            try:
                s.connect((gateway() if host == "gateway" else host, port))
                s.send(b"knock")
                s.recv(10)
                found[f"{host}:{port}"] = GOT_IN
            except OSError as error:
                found[f"{host}:{port}"] = why(error)
    return found


def gateway() -> str:
    for row in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, address = row.split()[:3]
        if destination == "00000000":
            return socket.inet_ntoa(int(address, 16).to_bytes(4, "little"))
    return "127.0.0.1"


def serve(inputs: dict[str, Any]) -> str:
    """Be there for other runs to find; who came."""
    with socket.create_server(("0.0.0.0", inputs["port"])) as server:
        server.settimeout(inputs["seconds"])
        print("serving", flush=True)
        try:
            return str(server.accept()[1])
        except TimeoutError:
            return "nobody"


def other_ways(inputs: dict[str, Any]) -> dict[str, str]:
    """Sockets that go round the rules."""
    kinds = {
        "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
        "netfilter": (socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "vsock": (40, socket.SOCK_STREAM, 0),
        "bluetooth": (31, socket.SOCK_RAW, 1),
    }
    found = {}
    for name, kind in kinds.items():
        try:
            with socket.socket(*kind) as s:
                found[name] = _use(name, s)
        except OSError as error:
            found[name] = why(error)
    for name, address in {"v6 host": ("fe80::1", 22, 0, 2), "v6 metadata": ("fd00:ec2::254", 80, 0, 0)}.items():
        with socket.socket(socket.AF_INET6) as s:
            s.settimeout(2)
            try:
                s.connect(address)
                found[name] = GOT_IN
            except OSError as error:
                found[name] = why(error)
    return found


def _use(name: str, s: socket.socket) -> str:
    """Some may be made by anybody; what counts is what can be done with them."""
    if name == "netfilter":
        # Asks the kernel to tell of the packets of group 1, as the guard does.
        s.bind((0, 0))
        s.settimeout(2)
        s.send(bytes.fromhex("1c000000010405000100000000000000000000010500010001000000"))
        answer = s.recv(100)
        code = int.from_bytes(answer[16:20], "little", signed=True)
        return GOT_IN if code == 0 else errno.errorcode[-code]
    if name == "vsock":
        s.settimeout(2)
        s.connect((2, 1024))
    return GOT_IN


def names(inputs: dict[str, Any]) -> dict[str, str]:
    found = {}
    for host in inputs["hosts"]:
        began = time.monotonic()
        try:
            found[host] = socket.gethostbyname(host)
        except OSError as error:
            found[host] = type(error).__name__
        print(f"{host}: {found[host]} in {time.monotonic() - began:.3f} s")
    return found


# --- the way out ----------------------------------------------------------------------------------------------------------


def proxy() -> tuple[str, int]:
    host, _, port = os.environ["HTTPS_PROXY"].removeprefix("http://").partition(":")
    return host, int(port)


def through(inputs: dict[str, Any]) -> dict[str, str]:
    """Each of ``tries`` (name → what to do) by the proxy, down to the bytes; what came of it.

    ``connect``: where to; ``sni``: the name in the TLS greeting, empty for none; ``say``: what is said then, in the tunnel
    or, without ``connect``, to the proxy itself.
    """
    return {name: _through(**what) for name, what in inputs["tries"].items()}


def _through(connect: str = "", sni: str | None = None, say: str = "", source: str = "") -> str:
    with socket.socket() as s:
        s.settimeout(5)
        try:
            if source:
                s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: an address that is not one's own
                s.bind((source, 0))
            s.connect(proxy())
            if connect:
                s.sendall(f"CONNECT {connect} HTTP/1.1\r\nHost: {connect}\r\n\r\n".encode())
                answer = s.recv(4096).decode("latin-1")
                if " 200 " not in answer.splitlines()[0]:
                    return answer.split()[1]
            if sni is None:
                s.sendall(say.encode())
                return _read(s) or "ended"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(s, server_hostname=sni or None) as inside:
                inside.sendall(say.encode())
                return _read(inside) or "ended"
        except (ssl.SSLError, ConnectionError):
            return "ended"
        except OSError as error:
            return why(error)


def _read(s: socket.socket) -> str:
    """An answer of HTTP, or whatever comes until the end."""
    answer = b""
    while data := s.recv(4096):
        answer += data
        head, found, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if found and length and len(body) >= int(length[1]):
            break
    return answer.decode("latin-1")


def fetch(inputs: dict[str, Any]) -> dict[str, str]:
    """What a library that knows of proxies gets."""
    found = {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for url in inputs["urls"]:
        try:
            with urllib.request.build_opener(
                urllib.request.ProxyHandler(), urllib.request.HTTPSHandler(context=context)
            ).open(url, timeout=10) as answer:
                found[url] = answer.read().decode()
        except OSError as error:
            found[url] = str(error)
    return found


def load(inputs: dict[str, Any]) -> dict[str, int]:
    """Many requests to what may be reached, and among them to what may not; how many came to what."""
    counts = {"let through": 0, "wrongly refused": 0, "refused": 0, "wrongly let through": 0}
    for number in range(inputs["count"]):
        say = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        good = _through(connect=inputs["good"], sni=inputs["good"].partition(":")[0], say=say)
        counts["let through" if " 200 " in good else "wrongly refused"] += 1
        if number % inputs["every"] == 0:
            bad = _through(connect=inputs["bad"], sni=inputs["bad"].partition(":")[0], say=say)
            fronted = _through(connect=inputs["good"], sni=inputs["bad"].partition(":")[0], say=say)
            for came, expected in ((bad, "403"), (fronted, "ended")):
                counts["refused" if came == expected else "wrongly let through"] += 1
    return counts


# --- other processes ------------------------------------------------------------------------------------------------------


def spy(inputs: dict[str, Any]) -> dict[str, str]:
    """Whatever of processes is not the crew's own: memory, environment, files, and control over them."""
    found = {"processes": " ".join(sorted(pid for pid in os.listdir("/proc") if pid.isdigit()))}
    for part in ("environ", "mem", "maps", "fd/0", "fd/1", "root/etc/hostname", "cwd", "auxv", "syscall", "stack"):
        path = f"/proc/1/{part}"
        try:
            with open(path, "rb") as file:
                found[path] = GOT_IN if file.read(1) or part == "environ" else "empty"
        except OSError as error:
            found[path] = why(error)
    for name, number in {"attach": 16, "seize": 0x4206}.items():
        ctypes.set_errno(0)
        done = LIBC.ptrace(number, 1, 0, 0)
        found[f"ptrace {name}"] = GOT_IN if done == 0 else errno.errorcode[ctypes.get_errno()]
    found["process_vm_readv"] = _read_memory_of(1) if platform.machine() == "x86_64" else "EPERM"
    # pidfd_getfd: the supervisor's stdout, on which frames are written.
    pidfd = LIBC.syscall(434, 1, 0)
    found["pidfd_getfd"] = "no pidfd" if pidfd < 0 else _syscall(438, pidfd, 1, 0)
    return found


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _read_memory_of(pid: int) -> str:
    """A byte from where this process has a function, and its parent the same one: asked for nothing, a kernel gives nothing."""
    into, code = ctypes.create_string_buffer(1), ctypes.cast(LIBC.getpid, ctypes.c_void_p).value
    here, there = _Vector(ctypes.addressof(into), 1), _Vector(code, 1)
    ctypes.set_errno(0)
    if LIBC.syscall(310, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == 1:
        return GOT_IN
    # A wrong address is told only to who may look.
    return GOT_IN if ctypes.get_errno() == errno.EFAULT else errno.errorcode[ctypes.get_errno()]


# --- the file system ------------------------------------------------------------------------------------------------------


def write_outside(inputs: dict[str, Any]) -> dict[str, str]:
    found = {}
    places = [
        "/x", "/etc/x", "/etc/passwd", "/usr/bin/x", "/opt/x", "/opt/crewship/runtime/supervisor.py",
        "/opt/crewship/source/crew.py",
        "/opt/venv/x", os.path.expanduser("~root/x"), "/var/tmp/x", "/run/x", "/sys/x",
        "/sys/fs/cgroup/x", "/sys/kernel/uevent_helper",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj", "/dev/x/y",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/pids.max",
        "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent",
    ]  # fmt: skip
    for place in places:
        try:
            with open(place, "a") as file:
                file.write("x")
            found[place] = GOT_IN
        except OSError as error:
            found[place] = why(error)
    return found


def look_for_the_host(inputs: dict[str, Any]) -> dict[str, str]:
    """Sockets, devices and secrets that would be the host's."""
    found = {}
    for place in (
        "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/crewship/netguard.sock",
        "/run/podman/podman.sock",
        "/var/run/secrets", "/run/secrets", "/host", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/sda",
        "/dev/vda",
        "/dev/loop0", "/dev/net/tun", "/proc/kcore", "/sys/firmware/efi", "/etc/shadow",
    ):  # fmt: skip
        try:
            if os.path.isdir(place):
                found[place] = "empty" if not os.listdir(place) else GOT_IN
            else:
                with open(place, "rb") as file:
                    found[place] = GOT_IN if file.read(1) else "empty"
        except OSError as error:
            found[place] = why(error)
    found["unix sockets"] = " ".join(
        line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/" in line
    )
    found["mounts from outside"] = " ".join(
        row.split()[4] for row in Path("/proc/self/mountinfo").read_text().splitlines()
        if row.split()[4] not in ("/", "/app", "/tmp", "/home/crew", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts")
        and row.split(" - ")[1].split()[0] not in ("proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue")
    )  # fmt: skip
    return found


# --- privileges -----------------------------------------------------------------------------------------------------------


def _syscall(number: int, *arguments: Any) -> str:
    ctypes.set_errno(0)
    done = LIBC.syscall(number, *arguments)
    return GOT_IN if done >= 0 else errno.errorcode[ctypes.get_errno()]


def escalate(inputs: dict[str, Any]) -> dict[str, str]:
    """What root may do, tried by whoever this is."""
    found = {}
    calls = {
        "setuid 0": lambda: os.setuid(0), "setgid 0": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("/tmp"), "nice -5": lambda: os.nice(-5),
        "mknod": lambda: os.mknod("/app/sda", 0o60666, os.makedev(8, 0)),
        "chown root": lambda: os.chown("/app", 0, 0), "sethostname": lambda: socket.sethostname("mine"),
        "settime": lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
        "low oom score": lambda: Path("/proc/self/oom_score_adj").write_text("-1000"),
    }  # fmt: skip
    for name, call in calls.items():
        try:
            call()
            found[name] = GOT_IN
        except OSError as error:
            found[name] = why(error)
    if platform.machine() == "x86_64":
        user_namespace, mount_namespace, net_namespace = 0x10000000, 0x00020000, 0x40000000
        numbers: dict[str, tuple[Any, ...]] = {
            "unshare user": (272, user_namespace), "unshare mount": (272, mount_namespace),
            "unshare net": (272, net_namespace),
            "mount": (165, b"none", b"/tmp", b"tmpfs", 0, None), "umount": (166, b"/proc", 2),
            "pivot_root": (155, b"/app", b"/app"),
            "remount /": (165, None, b"/", None, 32, None), "bpf": (321, 0, None, 0),
            "perf_event_open": (298, None, 0, -1, -1, 0),
            "userfaultfd": (323, 0), "keyctl": (250, 0, -3, 1), "init_module": (175, None, 0, b""),
            "kexec_load": (246, 0, 0, None, 0),
            "reboot": (169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, None), "swapon": (167, b"/app/x", 0), "iopl": (172, 3),
            "open_by_handle_at": (304, -1, None, 0), "syslog": (103, 3, None, 0), "quotactl": (179, 0, None, 0, None),
            "setns": (308, os.open("/proc/self/ns/net", os.O_RDONLY), 0),
            "add_key": (248, b"user", b"k", b"v", 1, -3),
        }  # fmt: skip
        for name, arguments in numbers.items():
            found[name] = _syscall(*arguments)
    shell = Path("/app/root-shell")
    shell.write_bytes(Path(os.path.realpath(sys.executable)).read_bytes())
    shell.chmod(0o6755)
    told = subprocess.run(
        [shell, "-I", "-S", "-c", "import os; print(os.geteuid())"], capture_output=True, text=True, check=False
    )
    found["set-uid copy"] = GOT_IN if told.stdout.strip() == "0" else "as before"
    shell.unlink()
    for name in ("su", "sudo", "mount", "newgrp", "chsh", "passwd", "pkexec"):
        for path in glob.glob(f"/usr/bin/{name}"):
            done = subprocess.run(
                [path, "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
            )
            found[path] = GOT_IN if done.stdout.strip() == "0" else "as before"
    script = Path("/tmp/script")
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    try:
        subprocess.run([str(script)], check=True)
        found["run from /tmp"] = GOT_IN
    except OSError as error:
        found["run from /tmp"] = why(error)
    return found


# --- resources ------------------------------------------------------------------------------------------------------------


def files(inputs: dict[str, Any]) -> dict[str, Any]:
    """Descriptors, names on tmpfs, shared memory: each until there is no more."""
    found: dict[str, Any] = {}
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        found["descriptors"] = [len(opened), why(error)]
    for fd in opened:
        os.close(fd)
    number = 0
    try:
        while number < 100_000:
            number += 1
            os.close(os.open(f"/tmp/{number}", os.O_CREAT))
    except OSError as error:
        found["names in /tmp"] = [number, why(error)]
    for place in ("/tmp/1", "/dev/shm/fill"):
        size = 0
        try:
            with open(place, "wb", buffering=0) as file:
                while size < 1 << 30:
                    size += file.write(bytes(1 << 20))
        except OSError as error:
            found[f"bytes in {place}"] = [size, why(error)]
        os.unlink(place)
    return found


def grab_memory(inputs: dict[str, Any]) -> None:
    hoard = []
    while True:
        hoard.append(b"x" * (4 << 20))


def fork_bomb(inputs: dict[str, Any]) -> None:
    while True:
        os.fork()


def fill_disk(inputs: dict[str, Any]) -> None:
    block = os.urandom(1 << 20)
    number = 0
    while True:
        number += 1
        Path(f"fill-{number}").write_bytes(block)


def name_flood(inputs: dict[str, Any]) -> None:
    number = 0
    while True:
        number += 1
        Path(f"empty-{number}").touch()


def outlive(inputs: dict[str, Any]) -> str:
    """Daemons that nobody waits for, in sessions of their own, deaf to every signal that can be ignored."""
    import signal

    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                continue
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3, 64):
                    try:
                        os.close(fd)
                    except OSError:
                        continue
                while True:
                    time.sleep(60)
            os._exit(0)
    print("daemons left behind", flush=True)
    return "gone home"


def forge(inputs: dict[str, Any]) -> str:
    """Tell the platform what it must know by itself."""
    print(
        '{"n": 1, "k": "", "at": 1, "t": "event", "type": "network.denied", "data": {"host": "forged", "port": 1}}',
        flush=True,
    )
    with socket.socket(fileno=os.dup(3)) as channel:
        channel.send(b'{"m": "event", "type": "network.denied", "data": {"host": "forged", "port": 1}}\n')
        channel.send(b'{"m": "boot", "isolation": {"uid": 0}}\n')
    time.sleep(0.2)
    return "told"
