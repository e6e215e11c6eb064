#!/usr/bin/env python3
"""A real Prometheus scrapes a running server. MAYFLY_BIN names the binary; PROMETHEUS and PROMTOOL name theirs."""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from client import CHALLENGE, V1, V2, client_keys, email_identity, plain_request
from harness import HANG_SECONDS, Checks, dev, free_port, holds, same

# Names that deployments have dashboards for. promtool would have them otherwise.
INHERITED = {"fulcio_new_certs"}
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"


def metrics_url(server):
    """Where the server's metrics are: its first log lines tell, and may come after its first answers."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        for line in (server.folder / "mayfly.log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "started":
                    return f"http://{event['metrics_listen']}/metrics"
        time.sleep(0.02)
    raise AssertionError("no line `started` in the log")


def read(url):
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
        return response.read().decode()


def documented():
    """The metrics of docs/metrics.md, each with its type."""
    row = re.compile(r"^\| `([a-z0-9_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)
    return dict(row.findall(DOCUMENT.read_text()))


class Prometheus:
    """A running Prometheus that scrapes one target every half second."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, **query):
        answer = json.loads(read(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        same(answer["status"], "success", f"answer to {query}")
        return answer["data"]

    def value(self, expression):
        """The one value of an expression; nothing while there is none."""
        result = self.ask("query", query=expression)["result"]
        holds(len(result) < 2, f"{expression}: {result}")
        return float(result[0]["value"][1]) if result else None

    def await_value(self, expression, wanted):
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            value = None
            # It does not listen at once.
            with contextlib.suppress(OSError):
                value = self.value(expression)
            if value is not None and wanted(value):
                return
            holds(time.monotonic() < deadline, f"{expression} is {value} after {HANG_SECONDS} s")
            time.sleep(0.2)


@contextlib.contextmanager
def scraping(target):
    """Runs Prometheus against the host and port of `target` until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mayfly-test-") as folder:
        config, log = Path(folder) / "prometheus.yml", Path(folder) / "log"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [{"job_name": "mayfly", "static_configs": [{"targets": [target]}]}],
        }))
        listen = f"127.0.0.1:{free_port()}"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [os.environ["PROMETHEUS"], f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address={listen}"],
                stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )
        try:
            yield Prometheus(f"http://{listen}")
        except Exception:
            print(log.read_text())
            raise
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)


def check_scrapes(checks, server, url):
    with scraping(urllib.parse.urlsplit(url).netloc) as prometheus:
        with checks("Prometheus scrapes the server"):
            prometheus.await_value('up{job="mayfly"}', lambda value: value == 1)
        for expression, wanted in [
            ("fulcio_new_certs", lambda value: value == 2),
            ('fulcio_api_latency_count{code="201", method="post"}', lambda value: value == 1),
            ('sum(grpc_server_handled_total{grpc_code="OK", grpc_method="CreateSigningCertificate"})',
             lambda value: value == 2),
            ("sum(mayfly_certificates_issued_total)", lambda value: value == 2),
            ('sum(mayfly_certificate_requests_refused_total{reason="missing_token"})', lambda value: value == 1),
            ('histogram_quantile(0.99, sum by (le) (mayfly_issuance_duration_seconds_bucket{result="issued"}))',
             lambda value: 0 < value <= 10),
            ("mayfly_log_tree_size - mayfly_log_published_size", lambda value: value == 0),
            ("min(mayfly_ready)", lambda value: value == 1),
            ("min(mayfly_ready_check)", lambda value: value == 1),
            ("mayfly_panics_total", lambda value: value == 0),
            ("time() - mayfly_log_checkpoint_timestamp_seconds", lambda value: abs(value) < 3600),
            ("mayfly_build_info", lambda value: value == 1),
        ]:
            with checks(f"Prometheus computes {expression}"):
                prometheus.await_value(expression, wanted)
        with checks("Prometheus knows every metric it scraped by the documented type"):
            metadata = prometheus.ask("metadata")
            kinds = documented()
            holds(len(kinds) > 20, "docs/metrics.md is not read")
            unknown = {name for name in metadata if re.match("mayfly_|fulcio_|grpc_server_|http_", name)} - set(kinds)
            same(unknown, set(), "metrics that are not documented")
            for name, known in metadata.items():
                if name in kinds:
                    same([each["type"] for each in known], [kinds[name]], name)


def check_form(checks, text):
    with checks("promtool finds no fault but inherited names"):
        result = subprocess.run(
            [os.environ["PROMTOOL"], "check", "metrics"], input=text, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG_SECONDS,
        )
        faults = [line for line in result.stdout.splitlines() if line.split(" ", 1)[0] not in INHERITED]
        same(faults, [], "faults")
        holds(result.returncode in (0, 3), f"exit code {result.returncode}")  # 3: there are faults


def main():
    checks = Checks()
    with dev() as server:
        url = metrics_url(server)
        key = next(client_keys())
        for path, status in (V1, 201), (V2, 200):
            answer = plain_request(server, path, CHALLENGE, key, email_identity(server))
            same(answer.status, status, f"status ({answer.text})")
        same(server.send("POST", V2, b"{}").status, 400, "status without a token")
        check_scrapes(checks, server, url)
        check_form(checks, read(url))
    checks.exit()


if __name__ == "__main__":
    main()
