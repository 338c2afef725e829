"""How many restarts, how soon, in which order, and for how many requests?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cost import first_writes
from tests.bench.results import percentile
from tests.bench.stage import FREE, Stage, stage
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until

BUDGET = 100


def budget(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """``size`` workloads with a certificate each, all new at once, under a budget of a hundred a minute."""
    names = [f"w{number:03}" for number in range(size)]
    with stage(plane, folder, "bench-budget", {"restarts": {"perMinute": BUDGET, "cooldown": "0s"}}) as on:
        for name in names:
            # The later in the alphabet, the sooner its certificate ends.
            on.site.order(on.namespace, name, duration=f"{2000 - names.index(name)}m")
        until(lambda: on.ready() == size, 60 + size / 5, "certificates")
        deploy(on, names)
        records = on.records()
        on.renew(names, "1")
        seen = records.await_writes(size, ("deployments", "patch"), timeout=60 + size * 60 / BUDGET * 1.5)
        times = first_writes(seen, "deployments")
    # What the bucket held goes at once, and in the order in which the renewals came; the order is that of the rest.
    order = sorted(times, key=times.__getitem__)
    burst = BUDGET // 4
    waited = order[burst:]
    wrong = sum(one < other for one, other in itertools.pairwise(waited))
    minutes = (max(times.values()) - times[order[burst]]) / 60
    return {"restarts a minute after the burst": (len(waited) - 1) / minutes, "out of order by expiry": float(wrong)}


def one_workload(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """``size`` Secrets of one workload that change one after the other within two seconds."""
    names = [f"s{number:03}" for number in range(size)]
    with stage(plane, folder, "bench-one", FREE) as on:
        on.orders(names)
        on.site.plane.create(manifests.deployment("web", on.namespace, *map(manifests.volume, names)))
        until(lambda: on.rolled_out() == size, 60, "the workload")
        before = on.site.generation(on.namespace, "web")
        pause = 2 / size
        for name in names:
            on.site.plane.annotate("certrenewals", on.namespace, name, renew_now="1")
            time.sleep(pause)  # the spacing is what the scenario is about
        until(lambda: on.site.generation(on.namespace, "web") > before, 60, "a restart")
        until(lambda: on.rolled_out() == size, 60, "all in the workload")
        return {"restarts": float(on.site.generation(on.namespace, "web") - before)}


def latency(plane: ControlPlane, folder: Path, size: int) -> dict[str, float]:
    """From the answer to the Secret's patch to that of the pod template's, for ``size`` Secrets at once."""
    names = [f"w{number:03}" for number in range(size)]
    with stage(plane, folder, "bench-latency", FREE) as on:
        on.orders(names)
        deploy(on, names)
        records, meter = on.records(), on.meter()
        on.renew(names, "1")
        requests = records.await_writes(size, ("deployments", "patch"), timeout=60 + size)
        meter.stop()
        secrets, templates = first_writes(requests, "secrets"), first_writes(requests, "deployments")
        until(lambda: on.rolled_out() == size, 60 + size, "every rollout told")
        requests += records.new()
        bare = bare_patch(on, names)
    delays = [(templates[name] - secrets[name]) * 1000 for name in names]
    return {
        "Secret to template p50, ms": percentile(delays, 0.5),
        "Secret to template p95, ms": percentile(delays, 0.95),
        "first Secret to last template, s": max(templates.values()) - min(secrets.values()),
        "p50 in patches by a bare client": percentile(delays, 0.5) / bare,
        "requests for a renewal with its restart": len(requests) / size,
        "requests for the restart alone": sum(map(is_for_restart, requests)) / size,
        "operator CPU, ms each": meter.cpu["operator"] / size * 1000,
    }


def is_for_restart(record: dict[str, object]) -> bool:
    """Whether a request is about the workload: its patch, and the Event about that."""
    about = record.get("objectRef")
    return isinstance(about, dict) and about.get("resource") == "deployments" and record["verb"] == "patch"


def bare_patch(on: Stage, names: Sequence[str]) -> float:
    """The median time in ms of a patch of a pod template by a client that does nothing else."""
    times: list[float] = []
    for name in names[:50]:
        body = {"spec": {"template": {"metadata": {"annotations": {"bench": "1"}}}}}
        started = time.perf_counter()
        on.site.plane.merge_patch("deployments.apps", on.namespace, name, body)
        times.append((time.perf_counter() - started) * 1000)
    return percentile(times, 0.5)


def deploy(on: Stage, names: Sequence[str]) -> None:
    """A Deployment for each Secret, all healthy."""
    on.each(lambda name: on.site.plane.create(manifests.deployment(name, on.namespace, manifests.volume(name))), names)
    until(lambda: on.rolled_out() == len(names), 60 + len(names), "every workload healthy")
    until(
        lambda: all((item["status"].get("restarts") or "0/0") == "1/1" for item in on.renewals()),
        60 + len(names),
        "every workload known",
    )
