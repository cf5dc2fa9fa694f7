"""A throw-away instance with Prometheus, Alertmanager and somebody who is called: what the drill breaks and mends."""

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
from contextlib import ExitStack, closing

import psycopg
import sqlalchemy as sa
import yaml

from monitoring import record
from monitoring.server import create_app, serve
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from tests.processes import Service, end_processes_of, steer
from tests.system.prometheus import ALERTS, ROOT, Prometheus, find_port
from tests.waiting import wait_for

# Hours become seconds, and a run of many a single one; the expressions stay what they are.
HASTE = (
    (r"for: \w+", "for: 1s"),
    (r"\[15m\]", "[15s]"),
    (r"\[\d+[mhd]\]", "[40s]"),
    (r"> 900\b", "> 4"),
    (r"> 4 \* 3600", "> 3"),
    (r"> 3 \* 3600", "> 45"),
    (r"check_interval_seconds \+ 60", "check_interval_seconds + 5"),
    (r">= (4|1)\.5", ">= 0.5"),
)
DISK_BYTES = 64 << 20


def hasten(rules):
    """Return the text of the rules with their times cut short."""
    for pattern, replacement in HASTE:
        rules, num = re.subn(pattern, replacement, rules)
        assert num, f"the rules have no {pattern} any more"
    return rules


class Phone:
    """Receives Alertmanager's calls: what rings, what has rung since `listen`, and what has ever rung."""

    def __init__(self):
        self.ringing, self.heard, self.ever, calls = set(), set(), set(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                alerts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
                firing = {one["labels"]["alertname"] for one in alerts if one["status"] == "firing"}
                calls.ringing = (calls.ringing - {one["labels"]["alertname"] for one in alerts}) | firing
                calls.heard |= firing
                calls.ever |= firing
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, name="phone").start()

    def listen(self):
        """Forget what has rung and does no longer."""
        self.heard = set(self.ringing)

    def close(self):
        """Hang up."""
        self._server.shutdown()
        self._server.server_close()


class Alertmanager:
    """Debian's Alertmanager with our inhibition, and our route but for its waits; it calls the phone."""

    def __init__(self, folder, phone):
        program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        assert program, "Alertmanager is missing: apt-get install prometheus-alertmanager"
        config = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
        quick = {"group_wait": "0s", "group_interval": "1s"}
        config["route"] |= quick
        config["route"]["routes"] = [one | quick for one in config["route"]["routes"]]
        config["receivers"] = [{"name": "operator", "webhook_configs": [{"url": phone.url}]}]
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{find_port()}"
        command = [program, "--config.file", str(folder / "alertmanager.yml"), "--storage.path", str(folder / "alerts")]
        command += ["--web.listen-address", self.address, "--cluster.listen-address="]
        with (folder / "alertmanager.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)


class Instance:
    """Daemon and ingest as processes on a small disk, PostgreSQL, a crawler's metrics, and who watches them."""

    def __init__(self, folder):
        self.folder, self.home, self.card = folder, folder / "home", folder / "card.json"
        self.home.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "codelupe-drill", str(self.home)]
        assert subprocess.run(mount).returncode == 0, "the drill fills a small disk, for which it must be root"
        self._left = ExitStack()  # what is to be ended, the last first
        self._left.callback(subprocess.run, ["umount", "--lazy", str(self.home)], check=True)
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    def _start_all(self):
        steer(self.home)
        self.start_database()
        self._left.callback(self.stop_database)
        engine = create_engine(self.database.url, application_name="drill")
        upgrade(engine)
        engine.dispose()
        self.ports = {"daemon": find_port(), "ingest": find_port()}
        self.start_daemon()
        self.start_ingest()
        record.record_start(version="0.1.0", profile="tiny")
        self.crawler, self.grafana = _serve(), _serve()
        self._left.callback(self.crawler.close)
        self._left.callback(self.grafana.close)
        self.phone = self._left.enter_context(closing(Phone()))
        alertmanager = Alertmanager(self.folder, self.phone)
        self._left.callback(alertmanager.stop)
        rules = self.folder / "alerts.yml"
        rules.write_text(hasten(ALERTS.read_text()))
        targets = {
            "codelupe-daemon": f"127.0.0.1:{self.ports['daemon']}",
            "codelupe-ingest": f"127.0.0.1:{self.ports['ingest']}",
            "codelupe-crawler": f"127.0.0.1:{self.crawler.port}",
            "grafana": f"127.0.0.1:{self.grafana.port}",
        }
        self.prometheus = Prometheus(self.folder, targets, rules=rules, alertmanager=alertmanager.address)
        self._left.callback(self.prometheus.stop)

    def start_database(self):
        """Start PostgreSQL, which stops when we leave it."""
        self.database = open_server(self.folder / "database", grace_s=0.0, options={"fsync": "off"})

    def stop_database(self):
        """Stop PostgreSQL."""
        self.database.close()

    def start_daemon(self, **settings):
        """Start the daemon and wait until it answers."""
        self.daemon = self._start("daemon", "run", **settings)
        self.daemon.wait_for("daemon_started")

    def restart_daemon(self, **settings):
        """Stop the daemon, start it again with other settings, and wait until it is at work."""
        self.daemon.stop()
        self.start_daemon(**settings)
        self.daemon.wait_until("its lease", lambda: "\ncodelupe_daemon_lease_held 1.0" in self.daemon.get("metrics"))

    def start_ingest(self):
        """Start a worker, which gives a source up at once, and wait until it answers."""
        self.ingest = self._start("ingest", "work", max_attempts=1)
        self.ingest.wait_for("http_listening")

    def _start(self, *words, **settings):
        settings |= {f"{name}_port": port for name, port in self.ports.items()}
        service = Service(self.home, *words, database_url=self.database.url, back_off_s=2, **settings)
        self._left.callback(service.process.wait)
        return service

    @contextlib.contextmanager
    def session(self):
        """Yield a session in the database, as somebody has one who is none of us."""
        url = sa.make_url(self.database.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as session:
            yield session

    @contextlib.contextmanager
    def filled_disk(self, *, left):
        """Leave this share of the disk free, until the end."""
        filler = self.home / "filler"
        try:
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while shutil.disk_usage(self.home).free > left * DISK_BYTES:
                    file.write(bytes(1 << 19))
                    file.flush()
            yield
        finally:
            filler.unlink()

    def wait_for_call(self, *alerts):
        """Wait until somebody was called about each of them."""
        wait_for(lambda: set(alerts) <= self.phone.heard, f"a call about {alerts}")

    def close(self):
        """End everything and give the disk back."""
        end_processes_of(self.home)
        self._left.close()


def _serve():
    return serve(create_app(health=dict, ready=lambda: (True, []), status=dict), "127.0.0.1", 0)
