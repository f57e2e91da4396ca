"""What the scripts of this folder share: a server's process and its /metrics."""
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

from common import Failed

HEALTHY_WITHIN = 120  # seconds
ANYBODY = ssl.create_default_context()  # behind https://: the certificate is this machine's own
ANYBODY.check_hostname = False
ANYBODY.verify_mode = ssl.CERT_NONE


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=30, context=ANYBODY) as answer:
        return answer.read().decode()


def certificate(folder):
    """The flags of `lathe serve` for a certificate of its own, made in `folder`."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "1", "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return ["--tls-cert", cert, "--tls-key", key]


class Server:
    """A server process, from healthy to ended."""

    def __init__(self, command, port, stderr=subprocess.DEVNULL):
        self.url = f"{'https' if '--tls-cert' in command else 'http'}://127.0.0.1:{port}"
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=stderr)

    def __enter__(self):
        end = time.monotonic() + HEALTHY_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            try:
                get(self.url + "/health")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        self.__exit__()
        raise Failed(self.process.args, self.process.returncode, f"not healthy within {HEALTHY_WITHIN} s")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def engine_time(url):
    """Seconds of all steps so far, and of the plan in them, and the number of steps; {} of other servers."""
    found = {}
    for line in get(url + "/metrics").splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("lathe:engine_"):
            found[name.partition("{")[0]] = float(value)
    return found
