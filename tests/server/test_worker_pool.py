"""Several workers: real processes, real gRPC, a real Valkey, and the process above them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import grpc
import pytest

from authz.core.principal import Person
from authz.ledger import revocations
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.support import impatient_serve
from tests.support.service import (
    PATIENCE,
    KeyIssuer,
    ServiceProcess,
    running_issuer,
    running_service,
    until,
)
from tests.support.transports import installed
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import request as sent
from tests.support.values import rpc
from tests.support.wire import answer, check_request
from tests.tokens.token_factory import rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, deadline: 30s, max_lifetime: 30d}}
gateway: {{url: https://mcp.example.test, refusals: http_status}}
redis: {{url: '{redis}', mode: {mode}}}
telemetry: {{log: json}}
service: {{transport: {transport}, workers: {workers}, drain_notice: 0s}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{{per: user, rate: {rate}}}]
"""
ENV = {"PATH": os.environ["PATH"]}
# A worker's interpreter reads it first: at the reload after the file `once` is made, the loop of
# worker 0 waits, for ever, while its other threads go on. What is started in its place reloads like
# others.
DEADLOCK = """\
import json, os, pathlib, threading
from authz.server.service import Service

hang_up, once = Service.hang_up, pathlib.Path(__file__).with_name("once")

def wait(self):
    if json.loads(os.environ["AUTHZ_WORKER"])["worker"] == 0 and once.exists():
        once.unlink()
        threading.Event().wait()
    hang_up(self)

Service.hang_up = wait
"""
ALLOWED = 'authz_decisions_total{reason="allowed",server="files"}'
# Seconds that the process above waits for a worker's page.
SILENT = 1.0
Run = Callable[..., AbstractContextManager[ServiceProcess]]


@pytest.fixture(params=["ngh2", "pyvoy"], scope="module")
def transport(request: pytest.FixtureRequest) -> str:
    """Every test of this file runs on both."""
    return installed(request.param)


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyServer]:
    with valkey() as one:
        yield one


@pytest.fixture(scope="module")
def run(issuer: KeyIssuer, redis: ValkeyServer, transport: str) -> Run:
    @contextmanager
    def running(
        workers: int = 2,
        rate: str = "1000000/minute",
        mode: str = "local",
        env: Mapping[str, str] = ENV,
        program: Sequence[str] = ("-m", "authz"),
    ) -> Iterator[ServiceProcess]:
        redis.command("FLUSHALL")
        config = CONFIG.format(
            issuer=issuer.address,
            redis=redis.url,
            transport=transport,
            workers=workers,
            rate=rate,
            mode=mode,
        )
        with (
            TemporaryDirectory(prefix="f") as folder,
            running_service(Path(folder), config, env, workers, program) as one,
        ):
            wait_all_ready(one, workers)
            yield one
            assert (Path(folder) / "stderr").read_text() == ""

    return running


@pytest.fixture(scope="module")
def shared(run: Run) -> Iterator[ServiceProcess]:
    with run() as one:
        yield one


@pytest.fixture
def pool(shared: ServiceProcess) -> Iterator[ServiceProcess]:
    """Two workers that the tests share, as they began but for what they have counted and told."""
    yield from restored(shared)


@pytest.fixture(scope="module")
def deadlock(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Path:
    """Return the file that lets worker 0 of `impatient` hang at its next reload."""
    folder = tmp_path_factory.mktemp(transport)
    (folder / "sitecustomize.py").write_text(DEADLOCK)
    return folder / "once"


@pytest.fixture(scope="module")
def shared_impatient(run: Run, deadlock: Path) -> Iterator[ServiceProcess]:
    env = {**ENV, "PYTHONPATH": str(deadlock.parent)}
    with run(env=env, program=impatient_serve.PROGRAM) as one:
        yield one


@pytest.fixture
def impatient(shared_impatient: ServiceProcess) -> Iterator[ServiceProcess]:
    """The same under a process that waits for nobody long."""
    yield from restored(shared_impatient)


def restored(service: ServiceProcess) -> Iterator[ServiceProcess]:
    """Give a service to a test, and have its configuration and workers back afterwards."""
    text, configs = service.config.read_text(), in_force(service)
    yield service
    if service.config.read_text() != text:
        service.config.write_text(text)
        service.signal(signal.SIGHUP)
        until(lambda: in_force(service) == configs, "the configuration of before")
    wait_all_ready(service, 2)


def in_force(service: ServiceProcess) -> dict[str, str]:
    """Return what each worker runs."""
    found: dict[str, str] = json.loads(service.get("/readyz")[1])["configs"]
    return found


def wait_all_ready(service: ServiceProcess, workers: int) -> None:
    wanted = {str(number): True for number in range(workers)}
    until(lambda: states(service) == wanted, "every worker to be ready")


def states(service: ServiceProcess) -> dict[str, bool]:
    found: dict[str, bool] = json.loads(service.get("/readyz")[1])["workers"]
    return found


def asking(**claims: object) -> bytes:
    now = int(time.time())
    token = rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 600, **claims})
    return check_request(sent(rpc(), authorization=f"Bearer {token}"))


def count(service: ServiceProcess, name: str = ALLOWED) -> float:
    text = service.get("/metrics")[1]
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def children(service: ServiceProcess) -> list[int]:
    """Return the workers' process ids."""
    pid = service.process.pid
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(each) for task in tasks for each in task.read_text().split())


def victim(service: ServiceProcess, worker: int = 0) -> int:
    """Return the process id of one worker: it has its number in its environment."""
    for pid in children(service):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        said = next(each for each in pairs if each.startswith(b"AUTHZ_WORKER="))
        if json.loads(said.partition(b"=")[2])["worker"] == worker:
            return pid
    raise AssertionError(f"worker {worker} does not run")


def session(leader: int) -> list[int]:
    """Return what is left of a worker and all that it started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and int(of) == leader:
                found.append(int(stat.parent.name))
    return found


def refuses(service: ServiceProcess, worker: int) -> bool:
    return not service.check(asking(), worker=worker).allowed


def told(service: ServiceProcess, after: int, **fields: object) -> None:
    """Look that one line tells of one worker that hung, and none of one that died besides."""
    (line,) = service.events("worker_hung", after)
    assert {name: line[name] for name in fields} == fields
    assert service.events("worker_ended", after) == []


def counts(service: ServiceProcess, value: float, name: str = ALLOWED) -> None:
    """Wait for a metric: a worker that is late to tell its counts tells them at the next look."""
    until(lambda: count(service, name) == value, f"{name} to be {value}")


def ready_or_late(service: ServiceProcess) -> bool:
    """Tell whether a worker is ready, or one of them was too late to say so."""
    began = time.monotonic()
    return service.get("/readyz")[0] == 200 or time.monotonic() - began >= SILENT


def restarts(service: ServiceProcess) -> float:
    return count(service, "authz_worker_restarts_total")


def test_a_limit_is_one_for_all_workers(run: Run) -> None:
    """Of 400 requests over four workers, 40 at once, against a limit of 100 exactly 100 pass.

    Redis has 50 ms for an answer. On a machine that is busy with other things it may be later,
    and workers that count on nobody's word then refuse (503): never more than 100 pass, and where
    all were answered in time, no fewer; ten times are tried. More at once keep a worker of a slow
    machine that long.
    """
    with run(workers=4, rate="100/minute", mode="deny") as service:
        total = Counter[int]()
        for attempt in range(10):
            raw = asking(sub=f"person {attempt}")
            found = Counter[int]()
            for _ in range(10):
                with ThreadPoolExecutor(4) as threads:
                    asked = list(
                        threads.map(lambda n, raw=raw: service.begin(raw, worker=n % 4), range(40))
                    )
                # An Allow has no status of its own.
                found.update(answer(each.result()).status for each in asked)
            total += found
            assert found[0] <= 100
            if not found[503]:
                break

        assert found == {0: 100, 429: 300} or found[503]
        counts(service, total[0])
        counts(service, total.total(), "authz_check_duration_seconds_count")
        refusals = sum(
            count(service, f'authz_decisions_total{{reason="{reason}",server="files"}}')
            for reason in ("rate_limited", "too_many_refusals")
        )
        assert refusals == total[429]


def test_a_reload_reaches_every_worker(pool: ServiceProcess) -> None:
    """SIGHUP to the process above: each worker has the new servers, and the old ones are gone."""
    before, text = len(pool.lines), pool.config.read_text()
    pool.config.write_text(text.replace("  files:", "  notes:"))

    pool.signal(signal.SIGHUP)
    pool.wait_for("reloaded", 2, before)

    assert {each["worker"] for each in pool.events("reloaded", before)} == {0, 1}
    assert [pool.check(asking(), worker=n).status for n in (0, 1)] == [404, 404]


@pytest.mark.attack("broken-configuration")
def test_a_broken_configuration_reaches_no_worker(pool: ServiceProcess) -> None:
    """A file with an error changes nothing, not even for a worker that is started anew."""
    refused = 'authz_config_reloads_total{outcome="refused"}'
    before, counted, text = len(pool.lines), count(pool, refused), pool.config.read_text()
    pool.config.write_text(text.replace("1000000/minute", "60/minit"))

    pool.signal(signal.SIGHUP)
    pool.wait_for("reload_refused", after=before)
    os.kill(victim(pool), signal.SIGKILL)
    pool.wait_for("worker_ended", after=before)
    wait_all_ready(pool, 2)

    assert [pool.check(asking(), worker=n).allowed for n in (0, 1)] == [True, True]
    assert count(pool, refused) == counted + 1


def replaced(config: Path, text: str) -> None:
    """Put another file in its place, as `mv` and most editors do."""
    new = config.with_name("new.yaml")
    new.write_text(text)
    new.rename(config)


def edited(config: Path, text: str) -> None:
    """Have `sed -i` make of the last line what the last line of a text is."""
    subprocess.run(["sed", "-i", f"$ s/.*/{text.splitlines()[-1]}/", str(config)], check=True)


def swapped(config: Path, text: str) -> None:
    """Exchange the link `..data`, as Kubernetes does; the first time in place of a file."""
    home = config.with_name(f"..{time.time_ns()}")
    home.mkdir()
    (home / config.name).write_text(text)
    data = config.with_name("..data")
    for link, target in ((data, home.name), (config, f"..data/{config.name}")):
        new = config.with_name("..new")
        new.symlink_to(target)
        new.rename(link)


@pytest.mark.attack("broken-configuration")
def test_a_change_of_the_file_reaches_every_worker_without_a_signal(run: Run) -> None:
    """However it is made, a tightened rule holds in all workers, and all run the same; of a file
    with an error, made in the same ways, nothing holds anywhere, and it is told once each.
    """
    with run() as service:
        text, group = service.config.read_text(), "staff"
        for number, change in enumerate((replaced, edited, swapped, swapped), start=1):
            before, group = group, f"group-{number}"
            change(service.config, f"{text}    groups: [{group}]\n")
            service.wait_for("reloaded", 2 * number)

            for worker in (0, 1):
                assert service.check(asking(groups=[before]), worker=worker).status == 403
                assert service.check(asking(groups=[group]), worker=worker).allowed
            configs = json.loads(service.get("/readyz")[1])["configs"]
            assert len(configs) == 2
            assert set(configs.values()) == {service.events("reloaded")[-1]["config"]}

            change(service.config, f"{text}    groups: [group {number}\n")
            (problem,) = cast("list[str]", service.wait_for("reload_refused", number)["problems"])
            assert "authz.yaml" in problem
            assert service.check(asking(groups=[before]), worker=number % 2).status == 403
            assert service.check(asking(groups=[group]), worker=number % 2).allowed

        assert len(service.events("reloaded")) == 2 * number
        assert len(service.events("reload_refused")) == number
        assert count(service, 'authz_config_not_in_force{cause="refused"}') == 1


@pytest.mark.attack("revoked-token")
def test_a_revocation_reaches_every_worker(pool: ServiceProcess, redis: ValkeyServer) -> None:
    """A person who is revoked is refused by each worker from the next request on."""
    raw = asking(sub="mallory")
    assert all(pool.check(raw, worker=n).allowed for n in (0, 1))

    asyncio.run(revoke(redis, "mallory"))

    def refused() -> bool:
        return [pool.check(raw, worker=n).status for n in (0, 1)] == [401, 401]

    if not refused():  # decided without Redis: it must have been late
        until(pool.redis_was_late, "the line about Redis")
        until(refused, "a refusal by each worker")


async def revoke(redis: ValkeyServer, subject: str) -> None:
    ledger = RedisLedger(RedisOptions(redis.url, timeout=30))
    target = revocations.person_target(Person("https://auth.example.test", subject))
    await ledger.revoke(target.field, Revocation())
    await ledger.aclose()


@pytest.mark.attack("worker-killed")
def test_a_killed_worker_is_started_again_and_its_counts_stay(pool: ServiceProcess) -> None:
    """What a worker had counted is in the sum when it is gone, and when it is there again."""
    durations = "authz_check_duration_seconds_count"
    before, of_before = len(pool.lines), restarts(pool)
    allowed, answered = count(pool), count(pool, durations)
    for worker in (0, 0, 0, 1):
        pool.check(asking(), worker=worker)
    counts(pool, allowed + 4)

    os.kill(victim(pool), signal.SIGKILL)
    pool.wait_for("worker_ended", after=before)

    assert count(pool) == allowed + 4
    assert pool.check(asking(), worker=1).allowed
    assert ready_or_late(pool)
    wait_all_ready(pool, 2)
    assert pool.check(asking(), worker=0).allowed
    counts(pool, allowed + 6)
    assert restarts(pool) == of_before + 1
    counts(pool, answered + 6, durations)


@pytest.mark.attack("worker-killed")
def test_a_worker_that_is_stopped_is_replaced(impatient: ServiceProcess) -> None:
    """It is killed after so many looks, said once, counted once; the other answers all along."""
    before, of_before = len(impatient.lines), restarts(impatient)
    stopped = victim(impatient)

    os.kill(stopped, signal.SIGSTOP)
    until(
        lambda: refuses(impatient, 1) or bool(impatient.events("worker_hung", before)), "the line"
    )
    wait_all_ready(impatient, 2)

    assert [impatient.check(asking(), worker=n).allowed for n in (0, 1)] == [True, True]
    told(impatient, before, worker=0, unanswered=impatient_serve.WATCHDOG.max_missed)
    assert restarts(impatient) == of_before + 1
    assert session(stopped) == []
    assert len(children(impatient)) == 2


@pytest.mark.attack("worker-killed")
def test_a_loop_that_waits_for_ever_is_replaced(impatient: ServiceProcess, deadlock: Path) -> None:
    """Its pages, which have a thread of their own, say that it is well; it decides nothing."""
    before, of_before = len(impatient.lines), restarts(impatient)
    hanging = victim(impatient)
    deadlock.touch()

    impatient.signal(signal.SIGHUP)
    until(lambda: not deadlock.exists(), "the deadlock")
    until(lambda: states(impatient) == {"0": True, "1": True}, "two pages that say it")
    impatient.wait_for("worker_hung", after=before)
    until(lambda: not session(hanging), "its end")
    wait_all_ready(impatient, 2)

    assert [impatient.check(asking(), worker=n).allowed for n in (0, 1)] == [True, True]
    told(impatient, before, worker=0, unanswered=impatient_serve.WATCHDOG.max_missed)
    assert restarts(impatient) == of_before + 1


def test_a_worker_that_is_slow_stays(impatient: ServiceProcess) -> None:
    """Stopped again and again, longer in all than one that hangs may be: it answers in between.

    On a busy machine it may be stopped for so long at once that it hangs: that is tried again.
    """
    watch = impatient_serve.WATCHDOG.interval * impatient_serve.WATCHDOG.max_missed

    def longest_stop() -> float:
        stops = []
        for _ in range(4):
            began = time.monotonic()
            os.kill(slow, signal.SIGSTOP)
            # The page waits for a worker that does not answer, a second.
            assert states(impatient)["0"] is False
            os.kill(slow, signal.SIGCONT)
            assert impatient.check(asking()).allowed
            stops.append(time.monotonic() - began)
        return max(stops)

    for _ in range(5):
        before, of_before = len(impatient.lines), restarts(impatient)
        slow = victim(impatient)
        try:
            too_long = longest_stop() >= 2 / 3 * watch
        except (ProcessLookupError, grpc.RpcError):
            too_long = True
        if not too_long:
            assert victim(impatient) == slow
            assert restarts(impatient) == of_before
            assert impatient.events("worker_hung", before) == []
            break
        wait_all_ready(impatient, 2)


def test_a_worker_that_is_stopped_keeps_no_one_from_ending(run: Run) -> None:
    """Told to end, it has the time that others have, longer than the watch, and is killed then."""
    with run(program=impatient_serve.PROGRAM) as service:
        pids = children(service)
        os.kill(victim(service), signal.SIGSTOP)

        service.signal(signal.SIGTERM)

        assert service.process.wait(PATIENCE) == 0
        assert not [pid for pid in pids if session(pid)]
        assert service.events("worker_hung") == []


def test_a_worker_that_is_stopped_does_not_end_a_rolling_restart(
    impatient: ServiceProcess,
) -> None:
    """As at the end: it has its time, and is no worker that hangs."""
    before, of_before = len(impatient.lines), restarts(impatient)
    processes = children(impatient)
    os.kill(victim(impatient), signal.SIGSTOP)

    impatient.signal(signal.SIGUSR2)
    impatient.wait_for("rolling_restart_done", after=before)

    assert set(children(impatient)).isdisjoint(processes)
    assert not [pid for pid in processes if session(pid)]
    assert impatient.events("worker_hung", before) == []
    assert restarts(impatient) == of_before


def test_a_rolling_restart_changes_every_process_and_loses_no_count(pool: ServiceProcess) -> None:
    """SIGUSR2: each worker is another process afterwards; one is ready at any time."""
    before, allowed, processes = len(pool.lines), count(pool), children(pool)
    for worker in (0, 1):
        pool.check(asking(), worker=worker)

    pool.signal(signal.SIGUSR2)

    def done() -> bool:
        assert ready_or_late(pool)
        return bool(pool.events("rolling_restart_done", before))

    until(done, "a new process for each worker")

    assert set(children(pool)).isdisjoint(processes)
    assert len(children(pool)) == 2
    assert [pool.check(asking(), worker=n).allowed for n in (0, 1)] == [True, True]
    counts(pool, allowed + 4)
    assert pool.events("worker_ended", before) == []


@pytest.mark.attack("broken-configuration")
def test_a_rolling_restart_begins_with_a_configuration_that_is_right(pool: ServiceProcess) -> None:
    """With an error in authz.yaml no worker is sent away."""
    before, processes = len(pool.lines), children(pool)
    pool.config.write_text("issuer: 1")

    pool.signal(signal.SIGUSR2)
    pool.wait_for("reload_refused", after=before)

    assert children(pool) == processes


def test_sigterm_ends_all_of_it(run: Run) -> None:
    """What the process above is told, every worker is told, and nothing is left over."""
    with run() as service:
        pids = children(service)

        service.signal(signal.SIGTERM)

        assert service.process.wait(PATIENCE) == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
        assert len(service.events("draining")) == 2


@pytest.mark.attack("worker-killed")
def test_with_the_process_above_gone_no_worker_goes_on(run: Run) -> None:
    """Whoever kills it kills the workers."""
    with run() as service:
        pids = children(service)

        service.process.kill()
        service.process.wait()

        until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "their end")


def test_ctrl_c_does_not_reach_the_workers(pool: ServiceProcess) -> None:
    """The terminal's signals go to a group of processes; the workers are in groups of their own."""
    assert all(os.getsid(pid) != os.getsid(pool.process.pid) for pid in children(pool))


def test_what_the_workers_count_is_no_file_of_others(pool: ServiceProcess) -> None:
    """Their sockets and the configuration in force are in a folder that only this user enters."""
    folders = {Path(f"/proc/{pid}/environ").read_bytes() for pid in children(pool)}
    said = [
        json.loads(pair.partition(b"=")[2])
        for each in folders
        for pair in each.split(b"\0")
        if pair.startswith(b"AUTHZ_WORKER=")
    ]
    places = {Path(each["status"]).parent for each in said}

    assert [place.stat().st_mode & 0o077 for place in places] == [0]
