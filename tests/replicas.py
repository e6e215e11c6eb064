#!/usr/bin/env python3
"""Three servers issue through one log in a bucket while one after the other is killed: nothing is lost, forked or stuck.

MAYFLY_BIN names the binary, VERSITYGW an S3 server, CTCLIENT a client of RFC 6962 that reads the log in the end.
SECONDS_OF_WAR says for how long (60), SEED repeats a run.
"""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import log_reader
from harness import Checks, Server, binary, dev, free_port, holds, run, running, same, succeed
from kill_loop import Watcher
from outage import IDENTITY, Crowd, Instance, Order, check_certificates, check_with_ctclient

SERVERS = 3
# How long all of them live before the next one is killed, and how long that one is away at most.
PEACE_SECONDS = 8
AWAY_SECONDS = 2
# What clients of a server may hear that is being killed, or waits for a store that is.
REASONS = {"shutting_down", "overloaded", "store_unavailable", "ct_unavailable"}
BUCKET = "s3://logs/ca/main"


class Replica(Instance):
    """One of the servers of a log: a copy of the data folder that `mayfly init` made, at an address of its own."""

    def __init__(self, folder, original):
        folder.mkdir()
        super().__init__(folder, folder / "data", "serve", "--log-format", "json")
        if original:
            self.share(original)

    def make(self, issuer_url):
        url = self.server.url
        succeed(binary(), "init", "--data-dir", self.data, "--public-url", url, "--no-password", "--log-store", BUCKET)
        (self.data / "identity.yaml").write_text(IDENTITY.format(issuer=issuer_url))
        self.share(self)

    def share(self, original):
        if original is not self:
            shutil.copytree(original.data, self.data, symlinks=True)
        succeed(binary(), "trust", "export", "--data-dir", self.data, self.trust)


@contextlib.contextmanager
def bucket(folder):
    """Runs an S3 server with an empty bucket, and names it and its credentials to the programs started from here."""
    (folder / "objects" / "logs").mkdir(parents=True)
    port = free_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "testtest",
    }
    os.environ.update(names)
    command = [
        os.environ["VERSITYGW"], "--port", f"127.0.0.1:{port}", "--access", "test", "--secret", "testtest",
        "--health", "/healthz", "--quiet", "posix", folder / "objects",
    ]
    with running(Server(f"http://127.0.0.1:{port}", folder), command, "/healthz"):
        yield folder / "objects" / "logs"


def published(replica):
    """How many entries a server shows."""
    key = log_reader.Key.of((replica.trust / "ctfe.pub").read_text())
    return log_reader.read_checkpoint(log_reader.Log(f"{replica.server.url}/ct/main/").checkpoint(), key).size


def make_war(replicas, order, seconds, chance):
    """Lets the servers issue, and kills one after the other; returns what clients got of each."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as crowds, contextlib.ExitStack() as lives:
        running_now = [contextlib.ExitStack() for _ in replicas]
        for stack in running_now:
            lives.enter_context(stack)
        for replica, stack in zip(replicas, running_now):
            stack.enter_context(replica.serving())
        memories = [replica.memory() for replica in replicas]
        watchers = [crowds.enter_context(Watcher(memory)) for memory in memories]
        crowd = [crowds.enter_context(Crowd(replica.server, order, clients=2)) for replica in replicas]
        kills = 0
        while time.monotonic() < deadline:
            before = [one.count() for one in crowd]
            time.sleep(PEACE_SECONDS)
            for number, one in enumerate(crowd):
                holds(one.count() > before[number], f"server {number} issued nothing for {PEACE_SECONDS} s, after {kills} kills")
            victim = chance.randrange(len(replicas))
            running_now[victim].close()
            time.sleep(chance.uniform(0, AWAY_SECONDS))
            running_now[victim].enter_context(replicas[victim].serving())
            kills += 1
        for watcher in watchers:
            watcher.stopping.set()
            watcher.join()
            if watcher.wrong:
                raise watcher.wrong
        for one in crowd:
            one.stopping.set()
        for one in crowd:
            for client in one.clients:
                client.join()
            one.check_refusals(REASONS)
        found = [certificate for one in crowd for certificate in one.certificates()]
        print(f"{len(found)} certificates, {kills} kills", flush=True)
        # Each reader remembers every checkpoint that its server showed: all of them are of one tree.
        for memory in memories:
            memory.catch_up()
        sizes = {len(memory.leaves) for memory in memories}
        largest = max(memories, key=lambda memory: len(memory.leaves))
        for memory in memories:
            same(memory.leaves, largest.leaves[: len(memory.leaves)], f"entries (sizes {sizes})")
        check_certificates(largest, found)
        return found


def main():
    binary()
    seconds = float(os.environ.get("SECONDS_OF_WAR", "60"))
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"replicas: SECONDS_OF_WAR={seconds:.0f} SEED={seed}", flush=True)
    chance = random.Random(seed)
    checks = Checks()
    with contextlib.ExitStack() as stack:
        issuer = stack.enter_context(dev())
        where = os.environ.get("MAYFLY_CACHE")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-test-", dir=where)))
        stack.enter_context(bucket(folder))
        order = Order(issuer)
        first = Replica(folder / "0", None)
        with checks("an instance whose log is in a bucket is made"):
            first.make(order.issuer_url)
        with checks("a second log is not made in the same place"):
            arguments = ("--public-url", first.server.url, "--no-password", "--log-store", BUCKET)
            refused = run(binary(), "init", "--data-dir", folder / "second", *arguments)
            holds(refused.returncode != 0 and "there is a log already" in refused.stdout, refused.stdout)
        replicas = [first, *(Replica(folder / str(number), first) for number in range(1, SERVERS))]
        with checks(f"{SERVERS} servers issue through one log for {seconds:.0f} s, while one after the other is killed"):
            make_war(replicas, order, seconds, chance)
        with checks("a reader who sees the log for the first time finds one sound tree, at every server"):
            with contextlib.ExitStack() as lives:
                for replica in replicas:
                    lives.enter_context(replica.serving())
                url = f"{first.server.url}/ct/main/"
                audit = log_reader.Audit(log_reader.Log(url), log_reader.Key.of((first.trust / "ctfe.pub").read_text()))
                audit.read()
                holds(audit.leaves, "the log is empty")
                for replica in replicas:
                    same(published(replica), len(audit.leaves), "entries")
                    check_with_ctclient(replica, audit.leaves, chance)
                succeed(binary(), "log", "fsck", url, "--key", first.trust / "trusted_root.json")
        with checks("an older copy of the bucket is refused"):
            back_in_time(replicas, order, folder)
    checks.exit()


def back_in_time(replicas, order, folder):
    """Brings an older copy of the bucket back: the memory outside of it notices."""
    bucket_folder, copy = folder / "objects" / "logs", folder / "copy"
    subprocess.run(["cp", "-a", bucket_folder, copy], check=True)
    replica = replicas[0]
    with replica.serving(), Crowd(replica.server, order, clients=1) as crowd:
        crowd.await_answer("a certificate", lambda status, _: status == 200)
        size = published(replica)
        while published(replica) == size:
            time.sleep(0.1)
    shutil.rmtree(bucket_folder)
    subprocess.run(["cp", "-a", copy, bucket_folder], check=True)
    with replica.process() as process:
        process.wait(30)
        said = replica.output.read_text(errors="replace")
        holds("went back in time" in said, said[-1000:])


if __name__ == "__main__":
    main()
