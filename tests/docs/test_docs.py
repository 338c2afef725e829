"""The documentation names what the code has: every reason, annotation, option and metric."""

from __future__ import annotations

import re
from pathlib import Path

import click
import prometheus_client

from certrenewal import cli, metrics
from certrenewal.domain import annotation
from certrenewal.domain.asking import Refusal
from certrenewal.domain.reasons import Reason

DOCS = Path(__file__).parents[2] / "docs"


def first_column(page: str) -> set[str]:
    """The code in the first cell of each table row of a page."""
    return set(re.findall(r"^\| `([^`]+)`", (DOCS / page).read_text(), re.MULTILINE))


def test_every_reason_has_its_row() -> None:
    assert first_column("reasons.md") == {reason.value for reason in Reason}


def test_every_annotation_has_its_row() -> None:
    names = {key.removeprefix(annotation.PREFIX) for key in annotation.ON_SECRETS | annotation.ON_WORKLOADS}

    assert first_column("annotations.md") == names


def test_every_refusal_of_a_token_has_its_row() -> None:
    page = (DOCS / "tokens.md").read_text()

    assert {refusal.value for refusal in Refusal} <= set(re.findall(r"`([A-Za-z]+)`", page))


def test_every_option_and_variable_has_its_row() -> None:
    page = (DOCS / "operations.md").read_text()
    command = cli.main.commands["operator"]

    for option in command.params:
        assert isinstance(option, click.Option)
        assert f"| `{option.opts[0]}` | `{option.envvar}` |" in page


def test_every_metric_has_its_row() -> None:
    page = (DOCS / "operations.md").read_text()
    ours = [name for name in prometheus_client.REGISTRY._names_to_collectors if name.startswith("certrenewal_")]

    assert metrics.LEADER
    for name in {re.sub(r"_(created|bucket|count|sum)$", "", name) for name in ours}:
        assert f"`{name}`" in page or f"`{name}_total`" in page, name


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    ours = {name for name in prometheus_client.REGISTRY._names_to_collectors if name.startswith("certrenewal_")}
    chart = DOCS.parent / "charts" / "certrenewal"

    assert metrics.LEADER
    for page in (chart / "templates" / "prometheusrule.yaml", chart / "dashboards" / "certrenewal.json"):
        named = set(re.findall(r"certrenewal_[a-z_]+(?=\{)", page.read_text()))
        assert named <= ours, page.name
        assert {"certrenewal_hooks_total", "certrenewal_revocations_total"} <= named, page.name


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
