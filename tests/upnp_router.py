"""A router that maps ports, on the loopback interface: it answers searches (SSDP) and does what it is asked (SOAP)."""

import re
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

LOOPBACK = "127.0.0.1"
GROUP = ("239.255.255.250", 1900)
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
SCHEMA = "urn:schemas-upnp-org"

DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="{SCHEMA}:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><device>
<deviceType>{SCHEMA}:device:InternetGatewayDevice:1</deviceType><UDN>uuid:1</UDN><deviceList><device>
<deviceType>{SCHEMA}:device:WANDevice:1</deviceType><UDN>uuid:2</UDN><serviceList><service>
<serviceType>{SCHEMA}:service:WANCommonInterfaceConfig:1</serviceType><serviceId>common</serviceId>
<SCPDURL>/common.xml</SCPDURL><controlURL>/common</controlURL><eventSubURL>/events</eventSubURL>
</service></serviceList><deviceList><device>
<deviceType>{SCHEMA}:device:WANConnectionDevice:1</deviceType><UDN>uuid:3</UDN><serviceList><service>
<serviceType>{SERVICE}</serviceType><serviceId>ip</serviceId>
<SCPDURL>/ip.xml</SCPDURL><controlURL>/control</controlURL><eventSubURL>/events</eventSubURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""

ANSWERS = {
    "GetStatusInfo": "<NewConnectionStatus>Connected</NewConnectionStatus>"
    "<NewLastConnectionError>ERROR_NONE</NewLastConnectionError><NewUptime>1</NewUptime>",
    "GetExternalIPAddress": "<NewExternalIPAddress>{address}</NewExternalIPAddress>",
}


class Mapping(NamedTuple):
    """What one port of the router leads to, and for how many seconds."""

    host: str
    port: int
    lease: int


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:  # the base class wants it so
        """Describe the router."""
        self._send(200, DESCRIPTION)

    def do_POST(self) -> None:  # as above
        """Do what is asked."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').partition("#")[2]
        error = self.server.router.act(action, dict(re.findall(r"<(New\w+)>([^<]*)</", body)))
        if error:
            code, text = error
            fault = (
                "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
                f'<UPnPError xmlns="{SCHEMA}:control-1-0"><errorCode>{code}</errorCode>'
                f"<errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault>"
            )
            self._send(500, self._envelope(fault))
            return
        values = ANSWERS.get(action, "").format(address=self.server.router.address)
        self._send(200, self._envelope(f'<u:{action}Response xmlns:u="{SERVICE}">{values}</u:{action}Response>'))

    @staticmethod
    def _envelope(content: str) -> str:
        schema = "http://schemas.xmlsoap.org/soap/envelope/"
        return f'<?xml version="1.0"?><s:Envelope xmlns:s="{schema}"><s:Body>{content}</s:Body></s:Envelope>'

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    router: "Router"
    daemon_threads = False


class Router:
    """A router; it ends with its `with` block.

    Attributes:
        address: its public one.
        refuses: what it answers to AddPortMapping, by protocol: an error's number and text.
        only_permanent: it knows no leases.
        mappings: by external port and protocol.
        actions: all that it was asked for.
    """

    def __init__(self) -> None:
        self.address = "8.8.4.4"
        self.refuses: dict[str, tuple[int, str]] = {}
        self.only_permanent = False
        self.mappings: dict[tuple[int, str], Mapping] = {}
        self.actions: list[str] = []
        self._server = _Server((LOOPBACK, 0), _Handler)
        self._server.router = self
        self._search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._search.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._search.bind(GROUP)
        membership = socket.inet_aton(GROUP[0]) + socket.inet_aton(LOOPBACK)
        self._search.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._search.settimeout(0.1)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.01,), name="router"),
            threading.Thread(target=self._answer_searches, name="router-search"),
        ]

    def act(self, action: str, values: dict[str, str]) -> tuple[int, str] | None:
        """Do what is asked; return an error's number and text, if it is one."""
        self.actions.append(action)
        if action == "AddPortMapping":
            protocol, lease = values["NewProtocol"], int(values["NewLeaseDuration"])
            if protocol in self.refuses:
                return self.refuses[protocol]
            if lease and self.only_permanent:
                return 725, "OnlyPermanentLeasesSupported"
            mapping = Mapping(values["NewInternalClient"], int(values["NewInternalPort"]), lease)
            self.mappings[int(values["NewExternalPort"]), protocol] = mapping
        elif action == "DeletePortMapping":
            self.mappings.pop((int(values["NewExternalPort"]), values["NewProtocol"]), None)
        return None

    def _answer_searches(self) -> None:
        location = f"http://{LOOPBACK}:{self._server.server_address[1]}/root.xml"
        kind = f"{SCHEMA}:device:InternetGatewayDevice:1"
        answer = f"HTTP/1.1 200 OK\r\nST: {kind}\r\nUSN: uuid:1::{kind}\r\nLOCATION: {location}\r\n\r\n"
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                request, sender = self._search.recvfrom(2048)
                if request.startswith(b"M-SEARCH") and kind.encode() in request:
                    self._search.sendto(answer.encode(), sender)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._search.close()
        self._server.server_close()
